"""How near two rows of texts are: MinHash, and the Jaccard index of their runs of 5 characters.

Broder, "On the resemblance and containment of documents", SEQUENCES 1997: the smallest of the hashed runs
under 128 permutations, in 16 bands of 8. Two texts that share a fraction j of their runs agree in a band with
probability j^8. Case and the amount of white space do not count.

Of rows with several texts, each text of the one must be near a text of the other, in any order: a document of which two
questions are asked makes two rows, but a pair that stands the other way round is the same pair. Candidates are found by
the MinHash of a row's texts together, whose runs are about as near.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftline.values import leakage
from graftline.values.chosen import values_of
from graftline.values.strings import composed

RUN = 5
"""Characters in a run."""
BANDS, ROWS = 16, 8
CHUNK = 1 << 18
"""Characters that are hashed at once: 1 MiB a permutation stays in the cache."""
PAIRS_AT_ONCE = 20_000


@dataclass(frozen=True)
class TextMeasure:
    """A `leakage.Measure`, of columns of text or of words."""

    columns: tuple[str, ...]
    minimum: float
    name: str = "jaccard"
    max_distance: int = BANDS - 1
    """Of 16 bands."""

    def signatures(self, features: Sequence[pa.Array]) -> np.ndarray:
        import pyarrow.compute as pc

        texts = [normalise(values) for values in features]
        return signatures(texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "\n"))

    def distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return how many bands differ."""
        differing: np.ndarray = (first != second).sum(axis=1)
        return differing

    def pairs_at_once(self, files: Sequence[Path]) -> int:
        return PAIRS_AT_ONCE

    def likeness(self, pairs: np.ndarray, index: leakage.Columns, files: Sequence[Path]) -> np.ndarray:
        """Return the Jaccard index of each pair, (m,) float64; the least of a row's texts, in their nearest order."""
        positions = np.unique(pairs)
        texts = (_read_texts(files, column, index.rows[positions]) for column in self.columns)
        runs = [tuple(map(_runs, row)) for row in zip(*texts, strict=True)]
        place = np.searchsorted(positions, pairs)
        return np.array([_likeness(runs[a], runs[b]) for a, b in place], np.float64)


def normalise(values: pa.Array) -> pa.Array:
    """Return text (or lists of words, joined) in composed form (NFC) and lower case with single spaces."""
    if pa.types.is_list(values.type):
        values = pc.binary_join(values, " ")
    return composed(pc.utf8_lower(values))


def signatures(texts: pa.Array) -> np.ndarray:
    """Return the MinHash of each normalised text, (n, 16) uint32: a hash of each band of 8 minima.

    Integer arithmetic alone, so that it does not depend on the machine.
    """
    made, waiting, size = [np.empty((0, BANDS), np.uint32)], [], 0
    for text in texts.to_pylist():
        waiting.append(text)
        size += len(text)
        if size >= CHUNK:
            made.append(_signatures(waiting))
            waiting, size = [], 0
    if waiting:
        made.append(_signatures(waiting))
    return np.concatenate(made)


def _signatures(texts: list[str]) -> np.ndarray:
    hashed, starts = _hashed_runs(texts)
    # Odd factors make each of these a permutation of the 32-bit numbers; the constants are fixed for ever.
    stream = hashlib.shake_256(b"graftline minhash 1").digest(2 * BANDS * ROWS * 4)
    constants = np.frombuffer(stream, "<u4").astype(np.uint32).reshape(2, BANDS * ROWS)
    keys = np.zeros((len(texts), BANDS), np.uint32)
    for number, (factor, offset) in enumerate(zip(constants[0] | 1, constants[1], strict=True)):
        smallest = np.minimum.reduceat(hashed * factor + offset, starts)
        band = keys[:, number // ROWS]
        keys[:, number // ROWS] = (band ^ smallest) * np.uint32(0x9E3779B1) + np.uint32(number)
    return keys


def _hashed_runs(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return 32-bit hashes of all runs, text by text, and where each text's runs start.

    A text shorter than a run is filled up with zeros.
    """
    padded = [text if len(text) >= RUN else text.ljust(RUN, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32)
    lengths = np.array([len(text) for text in padded])
    hashed = np.zeros(len(codes) - RUN + 1, np.uint32)
    for place in range(RUN):
        hashed = (hashed ^ codes[place : place + len(hashed)]) * np.uint32(0x01000193)  # FNV-1a, by code points
    hashed ^= hashed >> np.uint32(15)
    hashed *= np.uint32(0x85EBCA6B)
    hashed ^= hashed >> np.uint32(13)
    ends = np.cumsum(lengths)
    inside = np.ones(len(codes), bool)
    for place in range(1, RUN):
        inside[ends - place] = False  # a run that starts here would go on into the next text
    counts = lengths - RUN + 1
    return hashed[inside[: len(hashed)]], np.cumsum(counts) - counts


def _read_texts(files: Sequence[Path], column: str, rows: np.ndarray) -> list[str]:
    """Return the normalised texts of `rows` (sorted)."""
    texts = [""] * len(rows)
    for places, values in values_of(files, column, rows):
        for place, text in zip(places, normalise(values).to_pylist(), strict=True):
            texts[place] = text
    return texts


def _runs(text: str) -> frozenset[str]:
    return frozenset(text[start : start + RUN] for start in range(max(1, len(text) - RUN + 1)))


def _likeness(first: Sequence[frozenset[str]], second: Sequence[frozenset[str]]) -> float:
    return max(min(map(_jaccard, first, order)) for order in permutations(second))


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)
