"""How near two images are, or other values with a vector each: SimHash, and the cosine of the vectors.

Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002: 256 signs of random
projections of the centred pixels, in 8 bands of 32.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.values import leakage
from graftline.values.chosen import values_of
from graftline.values.pixels import pixel_file

BITS = 256
CHUNK = 4096
"""Images that are projected at once."""
VERIFY_BYTES = 64 << 20
"""How many pixels are in memory while candidates are verified, as float32."""


@dataclass(frozen=True)
class CosineMeasure(ABC):
    """A `leakage.Measure` of a column whose values have a vector each."""

    column: str
    minimum: float
    name: str = "cosine"

    @abstractmethod
    def vectors(self, values: pa.Array) -> np.ndarray:
        """Return (n, size) numbers of n values."""

    @abstractmethod
    def read(self, files: Sequence[Path], rows: np.ndarray) -> np.ndarray:
        """Return (n, size) float32 of the values of `rows` (sorted), from the Parquet files."""

    @abstractmethod
    def size(self, files: Sequence[Path]) -> int:
        """Return the length of a vector."""

    @property
    def max_distance(self) -> int:
        return max_distance(self.minimum)

    def signatures(self, features: Sequence[pa.Array]) -> np.ndarray:
        (values,) = features
        return signatures(self.vectors(values))

    def distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return leakage.hamming(first, second)

    def pairs_at_once(self, files: Sequence[Path]) -> int:
        return max(1, VERIFY_BYTES // (2 * 4 * self.size(files)))

    def likeness(self, pairs: np.ndarray, index: leakage.Columns, files: Sequence[Path]) -> np.ndarray:
        """Return the cosine of the centred vectors of each pair, (m,) float64."""
        positions = np.unique(pairs)
        centred = self.read(files, index.rows[positions])
        centred -= centred.mean(axis=1, keepdims=True)
        norms = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64))
        place = np.searchsorted(positions, pairs)
        dots = np.array([np.dot(centred[a], centred[b]) for a, b in place], np.float64)
        cosines: np.ndarray = dots / np.maximum(norms[place[:, 0]] * norms[place[:, 1]], 1e-30)
        return cosines


class ImageMeasure(CosineMeasure):
    """Of images: their pixels."""

    def vectors(self, values: pa.Array) -> np.ndarray:
        pixels: np.ndarray = values.flatten().to_numpy().reshape(len(values), -1)
        return pixels

    def read(self, files: Sequence[Path], rows: np.ndarray) -> np.ndarray:
        return _read_pixels(files, self.column, rows)

    def size(self, files: Sequence[Path]) -> int:
        return _pixel_count(files[0], self.column)


def signatures(pixels: np.ndarray) -> np.ndarray:
    """Return the SimHash of each image, (n, 8) uint32, from (n, pixels); all zeros for an image of one grey.

    For pixels of 8 bits the arithmetic is exact, so that it does not depend on the machine.
    """
    planes = hyperplanes(pixels.shape[1])
    sums = planes.sum(axis=0, dtype=np.float64)
    parts = []
    for start in range(0, len(pixels), CHUNK):
        chunk = pixels[start : start + CHUNK].astype(np.float32)
        # n * (x - mean(x)) . h = n * x . h - sum(x) * sum(h)
        total = chunk.sum(axis=1, dtype=np.float64)
        projected = (chunk @ planes).astype(np.float64) * pixels.shape[1] - total[:, None] * sums
        parts.append(np.packbits(projected > 0, axis=1).view(">u4").astype(np.uint32))
    return np.concatenate(parts)


def hyperplanes(size: int) -> np.ndarray:
    """Return (size, 256) float32 of -1 and 1: the bits of SHAKE-256, the same for ever on any machine."""
    stream = hashlib.shake_256(b"graftline simhash 1").digest(size * BITS // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(size, BITS)
    planes: np.ndarray = bits.astype(np.float32) * 2 - 1
    return planes


def max_distance(min_cosine: float) -> int:
    """Return the Hamming distance that signatures at this cosine exceed with probability 1e-4 or less."""
    share = math.acos(min_cosine) / math.pi
    return math.ceil(BITS * share + 4 * math.sqrt(BITS * share * (1 - share)))


def _pixel_count(path: Path, image: str) -> int:
    kind = pq.read_schema(path).field(image).type
    if pa.types.is_integer(kind):
        return int(np.prod(_in_file(path.parent, image).shape[1:]))
    return int(kind.list_size)


def _in_file(folder: Path, image: str) -> np.ndarray:
    """Return the pixels of a column that has a file of them; a row's place is its number."""
    return np.asarray(np.load(folder / pixel_file(image), mmap_mode="r"))


def _read_pixels(files: Sequence[Path], image: str, rows: np.ndarray) -> np.ndarray:
    """Return the pixels of `rows` (sorted), (n, pixels) float32, from the Parquet files or the file beside them."""
    if pa.types.is_integer(pq.read_schema(files[0]).field(image).type):
        taken: np.ndarray = _in_file(files[0].parent, image)[rows].reshape(len(rows), -1).astype(np.float32)
        return taken
    pixels = np.empty((len(rows), _pixel_count(files[0], image)), np.float32)
    for places, values in values_of(files, image, rows):
        pixels[places] = values.flatten().to_numpy().reshape(len(places), -1)
    return pixels
