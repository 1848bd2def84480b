"""Histories with their ratings, as numbers: what of each is given, and what is held out to be told."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from graftline.dataset import UNLABELLED, read_schema, read_split
from graftline.errors import InputError
from graftline.problems.documents import documents_of
from graftline.problems.recommendation.examples import UNKNOWN, Histories
from graftline.problems.recommendation.examples import read as read_histories
from graftline.trunks.items.vocabulary import Vocabulary
from graftline.values.items import ItemsColumn


@dataclass(frozen=True)
class Rated(Histories):
    """Histories end to end, with a rating an item; those of the pool have none."""

    ratings: torch.Tensor | None = None
    """(items,) float64, in the label's unit."""

    @classmethod
    def token_arrays(cls) -> tuple[str, ...]:
        return ("ids", "asked", "ratings")

    @property
    def rated(self) -> torch.Tensor:
        """(items,) float64."""
        assert self.ratings is not None
        return self.ratings

    @property
    def of(self) -> torch.Tensor:
        """(items,) whose each is, a place in `rows`."""
        return torch.repeat_interleave(torch.arange(len(self)), self.lengths)

    def units(self) -> dict[str, np.ndarray]:
        return {"row": self.rows[self.of[self.held_out]].numpy()}

    def inputs(self) -> list[bytes]:
        """As the base says: items, which sets have in one order (`Vocabulary.known`), and the ratings of given ones."""
        seen = self.ids.numpy(), self.held_out.numpy(), self.rated.masked_fill(self.held_out, 0).numpy()
        spans = pairwise(self.offsets.tolist())
        return [sha256(b"".join(part[start:end].tobytes() for part in seen)).digest() for start, end in spans]

    def tables(self) -> Tables:
        """Return all of it as tables, a line a user."""
        width = max(1, int(self.lengths.max()))
        seen = torch.arange(width) < self.lengths[:, None]
        ids = torch.full(seen.shape, UNKNOWN, dtype=torch.int64)
        ratings, asked = torch.zeros(seen.shape, dtype=torch.float64), torch.zeros(seen.shape, dtype=torch.bool)
        ids[seen], ratings[seen], asked[seen] = self.ids.long(), self.rated, self.held_out
        return Tables(ids, ratings, seen & ~asked, asked)


@dataclass(frozen=True)
class Tables:
    """Users as lines of tables of equal shape, (n, longest)."""

    ids: torch.Tensor
    """int64, UNKNOWN of an unknown item and where there is none."""
    ratings: torch.Tensor
    """float64, 0 where there is none."""
    given: torch.Tensor
    """bool."""
    asked: torch.Tensor
    """bool."""


def read(dataset: Path, split: str, vocabulary: Vocabulary) -> Rated:
    """Return a split's histories; those to learn from are whole and have at least two known items.

    Of given items only the known ones count, as in `recommendation`; held-out ones are all asked for.

    Raises:
        InputError: there are none, or ratings and items do not match.
    """
    if split == UNLABELLED:
        return Rated.from_arrays(read_histories(dataset, split, vocabulary).arrays())
    found, column = read_split(dataset, split, [ItemsColumn]), read_schema(dataset).only(ItemsColumn)
    numbers, asked, ratings, rows = [], [], [], []
    for history, own, row in zip(found.features[0], found.label, found.rows.tolist(), strict=True):
        if len(history) != len(own):
            raise InputError(
                dataset / f"{split}.parquet", f"row {row} has {len(history)} items, {len(own)} ratings",
                fix="run validate again",
            )  # fmt: skip
        of_item = dict(zip(history, own.tolist(), strict=True))
        shown = history if split == "test" else [item for item in history if not column.is_cold(item)]
        if len(shown) < 2:
            continue
        given, out = (shown, []) if split == "train" else column.divide(shown)
        known = [vocabulary.items[number] for number in vocabulary.known(given)]
        if not out and len(known) < 2:
            continue
        numbers.append([vocabulary.numbers.get(item, UNKNOWN) for item in (*known, *out)])
        ratings += [of_item[item] for item in (*known, *out)]
        asked += [False] * len(known) + [True] * len(out)
        rows.append(row)
    if not rows:
        raise InputError(
            dataset / f"{split}.parquet", "no rated history of two items that the trunk knows", expected="some",
            fix="run pretrain again, or give more data",
        )  # fmt: skip
    arrays = documents_of(numbers, np.array(rows, np.int64), None)
    return Rated.from_arrays({**arrays, "asked": np.array(asked, bool), "ratings": np.array(ratings, np.float64)})


def of_questions(given: list[list[int]], ratings: list[list[float]], asked: list[list[int]]) -> Rated:
    """Return users of whom some items are given with their ratings, and others asked for."""
    arrays = documents_of([one + other for one, other in zip(given, asked, strict=True)], np.arange(len(given)), None)
    numbers, flags = list[float](), list[bool]()
    for one, own, other in zip(given, ratings, asked, strict=True):
        numbers += [*own, *[0.0] * len(other)]
        flags += [False] * len(one) + [True] * len(other)
    return Rated.from_arrays({**arrays, "asked": np.array(flags, bool), "ratings": np.array(numbers, np.float64)})
