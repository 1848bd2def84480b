"""The pixels of a column of images: gathered from where they lie when they are asked for, a batch at a time.

Encoded pictures are decoded once, by validate, into `<column>.npy` of the dataset: NumPy's own format
(https://numpy.org/neps/nep-0001-npy-format.html), (raw rows, height, width, channels) uint8, mapped into memory. A
row's place in it is its row number; where no picture of a good row stands there are zeros. The Parquet files hold the
places.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from graftline.errors import InputError

HEADER_BYTES = 128
"""Of a .npy file of up to 10**20 rows: NumPy fills the header up, so that its length does not depend on the shape."""
_AT_ONCE = 1 << 24
"""Pixels that are turned into numbers at once where all are wanted."""


def pixel_file(column: str) -> str:
    """Return the name of the file of a column's pixels."""
    return f"{quote(column, safe='')}.npy"


def npy_header(shape: tuple[int, ...]) -> bytes:
    """Return the first bytes of a .npy file of uint8."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    assert len(header.getvalue()) == HEADER_BYTES
    return header.getvalue()


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images of one size, by their places in an array that may be larger than the memory."""

    stored: np.ndarray
    """(m, height, width, channels), uint8 or float32; mapped from a file, or in memory."""
    positions: np.ndarray
    """(n,) int64 places in `stored`."""
    maximum: float = 255.0
    """The stored value of full brightness."""

    @classmethod
    def of(cls, stored: np.ndarray, maximum: float = 255.0) -> Pixels:
        """Return all images of an array."""
        return cls(stored, np.arange(len(stored)), maximum)

    @classmethod
    def in_file(cls, path: Path, positions: np.ndarray, shape: tuple[int, int, int]) -> Pixels:
        """Return images of a dataset's file of pixels. Raises InputError if it does not hold them."""
        try:
            stored = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise InputError(path, f"not a file of pixels ({error})", fix="run validate again") from None
        if stored.shape[1:] != shape or stored.dtype != np.uint8 or (len(positions) and positions.max() >= len(stored)):
            raise InputError(
                path,
                f"{stored.dtype} {stored.shape}",
                expected=f"uint8, at least {int(positions.max(initial=-1)) + 1} of {shape}",
                fix="run validate again",
            )
        return cls(stored, positions)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, channels, height, width), as `numpy` returns them."""
        height, width, channels = self.stored.shape[1:]
        return len(self), channels, height, width

    @classmethod
    def of_numbers(cls, images: np.ndarray) -> Pixels:
        """Return images that are in memory as `numpy` returns them."""
        return cls.of(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), 1.0)

    def take(self, chosen: Any) -> Pixels:
        """Return the images at these (k,) places of this one, or in a slice; nothing is read."""
        return replace(self, positions=self.positions[chosen])

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """Return the images at these places in memory, as `numpy` does."""
        return self.take(chosen).numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all there is: `Pixels.from_arrays(pixels.arrays())` is equal to `pixels`."""
        return {"pixels": self.stored, "positions": self.positions, "maximum": np.array(self.maximum)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Pixels:
        return cls(arrays["pixels"], arrays["positions"], float(arrays["maximum"]))

    def numpy(self) -> np.ndarray:
        """Return all images in memory: (n, channels, height, width) float32 from 0 to 1."""
        taken = self.stored[self.positions]
        if isinstance(self.stored, np.memmap):
            # What was read stays in the system's cache; it need not count as this process's memory too.
            self.stored._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        numbers: np.ndarray = taken.astype(np.float32) / np.float32(self.maximum)
        if numbers.shape[3] == 1:  # a transpose of an axis of 1 says "channels last" to torch: other bits
            return numbers.reshape(self.shape)
        return np.ascontiguousarray(numbers.transpose(0, 3, 1, 2))

    def parts(self, size: int | None = None) -> Iterator[np.ndarray]:
        """Yield all images as `numpy` does, at most `size` at once."""
        size = size or max(1, _AT_ONCE // int(np.prod(self.stored.shape[1:])))
        for start in range(0, len(self), size):
            yield self[start : start + size]
