"""Checkpoints: what a run needs to go on after a kill, and end with the bits of an unbroken run.

    <folder>/00000300/state.safetensors   model and optimiser, and what else the loop keeps
    <folder>/00000300/manifest.json       written last: identity, step, facts, sha256 of the state; and its own

A checkpoint is filled aside and renamed into place when it is whole; the one before is kept, older ones are
removed after the new one was read back. Tensors are safetensors and facts are JSON: nothing is unpickled.
"""

from __future__ import annotations

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
    identity is not used.
    """

    def __init__(self, folder: Path, identity: str, every_seconds: float) -> None:
        self._folder, self._identity, self._every = folder, identity, every_seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether `every_seconds` have passed since the last save (or since the start)."""
        return time.monotonic() - self._last >= self._every

    def save(self, step: int, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Store the state after `step` steps; keep it and the checkpoint before it."""
        from safetensors.torch import save

        final = self._folder / f"{step:08d}"
        with output_directory(final) as aside:
            write_new(aside / STATE, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            manifest = {
                "identity": self._identity, "step": step, "facts": facts, "sha256": sha256_file(aside / STATE),
            }  # fmt: skip
            seal = sha256_bytes(canonical_json(manifest))
            write_new(aside / MANIFEST, canonical_json({"content": manifest, "sha256": seal}))
        if self._read(final) is not None:
            for older in self._folders()[2:]:
                shutil.rmtree(older)
        fsync_directory(self._folder)
        self._last = time.monotonic()

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint of this identity that verifies, or None; remove what is newer and unusable."""
        for aside in self._folder.glob(".*.aside-*"):  # half a checkpoint, left by a kill
            shutil.rmtree(aside)
        for folder in self._folders():
            if (checkpoint := self._read(folder)) is not None:
                return checkpoint
            shutil.rmtree(folder)
        return None

    def _folders(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        if not self._folder.is_dir():
            return []
        return sorted(
            (f for f in self._folder.iterdir() if f.name.isdigit()), key=lambda f: f.name, reverse=True
        )

    def _read(self, folder: Path) -> Checkpoint | None:
        from safetensors.torch import load_file

        try:
            sealed = read_json(folder / MANIFEST)
            manifest = sealed["content"]
            if sha256_bytes(canonical_json(manifest)) != sealed["sha256"]:
                raise InputError(folder / MANIFEST, "content differs from its sha256")
            if manifest["identity"] != self._identity:
                _warn(folder, "is of a run with other parameters, inputs, code or threads")
                return None
            if sha256_file(folder / STATE) != manifest["sha256"]:
                raise InputError(folder / STATE, "content differs from its manifest")
            return Checkpoint(manifest["step"], load_file(folder / STATE), manifest["facts"])
        except (InputError, OSError, KeyError, TypeError) as error:
            _warn(folder, f"is damaged ({error})")
            return None


def _warn(folder: Path, why: str) -> None:
    print(f"checkpoint {folder.name} {why}; it is not used", file=sys.stderr)
