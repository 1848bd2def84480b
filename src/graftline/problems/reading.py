"""Examples as a model reads them: their weights, how much of them it does not see, and which it cannot tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from graftline.dataset import SCHEMA, UNLABELLED, read_schema
from graftline.errors import InputError
from graftline.problems.problem import Examples, Lost, Problem


def read_examples(problem: Problem[Any], dataset: Path, split: str, folder: Path) -> Any:
    """Return a split's examples as the trunk or model in `folder` takes them, with their rows' weights if any.

    Raises:
        InputError: as `Problem.read` does, or the rows have weights and the problem cannot heed them.
    """
    examples: Examples = problem.read(dataset, split, folder)
    column = read_schema(dataset).weight
    if column is None or split == UNLABELLED:
        return examples
    if not problem.weighs:
        raise InputError(
            dataset / SCHEMA, f"'{column}' has the role weight", expected="no weights: this head does not heed them",
            fix="give the column the role metadata, or choose another head",
        )  # fmt: skip
    table = pq.read_table(dataset / f"{split}.parquet", columns=["row", column]).sort_by("row")
    place = np.searchsorted(table["row"].to_numpy(), examples.rows.numpy())
    return examples.weighted(torch.from_numpy(table[column].to_numpy().astype(np.float32)[place]))


@dataclass(frozen=True)
class LostTokens:
    """What a model does not see of examples, for they are longer than it reads."""

    examples: int
    """How many are cut off."""
    of: int
    """How many there are."""
    share: float
    """Of the tokens of all."""
    most: int
    """Tokens that the model reads at once, marks included."""

    def told(self, plural: str) -> str:
        return (
            f"{self.examples:,} of {self.of:,} {plural} are longer than the {self.most:,} tokens that the model reads: "
            f"what is beyond is cut off, {self.share:.1%} of all tokens"
        )

    def metrics(self, split: str) -> dict[str, float]:
        return {f"{split}_cut": self.examples, f"{split}_tokens_cut": self.share}


def lost_tokens(examples: Examples) -> Lost | None:
    """Return what is cut off, or lost otherwise; None where nothing can be, as of images."""
    cut = _cut(examples)
    if cut is None:
        return examples.lost()
    documents: Any = examples
    if examples.wholes < len(examples):  # every window of a row lacks the same tokens
        cut = cut[np.unique(examples.rows.numpy(), return_index=True)[1]]
    tokens, gone = int(documents.seen.sum()), int(cut.sum())
    return LostTokens(int((cut > 0).sum()), len(cut), gone / max(1, tokens + gone), documents.longest)


def with_cut(answers: list[dict[str, Any]], examples: Examples) -> list[dict[str, Any]]:
    """Return what a model says of examples; of documents with `cut`: how many tokens of each it did not see."""
    cut = _cut(examples)
    return answers if cut is None else [{**one, "cut": int(by)} for one, by in zip(answers, cut, strict=True)]


def _cut(examples: Examples) -> torch.Tensor | None:
    return getattr(examples, "cut", None)


@dataclass(frozen=True)
class Alike:
    """Examples that a model cannot tell from others: it sees the same tokens."""

    examples: int
    conflicts: int | None
    """Those of them whose class none of the others has; None where examples are of no one class."""

    def metrics(self, name: str) -> dict[str, float]:
        conflicts = {} if self.conflicts is None else {f"{name}_conflicts": self.conflicts}
        return {name: self.examples, **conflicts}

    def told(self, plural: str, others: str) -> str:
        end = f"; {self.conflicts:,} of them are of another class" if self.conflicts else ""
        return f"{self.examples:,} {plural} are the same to the model as {others}{end}"


def alike(examples: Examples, others: Examples | None = None) -> Alike | None:
    """Return how many examples have the inputs of some of the others, or without others of an earlier one.

    None where inputs are compared already, as pixels are by validate.
    """
    mine, theirs = examples.inputs(), (others or examples).inputs()
    if mine is None or theirs is None:
        return None
    of_mine, of_theirs = _classes(examples, len(mine)), _classes(others or examples, len(theirs))
    known: dict[bytes, set[int]] = {}
    if others is not None:
        for key, label in zip(theirs, of_theirs, strict=True):
            known.setdefault(key, set()).add(label)
    found = conflicts = 0
    for key, label in zip(mine, of_mine, strict=True):
        if key in known:
            found += 1
            conflicts += label not in known[key]
        if others is None:
            known.setdefault(key, set()).add(label)
    return Alike(found, None if examples.classes is None else conflicts)


def _classes(examples: Examples, wholes: int) -> list[int]:
    """Return the class of each example; the same for all wholes where these have no one class."""
    classes = examples.classes
    return [0] * wholes if classes is None else classes.tolist()
