"""Rows that are in two splits at once, exactly or nearly, and equal rows that contradict each other.

Every row has a signature of some bands (see `Measure`). Rows that agree in a whole band are compared by their
signatures, and those that are close by their values. What becomes of the pairs, placing.py decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graftline.values.identity import SPLIT_NAMES, TEST, UNLABELLED

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 32
"""How many neighbours in its bucket a row is compared with: bounds the work of a large bucket. Of other splits it is
compared with so many on either side too: rows of its own split must not hide a twin."""
MAX_PAIRS = 1_000_000
"""How many candidate pairs are verified, the closest signatures first."""


@dataclass(frozen=True)
class Pair:
    """Two rows in different splits with (nearly) the same features."""

    first: int
    second: int
    splits: tuple[str, str]
    likeness: str = "equal"
    """How near they are, in words: `cosine 0.9934`."""

    def __str__(self) -> str:
        first, second = self.splits
        return f"row {self.first} ({first}) and row {self.second} ({second}, {self.likeness})"


@dataclass(frozen=True)
class NearPairs:
    """Pairs of rows that are near each other: 26 bytes each, for there may be a million."""

    measure: str = ""
    """What the likeness is, such as `cosine`."""
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """(m, 2), the smaller number first."""
    splits: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.uint8))
    likeness: np.ndarray = field(default_factory=lambda: np.empty(0))
    """(m,) float64."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: Any) -> NearPairs:
        return NearPairs(self.measure, self.rows[some], self.splits[some], self.likeness[some])

    def __iter__(self) -> Iterator[Pair]:
        for (first, second), (one, other), likeness in zip(
            self.rows.tolist(), self.splits.tolist(), self.likeness, strict=True
        ):
            yield Pair(first, second, (SPLIT_NAMES[one], SPLIT_NAMES[other]), f"{self.measure} {likeness:.4f}")

    def joined(self, other: NearPairs) -> NearPairs:
        """Return the pairs of both, each once, the nearest first."""
        parts = (np.concatenate(both) for both in zip(self._columns(), other._columns(), strict=True))
        every = NearPairs(other.measure, *parts)
        _, first = np.unique(every.rows, axis=0, return_index=True)
        first.sort()
        return every[first[np.argsort(-every.likeness[first], kind="stable")]]

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.rows, self.splits, self.likeness


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
    """(n, bands) uint32; as those below, none where nothing is asked of them."""
    loose: list[np.ndarray] = field(default_factory=list)
    """(n,) uint64 of each row's features without what some models do not see, such as the case of letters."""
    homes: list[np.ndarray] = field(default_factory=list)
    """(n,) uint8: the split that a row would be in if it had a label."""
    groups: list[np.ndarray] = field(default_factory=list)
    """(n,) uint64 of the group's digest."""
    times: list[np.ndarray] = field(default_factory=list)
    """(n,) int64."""

    def close(self) -> Columns:
        """Return the index in one piece; the pieces are let go one by one."""

        def join(parts: list[np.ndarray]) -> Any:
            whole = np.concatenate(parts) if parts else None
            parts.clear()
            return whole

        return Columns(**{name: join(parts) for name, parts in vars(self).items()})


@dataclass(frozen=True)
class Columns:
    """The index of all good rows, ascending; see `Index`."""

    rows: np.ndarray
    splits: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    signatures: np.ndarray | None = None
    loose: np.ndarray | None = None
    homes: np.ndarray | None = None
    groups: np.ndarray | None = None
    times: np.ndarray | None = None

    def take(self, chosen: np.ndarray) -> Columns:
        """Return the rows where a mask is true, or at some positions."""
        taken: dict[str, Any] = {name: None if of is None else of[chosen] for name, of in vars(self).items()}
        return Columns(**taken)


class Measure(Protocol):
    """How near two rows are: by signatures, roughly, and by their values, exactly."""

    @property
    def name(self) -> str: ...

    @property
    def minimum(self) -> float:
        """Likeness from which on two rows are near-duplicates."""

    @property
    def max_distance(self) -> int:
        """Distance of signatures up to which two rows are compared by their values."""

    def signatures(self, features: Sequence[pa.Array]) -> np.ndarray:
        """Return (n, bands) uint32, of all columns that a model sees; all zeros for a row that is near nothing."""

    def distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return how far signatures are from each other, (n,)."""

    def pairs_at_once(self, files: Sequence[Path]) -> int:
        """Return how many pairs' values fit into memory at once."""

    def likeness(self, pairs: np.ndarray, index: Columns, files: Sequence[Path]) -> np.ndarray:
        """Return the likeness of each pair of positions, (m,) float64, by the values in Parquet files."""


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

    The unlabelled pool holds the rows of train and val by design, but never those of test.
    """
    pool = ((first == UNLABELLED) & (second != TEST)) | ((second == UNLABELLED) & (first != TEST))
    return (first != second) & ~pool


def find_exact(index: Columns) -> ExactFindings:
    """Compare rows with equal features."""
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
            found_leaks.append(_pair(index, first, second))
        labelled = group[labels >= 0]
        differing = labelled[index.labels[labelled] != index.labels[labelled[:1]]] if len(labelled) else labelled
        if len(differing):
            conflicts.append((int(index.rows[labelled[0]]), int(index.rows[differing[0]])))
    return ExactFindings(sorted(found_leaks, key=lambda pair: pair.first), duplicates, sorted(conflicts))


def find_near(
    index: Columns, measure: Measure, files: Sequence[Path], apart: Callable[[Any, Any], Any] | None = None
) -> NearPairs:
    """Return all pairs of rows of leaking splits, not equal, whose likeness is at least the measure's minimum.

    Candidates come from the signatures; their values from `files`, which hold `row` and the features. Bounded: each row
    is compared with WINDOW others a band, and the MAX_PAIRS closest candidates are looked at. `apart` tells of (m,)
    positions and (m,) others which pairs are asked for instead.
    """
    pairs = candidates(index, measure.max_distance, measure.distance, apart)
    step = measure.pairs_at_once(files)
    found = NearPairs(measure.name)
    for start in range(0, len(pairs), step):
        chunk = pairs[start : start + step]
        likeness = measure.likeness(chunk, index, files)
        near = likeness >= measure.minimum
        chunk = chunk[near]
        found = found.joined(NearPairs(measure.name, index.rows[chunk], index.splits[chunk], likeness[near]))
    return found


def find_alike(index: Columns) -> ExactFindings:
    """Compare rows whose features are not equal but look so to some models."""
    assert index.loose is not None
    order = np.lexsort((index.rows, index.loose))
    loose, features = index.loose[order], index.features[order]
    new = np.r_[True, loose[1:] != loose[:-1]]
    other = np.r_[False, (features[1:] != features[:-1]).any(axis=1)] & ~new
    chosen = np.isin(index.loose, loose[other])
    alike = index.take(chosen)
    assert alike.loose is not None
    return find_exact(replace(alike, features=np.stack([alike.loose, alike.loose], axis=1)))


def find_split_groups(index: Columns) -> list[Pair]:
    """Return two rows of each group that stands in two splits, by row number."""
    assert index.groups is not None and index.homes is not None
    order = np.lexsort((index.rows, index.groups))
    groups, homes = index.groups[order], index.homes[order]
    new = np.r_[True, groups[1:] != groups[:-1]]
    first = np.flatnonzero(new)[np.cumsum(new) - 1]
    differ = np.flatnonzero(homes != homes[first])
    _, once = np.unique(groups[differ], return_index=True)
    found = []
    for place in differ[once]:
        names = SPLIT_NAMES[homes[first[place]]], SPLIT_NAMES[homes[place]]
        found.append(Pair(int(index.rows[order[first[place]]]), int(index.rows[order[place]]), names))
    return sorted(found, key=lambda pair: pair.first)


def hamming(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how many bits differ, (n,), between signatures of (n, words) uint32."""
    differing: np.ndarray = np.bitwise_count(first ^ second).sum(axis=1)
    return differing


def candidates(
    index: Columns,
    distance: int,
    between: Callable[[np.ndarray, np.ndarray], np.ndarray] = hamming,
    apart: Callable[[Any, Any], Any] | None = None,
) -> np.ndarray:
    """Return (m, 2) positions of unequal rows that share a band and are at most `distance` apart.

    Their splits leak, if `apart` does not choose others.
    """
    assert index.signatures is not None
    kept = _representatives(index)

    def asked(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        wanted = leaks(index.splits[first], index.splits[second]) if apart is None else apart(first, second)
        unequal: np.ndarray = wanted & (index.features[first] != index.features[second]).any(axis=1)
        return unequal

    found, distances = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for band in range(index.signatures.shape[1]):
        for first, second in _band_pairs(index, kept, band, asked):
            differing = between(index.signatures[first], index.signatures[second])
            close = differing <= distance
            found.append(np.stack([first[close], second[close]], axis=1))
            distances.append(differing[close].astype(np.int64))
        found, distances = _closest(found, distances)
    return found[0]


def _representatives(index: Columns) -> np.ndarray:
    """Return positions: one of each set of rows that are equal and in one split; none without a signature."""
    assert index.signatures is not None
    order = np.lexsort((index.rows, index.splits, index.features[:, 1], index.features[:, 0]))
    features, splits = index.features[order], index.splits[order]
    new = np.r_[True, (features[1:] != features[:-1]).any(axis=1) | (splits[1:] != splits[:-1])]
    kept = order[new]
    positions: np.ndarray = np.sort(kept[index.signatures[kept].any(axis=1)])
    return positions


def _band_pairs(
    index: Columns, kept: np.ndarray, band: int, asked: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs asked for at 1, 2, ... WINDOW places from each other in the order of a band's buckets, and those
    of a row and one at so many places from where the rows of its split around it end."""
    assert index.signatures is not None
    if not len(kept):  # no row has a signature: each image is of one shade, or each text without a word
        return
    keys = index.signatures[kept, band]
    # Within a bucket, neighbours in the order of the next band tend to be close in it too.
    order = np.lexsort((index.signatures[kept, (band + 1) % index.signatures.shape[1]], keys))
    keys, members = keys[order], kept[order]
    same = keys[1:] == keys[:-1]
    crowded = np.r_[False, same] | np.r_[same, False]
    keys, members = keys[crowded], members[crowded]
    for offset in range(1, WINDOW + 1):
        same = keys[offset:] == keys[:-offset]
        if not same.any():
            return
        yield _wanted(members[:-offset][same], members[offset:][same], asked)
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    large = counts[place] > WINDOW  # of smaller ones all rows are compared by now
    keys, members = keys[large], members[large]
    splits = index.splits[members]
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]) | (splits[1:] != splits[:-1])])
    sizes = np.diff(np.r_[starts, len(keys)])
    before, after = np.repeat(starts, sizes) - 1, np.repeat(starts + sizes, sizes)
    for offset in range(WINDOW):
        for other in (before - offset, after + offset):
            place = np.clip(other, 0, len(keys) - 1)
            same = (place == other) & (keys[place] == keys)
            yield _wanted(members[same], members[place[same]], asked)


def _wanted(
    first: np.ndarray, second: np.ndarray, asked: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return those pairs that are asked for, the smaller position first."""
    wanted = asked(first, second)
    first, second = first[wanted], second[wanted]
    return np.minimum(first, second), np.maximum(first, second)


def _closest(found: list[np.ndarray], distances: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Join the pairs, each once, the closest first, at most MAX_PAIRS."""
    pairs, first = np.unique(np.concatenate(found), axis=0, return_index=True)
    apart = np.concatenate(distances)[first]
    order = np.argsort(apart, kind="stable")[:MAX_PAIRS]
    return [pairs[order]], [apart[order]]


def _pair(index: Columns, first: Any, second: Any) -> Pair:
    first, second = sorted((int(first), int(second)), key=lambda position: int(index.rows[position]))
    names = (SPLIT_NAMES[index.splits[first]], SPLIT_NAMES[index.splits[second]])
    return Pair(int(index.rows[first]), int(index.rows[second]), names)
