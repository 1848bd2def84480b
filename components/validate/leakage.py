"""Rows that are in two splits at once, exactly or nearly, and equal rows that contradict each other.

Near-duplicates are found with SimHash (Charikar, "Similarity estimation techniques from rounding
algorithms", STOC 2002): 256 signs of random projections of the centred pixels, in 8 bands of 32. Rows that
agree in a whole band are compared by their signatures, and those that are close by the true cosine of their
pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.components.validate.identity import SPLIT_NAMES, TEST, UNLABELLED

if TYPE_CHECKING:
    import numpy as np

BITS = 256
BANDS = 8
CHUNK = 4096
"""Images that are projected at once."""
WINDOW = 32
"""How many neighbours in its bucket a row is compared with: bounds the work of a large bucket."""
MAX_PAIRS = 1_000_000
"""How many candidate pairs are verified, the closest signatures first."""
VERIFY_BYTES = 64 << 20
"""How many pixels are in memory while candidates are verified, as float32."""


@dataclass(frozen=True)
class Pair:
    """Two rows in different splits with (nearly) the same features."""

    first: int
    second: int
    splits: tuple[str, str]
    cosine: float = 1.0

    def __str__(self) -> str:
        first, second = self.splits
        return f"row {self.first} ({first}) and row {self.second} ({second}, cosine {self.cosine:.4f})"


@dataclass
class Index:
    """What is kept of each good row: some 70 bytes."""

    rows: list[np.ndarray] = field(default_factory=list)
    splits: list[np.ndarray] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    """(n, 2) uint64: the first 128 bits of the digest of each row's features."""
    labels: list[np.ndarray] = field(default_factory=list)
    """(n,) int32 class indices, -1 without a label."""
    signatures: list[np.ndarray] = field(default_factory=list)
    """(n, 8) uint32."""

    def close(self) -> Columns:
        """Return the index in one piece; the pieces are let go one by one."""
        import numpy as np

        def join(parts: list[np.ndarray]) -> np.ndarray:
            whole = np.concatenate(parts)
            parts.clear()
            return whole

        signatures = join(self.signatures) if self.signatures else None
        return Columns(join(self.rows), join(self.splits), join(self.features), join(self.labels), signatures)


@dataclass(frozen=True)
class Columns:
    """The index of all good rows; see `Index`."""

    rows: np.ndarray
    splits: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    signatures: np.ndarray | None


@dataclass(frozen=True)
class ExactFindings:
    """What rows with equal features show."""

    leaks: list[Pair]
    """One pair for each set of equal rows that is in two splits, by row number."""
    duplicates: int
    """Rows that equal an earlier row of the same split."""
    conflicts: list[tuple[int, int]]
    """For each set of equal rows with different labels, two of them."""


def leaks(first: Any, second: Any) -> Any:
    """Return whether equal rows in these splits leak (arrays or scalars).

    The unlabelled pool holds the images of train and val by design, but never those of test.
    """
    pool = ((first == UNLABELLED) & (second != TEST)) | ((second == UNLABELLED) & (first != TEST))
    return (first != second) & ~pool


def find_exact(index: Columns) -> ExactFindings:
    """Compare rows with equal features."""
    import numpy as np

    order = np.lexsort((index.rows, index.features[:, 1], index.features[:, 0]))
    keys = index.features[order]
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    ends = np.r_[starts[1:], len(order)]
    found_leaks, conflicts, duplicates = [], [], 0
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        group = order[start:end]
        splits, labels = index.splits[group], index.labels[group]
        duplicates += len(group) - len(np.unique(splits))
        other = next((o for s in np.unique(splits) for o in np.unique(splits) if s < o and leaks(s, o)), None)
        if other is not None:
            second = group[splits == other][0]
            first = group[leaks(splits, other)][0]
            found_leaks.append(_pair(index, first, second, 1.0))
        labelled = group[labels >= 0]
        differing = (
            labelled[index.labels[labelled] != index.labels[labelled[:1]]] if len(labelled) else labelled
        )
        if len(differing):
            conflicts.append((int(index.rows[labelled[0]]), int(index.rows[differing[0]])))
    return ExactFindings(sorted(found_leaks, key=lambda pair: pair.first), duplicates, sorted(conflicts))


def signatures(pixels: np.ndarray) -> np.ndarray:
    """Return the SimHash of each image, (n, 8) uint32, from (n, pixels); all zeros for an image of one grey.

    For pixels of 8 bits the arithmetic is exact, so that it does not depend on the machine.
    """
    import numpy as np

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
    import numpy as np

    stream = hashlib.shake_256(b"graftline simhash 1").digest(size * BITS // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(size, BITS)
    planes: np.ndarray = bits.astype(np.float32) * 2 - 1
    return planes


def find_near(index: Columns, folder: Path, image: str, min_cosine: float) -> list[Pair]:
    """Return pairs of rows of leaking splits whose centred pixels have a cosine of at least `min_cosine`.

    Candidates come from the signatures; their pixels from the split files in `folder`. Stops after the first
    group of candidates that holds such pairs. Bounded: each row is compared with WINDOW others a band.
    """
    import numpy as np

    pairs = candidates(index, max_distance(min_cosine))
    start = 0
    size = _pixel_count(folder, image) * 4
    step = max(1, VERIFY_BYTES // (2 * size))
    while start < len(pairs):
        chunk = pairs[start : start + step]
        cosines = _cosines(chunk, index, folder, image)
        hits = np.flatnonzero(cosines >= min_cosine)
        if len(hits):
            found = [_pair(index, chunk[hit, 0], chunk[hit, 1], float(cosines[hit])) for hit in hits]
            return sorted(found, key=lambda pair: (-pair.cosine, pair.first, pair.second))
        start += step
    return []


def max_distance(min_cosine: float) -> int:
    """Return the Hamming distance that signatures at this cosine exceed with probability 1e-4 or less."""
    import math

    share = math.acos(min_cosine) / math.pi
    return math.ceil(BITS * share + 4 * math.sqrt(BITS * share * (1 - share)))


def candidates(index: Columns, distance: int) -> np.ndarray:
    """Return (m, 2) positions of rows of leaking splits that share a band and differ in few bits."""
    import numpy as np

    assert index.signatures is not None
    kept = _representatives(index)
    found, distances = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for band in range(BANDS):
        for first, second in _band_pairs(index, kept, band):
            differing = np.bitwise_count(index.signatures[first] ^ index.signatures[second]).sum(axis=1)
            close = differing <= distance
            found.append(np.stack([first[close], second[close]], axis=1))
            distances.append(differing[close].astype(np.int64))
        found, distances = _closest(found, distances)
    return found[0]


def _representatives(index: Columns) -> np.ndarray:
    """Return positions: one of each set of rows that are equal and in one split; none of one grey."""
    import numpy as np

    assert index.signatures is not None
    order = np.lexsort((index.rows, index.splits, index.features[:, 1], index.features[:, 0]))
    features, splits = index.features[order], index.splits[order]
    new = np.r_[True, (features[1:] != features[:-1]).any(axis=1) | (splits[1:] != splits[:-1])]
    kept = order[new]
    positions: np.ndarray = np.sort(kept[index.signatures[kept].any(axis=1)])
    return positions


def _band_pairs(index: Columns, kept: np.ndarray, band: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs at 1, 2, ... WINDOW places from each other in the order of a band's buckets."""
    import numpy as np

    assert index.signatures is not None
    keys = index.signatures[kept, band]
    # Within a bucket, neighbours in the order of the next band tend to be close in it too.
    order = np.lexsort((index.signatures[kept, (band + 1) % BANDS], keys))
    keys, members = keys[order], kept[order]
    same = keys[1:] == keys[:-1]
    crowded = np.r_[False, same] | np.r_[same, False]
    keys, members = keys[crowded], members[crowded]
    for offset in range(1, WINDOW + 1):
        same = keys[offset:] == keys[:-offset]
        if not same.any():
            return
        first, second = members[:-offset][same], members[offset:][same]
        apart = leaks(index.splits[first], index.splits[second])
        first, second = first[apart], second[apart]
        yield np.minimum(first, second), np.maximum(first, second)


def _closest(
    found: list[np.ndarray], distances: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Join the pairs, each once, the closest first, at most MAX_PAIRS."""
    import numpy as np

    pairs, first = np.unique(np.concatenate(found), axis=0, return_index=True)
    apart = np.concatenate(distances)[first]
    order = np.argsort(apart, kind="stable")[:MAX_PAIRS]
    return [pairs[order]], [apart[order]]


def _pixel_count(folder: Path, image: str) -> int:
    import pyarrow.parquet as pq

    kind = pq.read_schema(folder / f"{SPLIT_NAMES[0]}.parquet").field(image).type
    return int(kind.list_size)


def _cosines(pairs: np.ndarray, index: Columns, folder: Path, image: str) -> np.ndarray:
    """Return the cosine of the centred pixels of each pair, (m,) float64."""
    import numpy as np

    positions = np.unique(pairs)
    rows = index.rows[positions]
    centred = _read_pixels(folder, image, rows)
    centred -= centred.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64))
    place = np.searchsorted(positions, pairs)
    dots = np.array([np.dot(centred[a], centred[b]) for a, b in place], np.float64)
    cosines: np.ndarray = dots / np.maximum(norms[place[:, 0]] * norms[place[:, 1]], 1e-30)
    return cosines


def _read_pixels(folder: Path, image: str, rows: np.ndarray) -> np.ndarray:
    """Return the pixels of `rows` (sorted), (n, pixels) float32, from the split files."""
    import numpy as np
    import pyarrow.parquet as pq

    pixels = np.empty((len(rows), _pixel_count(folder, image)), np.float32)
    for name in SPLIT_NAMES:
        with pq.ParquetFile(folder / f"{name}.parquet", pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=8192, columns=["row", image], use_threads=False):
                found = batch.column("row").to_numpy()
                place = np.minimum(np.searchsorted(rows, found), len(rows) - 1)
                wanted = rows[place] == found
                if wanted.any():
                    flat = batch.column(image).flatten().to_numpy().reshape(len(found), -1)
                    pixels[place[wanted]] = flat[wanted]
    return pixels


def _pair(index: Columns, first: Any, second: Any, cosine: float) -> Pair:
    first, second = sorted((int(first), int(second)), key=lambda position: int(index.rows[position]))
    names = (SPLIT_NAMES[index.splits[first]], SPLIT_NAMES[index.splits[second]])
    return Pair(int(index.rows[first]), int(index.rows[second]), names, cosine)
