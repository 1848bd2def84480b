"""Rows of a dataset as questions to a model, and the training rows that it sees as the most alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from graftline.dataset import Schema, read_schema, read_split
from graftline.learning.randomness import generator
from graftline.problems.explained import Explained, Places
from graftline.problems.problem import Model, Problem

MOST = 5_000
"""Training rows among which the nearest are looked for, at most; a sample of more."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a split."""

    numbers: Places
    """(n,) ascending row numbers in the raw data."""
    values: list[Any]
    """What a model is asked of each: as `Problem.ask` takes it."""
    labels: list[str] | None
    """The class of each by its name; None where rows are of no one class."""
    of: int
    """Rows of the split."""


def read_rows(dataset: Path, split: str, count: int, seed: int) -> Rows:
    """Return at most `count` rows of a split, a sample of more drawn by `seed`. Raises InputError."""
    schema = read_schema(dataset)
    found = read_split(dataset, split, [type(feature) for feature in schema.features])
    order = torch.randperm(len(found.rows), generator=generator(seed, 0, f"explained rows of {split}"))
    chosen = np.sort(order[:count].numpy())
    columns = [[column[place : place + 1][0] for place in chosen.tolist()] for column in found.features]
    values = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
    labels = None
    if schema.classes and isinstance(found.label, np.ndarray) and found.label.ndim == 1:
        labels = [str(schema.classes[number]) for number in found.label[chosen].tolist()]
    return Rows(found.rows[chosen].astype(np.int64), values, labels, len(found.rows))


@dataclass(frozen=True)
class Neighbours:
    """The training rows that are nearest to some examples, by the cosine of what the trunk makes of them."""

    rows: Rows
    explained: Explained
    """The training rows, to show them."""
    places: Places
    """(n, k) of the training rows, the nearest first."""
    cosines: np.ndarray
    """(n, k)."""

    def of(self, place: int) -> list[dict[str, Any]]:
        """Return `row`, `label` (None without) and `cosine` of an example's neighbours."""
        labels = self.rows.labels
        return [
            {"row": int(self.rows.numbers[near]), "label": None if labels is None else labels[near], "cosine": cosine}
            for near, cosine in zip(self.places[place].tolist(), self.cosines[place].tolist(), strict=True)
        ]

    def shown(self, place: int) -> list[Markup]:
        """Return the neighbours as HTML."""
        return [self.explained.shown(near) for near in self.places[place].tolist()]

    def agree(self, answers: Sequence[str]) -> np.ndarray | None:
        """Return (n,): whether the nearest has the class that was answered; None where rows are of no one class.

        K. Hanawa et al., "Evaluation of similarity-based explanations", ICLR 2021: the identical class test.
        """
        labels = self.rows.labels
        if labels is None:
            return None
        return np.array([labels[near] == answer for near, answer in zip(self.places[:, 0], answers, strict=True)])


def nearest(explained: Explained, rows: Rows, known: Explained, count: int) -> Neighbours:
    """Return the `count` nearest of the training rows, which are explained as `known` by the same model."""
    mine, theirs = (_directions(one.vectors()) for one in (explained, known))
    cosines = mine @ theirs.T
    places = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return Neighbours(rows, known, places, np.take_along_axis(cosines, places, axis=1))


def _directions(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def training_rows(
    problem: Problem[Any], folder: Path, model: Model[Any], dataset: Path, seed: int
) -> tuple[Rows, Explained]:
    """Return training rows of a dataset, and them as the model sees them."""
    rows = read_rows(dataset, "train", MOST, seed)
    schema: Schema = read_schema(dataset)
    return rows, problem.explained(folder, model, rows.values, schema)
