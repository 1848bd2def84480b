"""Histories as numbers of items: what of each is given, and what is held out to be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from graftline.dataset import UNLABELLED, read_schema
from graftline.errors import InputError
from graftline.problems.documents import Documents, documents_of
from graftline.trunks.items.vocabulary import Vocabulary
from graftline.values.items import ItemsColumn
from graftline.values.splits import read_histories

UNKNOWN = -1
"""The number of a held-out item that the vocabulary lacks: no model can name it."""


@dataclass(frozen=True)
class Histories(Documents):
    """Histories end to end."""

    asked: torch.Tensor | None = None
    """(items,) bool: which are held out; none in the examples that are learned from."""

    @classmethod
    def token_arrays(cls) -> tuple[str, ...]:
        return ("ids", "asked")

    @property
    def held_out(self) -> torch.Tensor:
        """(items,) bool."""
        assert self.asked is not None
        return self.asked

    def whole(self) -> list[torch.Tensor]:
        """Return each history, (its items,) int64 numbers."""
        return list(self.ids.long().split(self.lengths.tolist()))

    def given(self) -> list[torch.Tensor]:
        """Return what is given of each."""
        kept = (~self.held_out).split(self.lengths.tolist())
        return [items[mask] for items, mask in zip(self.whole(), kept, strict=True)]

    def targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return whose each held-out item is, (m,), and its number, (m,), UNKNOWN where it has none."""
        of = torch.repeat_interleave(torch.arange(len(self)), self.lengths)
        return of[self.held_out], self.ids.long()[self.held_out]


def read(dataset: Path, split: str, vocabulary: Vocabulary) -> Histories:
    """Return a split's histories; those to learn from are whole and have at least two known items.

    Raises:
        InputError: there are none.
    """
    column, found = read_schema(dataset).only(ItemsColumn), read_histories(dataset, split)
    numbers, asked, rows = [], [], []
    for history, row in zip(found.items, found.rows.tolist(), strict=True):
        given, out = (history, []) if split in ("train", UNLABELLED) else column.divide(history)
        known = vocabulary.known(given)
        if not out and len(known) < 2:
            continue
        numbers.append([*known, *(vocabulary.numbers.get(item, UNKNOWN) for item in out)])
        asked += [False] * len(known) + [True] * len(out)
        rows.append(row)
    if not rows:
        raise InputError(
            dataset / f"{split}.parquet", "no history of two items that the trunk knows", expected="some",
            fix="run pretrain again, or give more data",
        )  # fmt: skip
    arrays = documents_of(numbers, np.array(rows, np.int64), None)
    return Histories.from_arrays({**arrays, "asked": np.array(asked, bool)})


def of_questions(histories: list[list[int]]) -> Histories:
    """Return histories of which all is given."""
    arrays = documents_of(histories, np.arange(len(histories)), None)
    return Histories.from_arrays({**arrays, "asked": np.zeros(len(arrays["ids"]), bool)})
