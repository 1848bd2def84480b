"""All methods on some answers, and what they are worth on test rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graftline.dataset import Schema
from graftline.explain.faithfulness import Measured, measure
from graftline.explain.methods import METHODS, completeness_gap
from graftline.explain.names import INTEGRATED_GRADIENTS, title
from graftline.explain.rows import Neighbours, Rows, nearest, read_rows, training_rows
from graftline.explain.weights import shuffled
from graftline.problems.explained import Explained, Floats
from graftline.problems.model import load_model, read_facts, read_problem
from graftline.score import Estimate, RowStatistics, Score, estimate, ratio

NEAREST = 3
"""Training rows that are shown of each answer."""
SAME_CLASS = Score("nearest_same_class", "nearest training row of the class that is answered", ratio)


@dataclass(frozen=True)
class Explanations:
    """What the methods find of some answers."""

    explained: Explained
    found: dict[str, Floats]
    """(n, most) numbers of each method that applies."""
    missing: dict[str, str]
    """Why a method does not."""
    neighbours: Neighbours | None = None

    @classmethod
    def of(cls, explained: Explained, neighbours: Neighbours | None = None) -> Explanations:
        """Return what all methods find."""
        tried = {name: method(explained) for name, method in METHODS.items()}
        missing = {name: found for name, found in tried.items() if isinstance(found, str)}
        return cls(explained, {n: f for n, f in tried.items() if not isinstance(f, str)}, missing, neighbours)

    def probabilities(self) -> Floats:
        """Return (n,): how probable each answer is."""
        places = np.arange(len(self.explained))
        return np.exp(self.explained.log_probabilities(places, self.explained.there))

    def gap(self) -> Floats:
        """Return (n,): by how many nats the sums of integrated gradients are off."""
        return completeness_gap(self.explained, self.found[INTEGRATED_GRADIENTS])

    def missing_told(self) -> list[str]:
        """Return a line for each method that does not apply."""
        return [f"{title(name)} does not apply: {why}" for name, why in self.missing.items()]


def explain(
    folder: Path, values: list[Any], schema: Schema, dataset: Path | None, seed: int, *, count: int = NEAREST
) -> Explanations:
    """Return what all methods find of a model's answers to questions' values.

    Args:
        folder: of the model or release.
        values: of the questions.
        schema: of what the model is asked.
        dataset: for the nearest training rows; None leaves them out.
        seed: of the sample of training rows.
        count: nearest rows of each.

    Raises:
        InputError: answers of this kind have no explanation.
    """
    problem, model = read_problem(folder), load_model(folder)
    explained = problem.explained(folder, model, values, schema)
    near = None
    if dataset is not None:
        near = nearest(explained, *training_rows(problem, folder, model, dataset, seed), count)
    return Explanations.of(explained, near)


@dataclass(frozen=True)
class Faithfulness:
    """Test rows of a dataset, explained, and what the explanations are worth."""

    rows: Rows
    explanations: Explanations
    measured: list[Measured]
    """A random order first."""
    gap: float
    """The largest of the rows', in nats."""
    same_class: Estimate | None = None
    """How often the nearest training row has the class that is answered; None where rows are of no one class."""
    same_class_at_random: float | None = None
    """The same by the embedding of the model with random weights."""

    def as_dict(self) -> dict[str, Any]:
        """Return what explain.json holds."""
        return {
            "rows": self.rows.numbers.tolist(),
            "part": self.explanations.explained.part,
            "hidden": self.explanations.explained.hidden,
            "methods": [
                {
                    "method": one.method,
                    **{name: asdict(value) for name, value in one.values.items()},
                    "over_random": one.over_random and asdict(one.over_random),
                    "over_weights": one.over_weights and asdict(one.over_weights),
                    "verdict": one.verdict,
                }
                for one in self.measured
            ],
            "missing": self.explanations.missing,
            "completeness_gap": self.gap,
            SAME_CLASS.name: self.same_class and asdict(self.same_class),
            f"{SAME_CLASS.name}_random_weights": self.same_class_at_random,
        }

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics, each name beginning with `explain_`."""
        found: dict[str, float] = {"explain_rows": len(self.rows.numbers), "explain_integrated_gradients_gap": self.gap}
        for measured in self.measured:
            found |= measured.metrics()
        if self.same_class is not None and self.same_class_at_random is not None:
            name = f"explain_{SAME_CLASS.name}"
            found |= self.same_class.metrics(name) | {f"{name}_random_weights": self.same_class_at_random}
        return found


def measure_faithfulness(folder: Path, dataset: Path, count: int, *, resamples: int, seed: int) -> Faithfulness:
    """Return explanations of `count` test rows by the model in `folder`, and how far they can be believed.

    Raises:
        InputError: answers of this kind have no explanation, or the dataset is not whole.
    """
    rows = read_rows(dataset, "test", count, seed)
    schema = Schema.from_dict(read_facts(folder))
    made = explain(folder, rows.values, schema, dataset, seed)
    assert made.neighbours is not None
    blank = made.explained.by(shuffled(load_model(folder), seed))
    at_random = Explanations.of(blank)
    measured = measure(made.explained, made.found, at_random.found, rows.numbers, resamples=resamples, seed=seed)
    gap = float(made.gap().max())
    agree = made.neighbours.agree(made.explained.answers)
    if agree is None:
        return Faithfulness(rows, made, measured, gap)
    known = made.neighbours.explained
    by_chance = nearest(blank, made.neighbours.rows, known.by(blank.model), 1).agree(made.explained.answers)
    assert by_chance is not None
    counted = RowStatistics(SAME_CLASS, rows.numbers, np.stack([agree, np.ones(len(agree))], axis=1))
    value = estimate(counted, resamples=resamples, seed=seed)
    return Faithfulness(rows, made, measured, gap, value, float(by_chance.mean()))
