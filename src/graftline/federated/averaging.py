"""The average of models: safetensors files and numbers, without torch. The same bits for the same updates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from graftline.durable import fsync_file
from graftline.errors import InputError, brief

AVERAGED = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""Kinds of numbers that a model to be averaged may hold: numpy knows no bfloat16, and no model is saved in it."""


class Tensor(NamedTuple):
    """Which numbers a tensor holds."""

    shape: tuple[int, ...]
    dtype: str
    """numpy's name."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a model's folder, which are read when they are asked for."""

    files: Mapping[str, Path]
    """The file that holds each tensor, by its name."""

    @classmethod
    def of(cls, folder: Path) -> Weights:
        """Return those of all safetensors files in a folder. Raises InputError: one is damaged, or a name is twice."""
        files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            for name in _names(path):
                if name in files:
                    raise InputError(path, f"tensor {name} is in {files[name].name} too", expected="each name once")
                files[name] = path
        return cls(files)

    def read(self, name: str) -> np.ndarray:
        """Return a tensor. Raises InputError if it cannot be read as numbers that can be averaged."""
        from safetensors import SafetensorError, safe_open

        path = self.files[name]
        try:
            with safe_open(path, "np") as file:
                found: np.ndarray = file.get_tensor(name)
        except (SafetensorError, OSError, TypeError, ValueError, KeyError) as error:
            raise InputError(path, f"tensor {name} cannot be read ({brief(error)})") from None
        if found.dtype.name not in AVERAGED:
            raise InputError(path, f"tensor {name} is {found.dtype.name}", expected="one of " + ", ".join(AVERAGED))
        return found

    def each(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each tensor by its name, in the names' order."""
        for name in sorted(self.files):
            yield name, self.read(name)


def _names(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return sorted(file.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(path, f"no safetensors file ({brief(error)})") from None


def kind_of(tensor: np.ndarray) -> Tensor:
    """Return which numbers it holds."""
    return Tensor(tuple(tensor.shape), tensor.dtype.name)


def shares(rows: Mapping[str, int], most: float | None) -> dict[str, float]:
    """Return the weight of each site, which are 1 together: by its rows, and `most` at most.

    What a site has above that goes to the others, by their rows. Where even equal weights are above it, they are equal.
    """
    names = sorted(rows)
    if most is None:
        most = 1.0
    if most * len(names) <= 1:
        return dict.fromkeys(names, 1 / len(names))
    capped: set[str] = set()
    while True:
        free = [name for name in names if name not in capped]
        left, total = 1 - most * len(capped), sum(rows[name] for name in free)
        given = {name: left * rows[name] / total for name in free}
        above = {name for name, share in given.items() if share > most}
        if not above:
            return {name: most if name in capped else given[name] for name in names}
        capped |= above


def average(start: Weights, updates: Sequence[tuple[Weights, float]], out: Path) -> None:
    """Write into the folder `out` the files of `start` with averages in them, flushed.

    In float64, in the order of `updates`; the result is rounded once to the kind of `start`'s number. A tensor that an
    update lacks is there as it is in `start`. Whole numbers (a count of batches) are rounded to the nearest.

    Args:
        start: the model that the updates began with.
        updates: each with its weight, which are 1 together.
        out: an empty folder.
    """
    from safetensors.numpy import save_file

    by_file: dict[Path, list[str]] = {}
    for name, path in start.files.items():
        by_file.setdefault(path, []).append(name)
    for path, names in by_file.items():
        made = {}
        for name in sorted(names):
            before = start.read(name)
            total = np.zeros(before.shape, np.float64)
            for update, weight in updates:
                total += weight * (update.read(name) if name in update.files else before).astype(np.float64)
            # rint makes a number of an array without dimensions
            made[name] = np.asarray(total if before.dtype.kind == "f" else np.rint(total), dtype=before.dtype)
        save_file(made, out / path.name, metadata=_metadata(path))
        fsync_file(out / path.name)


def difference(start: Weights, after: Weights, path: Path) -> int:
    """Write the tensors of `after` that are not, bit for bit, those of `start` to a file, flushed; return its bytes.

    Raises InputError: the two have other tensors.
    """
    from safetensors.numpy import save_file

    if start.files.keys() != after.files.keys():
        raise InputError(path, "the two models have other tensors", fix="fine-tune from the round's model")
    changed = {
        name: tensor for name, tensor in after.each() if tensor.tobytes() != start.read(name).tobytes()
    }  # fmt: skip
    save_file(changed, path)
    fsync_file(path)
    return path.stat().st_size


def _metadata(path: Path) -> dict[str, str] | None:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        found: dict[str, str] | None = file.metadata()
    return found
