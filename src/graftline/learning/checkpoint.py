"""Checkpoints: what a run needs to go on after a kill, and end with the bits of an unbroken run.

    <folder>/00000300/state.safetensors   model and optimiser, and what else the loop keeps
    <folder>/00000300/manifest.json       written last: identity, step, facts, sha256 of the state; and its own

A checkpoint is filled aside and renamed into place when it is whole; the one before is kept, older ones are
removed after the new one was read back. Tensors are safetensors and facts are JSON: nothing is unpickled.
On a cluster they go to the store too: see `graftline.learning.remote`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.canonical import canonical_json, read_json
from graftline.digests import sha256_bytes, sha256_file
from graftline.durable import fsync_directory, output_directory, write_new
from graftline.errors import InputError

if TYPE_CHECKING:
    import torch

    from graftline.learning.remote import RemoteCheckpoints

STATE, MANIFEST = "state.safetensors", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    step: int
    """Steps done."""
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in a folder that outlives the process.

    `identity` is what decides the run's result (parameters, inputs, code, threads): a checkpoint of another
    identity is not used. With `remote`, they are uploaded too, and looked for there.
    """

    def __init__(
        self, folder: Path, identity: str, every_seconds: float, remote: RemoteCheckpoints | None = None
    ) -> None:
        self._folder, self._identity, self._every = folder, identity, every_seconds
        self.remote = remote
        self._last = time.monotonic()
        self.newest: tuple[int, Path] | None = None
        """Steps and folder of the newest checkpoint known to be whole: the last saved, or the one loaded."""

    def due(self) -> bool:
        """Return whether `every_seconds` have passed since the last save (or since the start)."""
        return time.monotonic() - self._last >= self._every

    def save(self, step: int, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Store the state after `step` steps; keep it and the checkpoint before it."""
        final = self._folder / f"{step:08d}"
        with output_directory(final) as aside:
            _write_tensors(aside / STATE, tensors)
            manifest = {"identity": self._identity, "step": step, "facts": facts, "sha256": sha256_file(aside / STATE)}
            seal = sha256_bytes(canonical_json(manifest))
            write_new(aside / MANIFEST, canonical_json({"content": manifest, "sha256": seal}))
        if self._verify(final) is not None:
            self.newest = (step, final)
            if self.remote:
                self.remote.offer(step, final, facts["metrics_bytes"])
            for older in self._folders()[2:]:
                if not (self.remote and self.remote.needs(older)):
                    shutil.rmtree(older)
        fsync_directory(self._folder)
        self._last = time.monotonic()

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint of this identity that verifies, or None; remove what is newer and unusable."""
        for aside in self._folder.glob(".*.aside-*"):  # half a checkpoint, left by a kill
            shutil.rmtree(aside)
        found = self._newest_here()
        if self.remote:
            found = self._newest_remote(self.remote, found[0]["step"] if found else 0) or found
        if found is None:
            return None
        manifest, folder = found
        if self.remote:
            self.remote.restore_metrics(folder)
        self.newest = (manifest["step"], folder)
        return Checkpoint(manifest["step"], _read_tensors(folder / STATE), manifest["facts"])

    def _newest_here(self) -> tuple[dict[str, Any], Path] | None:
        for folder in self._folders():
            if (manifest := self._verify(folder)) is not None:
                return manifest, folder
            shutil.rmtree(folder)
        return None

    def _newest_remote(self, remote: RemoteCheckpoints, above: int) -> tuple[dict[str, Any], Path] | None:
        """Bring the newest checkpoint of the store here, if it has one of more than `above` steps that verifies."""
        for step, run in remote.found():
            folder = self._folder / f"{step:08d}"
            if step <= above:
                break
            if remote.fetch(step, run, folder):
                if (manifest := self._verify(folder)) is not None:
                    return manifest, folder
                shutil.rmtree(folder)
                remote.drop(step, run)
        return None

    def _folders(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        if not self._folder.is_dir():
            return []
        return sorted((f for f in self._folder.iterdir() if f.name.isdigit()), key=lambda f: f.name, reverse=True)

    def _verify(self, folder: Path) -> dict[str, Any] | None:
        """Return the manifest of a whole checkpoint of this identity, or None and say what is wrong with it."""
        try:
            sealed = read_json(folder / MANIFEST)
            manifest: dict[str, Any] = sealed["content"]
            if sha256_bytes(canonical_json(manifest)) != sealed["sha256"]:
                raise InputError(folder / MANIFEST, "content differs from its sha256")
            if manifest["identity"] != self._identity:
                _warn(folder, "is of a run with other parameters, inputs, code or threads")
                return None
            if sha256_file(folder / STATE) != manifest["sha256"]:
                raise InputError(folder / STATE, "content differs from its manifest")
        except (InputError, OSError, KeyError, TypeError) as error:
            _warn(folder, f"is damaged ({error})")
            return None
        return manifest


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors one after the other, flushed: a second copy of all of them in memory might not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):  # a full disk, told in words only
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        raise
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _warn(folder: Path, why: str) -> None:
    print(f"checkpoint {folder.name} {why}; it is not used", file=sys.stderr)
