"""Telling numbers, from images or from text: their scale, their intervals, what is measured and what is shown."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.jsonfile import write_json
from graftline.plots import ACCENT, MUTED, cut, figure, plain, save
from graftline.problems.answers import Answers
from graftline.problems.conformal import limits
from graftline.problems.groups import Groups
from graftline.problems.problem import Examples, Model, Problem
from graftline.problems.reading import with_cut
from graftline.problems.regression_parameters import COVERAGE, MAE, R2, WIDTH, RegressionParams, squares_rows
from graftline.problems.scores import mean_rows
from graftline.problems.sections import Section
from graftline.problems.weighing import weighed
from graftline.score import Integers, RowStatistics, Score

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of the labels that a model learned from: it learns and answers in deviations from the mean."""

    mean: Floats
    """(numbers,), as `deviation`."""
    deviation: Floats

    @classmethod
    def of(cls, labels: Floats) -> Scale:
        """Return the scale of (n, numbers) labels; of equal ones the deviation counts as 1."""
        deviation = labels.std(axis=0)
        return cls(labels.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def to(self, labels: Floats) -> Floats:
        return (labels - self.mean) / self.deviation

    def back(self, outputs: Floats) -> Floats:
        return outputs * self.deviation + self.mean


def half_widths(errors: Floats, params: RegressionParams, groups: Integers | None = None) -> Floats | None:
    """Return (numbers,): how far an interval reaches to each side, by (n, numbers) errors on held-out rows.

    Conformal: the ceil((n + 1) * coverage)-th smallest size of the errors (split conformal prediction: J. Lei et al.,
    JASA 113 (2018), algorithm 2; V. Vovk et al., "Algorithmic Learning in a Random World", 2005). A row that is
    exchangeable with them then lies inside with at least that probability; with the (n,) `groups` of the rows, a row of
    a new group. Val rows are not quite that where early stopping chose the weights by them too: the share inside may
    then lie below. Each number has its own interval; all of a row's at once are inside less often. None where n is so
    small that only an endless interval would do.
    """
    if params.intervals == "gaussian":
        reach = NormalDist().inv_cdf((1 + params.coverage) / 2)
        normal: Floats = reach * np.sqrt((errors**2).mean(axis=0))
        return normal
    asked = np.array([params.coverage])
    reaches = -np.concatenate([limits(-sizes, asked, groups=groups) for sizes in np.abs(errors).T])
    return reaches if np.isfinite(reaches).all() else None


def table(labels: torch.Tensor | None) -> Floats:
    """Return labels, (n,) or (n, numbers), as (n, numbers)."""
    assert labels is not None
    found: Floats = labels.numpy().reshape(len(labels), -1)
    return found


@dataclass(frozen=True, eq=False)
class NumberAnswers(Answers):
    """Numbers a row, and the intervals around them."""

    labels: Floats
    """(n, numbers), as `predicted`, in the labels' units."""
    predicted: Floats
    half: Floats | None
    """(numbers,): how far the intervals reach to each side; None without intervals."""
    scale: Scale
    promises: ClassVar[tuple[Score, ...]] = (COVERAGE,)

    def statistics(self, score: Score) -> RowStatistics:
        errors = np.abs(self.labels - self.predicted)
        if score == MAE:
            return mean_rows(score, self.rows, errors)
        if score == R2:  # about 0: the unit does not matter
            return squares_rows(score, self.rows, self.scale.to(self.labels), self.scale.to(self.predicted))
        if score not in (COVERAGE, WIDTH):
            return squares_rows(score, self.rows, self.labels, self.predicted)
        if self.half is None:
            return RowStatistics.of_units(score, self.rows, [np.zeros(len(self))] * 2)
        widths = np.broadcast_to(2 * self.half, errors.shape)
        return mean_rows(score, self.rows, (2 * errors <= widths) * 1.0 if score == COVERAGE else widths)

    @property
    def low(self) -> Floats | None:
        return None if self.half is None else self.predicted - self.half

    @property
    def high(self) -> Floats | None:
        return None if self.half is None else self.predicted + self.half

    def columns(self, schema: Schema) -> dict[str, Any]:
        """Return `label`, `predicted`, `low` and `high`: a number each, or a list where a row has several."""
        import pyarrow as pa

        numbers = self.labels.shape[1]

        def column(values: Floats | None) -> pa.Array:
            of = pa.list_(pa.float64(), numbers) if schema.classes else pa.float64()
            if values is None:
                return pa.nulls(len(self), of)
            flat = pa.array(values.ravel())
            return pa.FixedSizeListArray.from_arrays(flat, numbers) if schema.classes else flat

        parts = {"label": self.labels, "predicted": self.predicted, "low": self.low, "high": self.high}
        return {name: column(values) for name, values in parts.items()}

    def worst(self, count: int) -> NDArray[np.int64]:
        """Return the positions of the answers that are furthest off, in deviations of the labels; at most `count`."""
        errors = (np.abs(self.labels - self.predicted) / self.scale.deviation).max(axis=1)
        return np.argsort(-errors, kind="stable")[:count]

    def write(self, schema: Schema, out: Path) -> Section:
        """Write numbers.json, how good each of the numbers is, and the picture of all; return its section."""
        names = names_of(schema)
        found = []
        for place, name in enumerate(names):
            one = self._only(place)
            values = {score.name: one.statistics(score).value for score in self.scores}
            known = {score: value for score, value in values.items() if math.isfinite(value)}
            found.append({"name": name, **known})
        write_json(found, out / "numbers.json")
        self._plot(names, out / "predicted.png")
        note = "Each test row by what it was told to be and what it is; on the line both are equal."
        within = self.statistics(COVERAGE).value
        if math.isfinite(within):
            note += f" The band is the interval: {within:.1%} of the numbers lie inside."
        return Section(
            "Predicted and actual", note, "predicted.png", "Predicted against actual numbers of the test rows"
        )

    def _only(self, place: int) -> NumberAnswers:
        """Return the answers about one of the numbers."""
        one = slice(place, place + 1)
        scale = Scale(self.scale.mean[one], self.scale.deviation[one])
        half = None if self.half is None else self.half[one]
        return NumberAnswers(
            self.scores, self.rows, self.loss, self.labels[:, one], self.predicted[:, one], half, scale
        )

    def _plot(self, names: Sequence[str], path: Path) -> None:
        shown = names[:_SHOWN_NUMBERS]
        plot = figure(4.4 * len(shown), 4.2)
        for place, (axes, name) in enumerate(zip(plot.subplots(1, len(shown), squeeze=False)[0], shown, strict=True)):
            actual, told = self.labels[:, place], self.predicted[:, place]
            ends = np.array([min(actual.min(), told.min()), max(actual.max(), told.max())])
            if self.half is not None:
                reach = self.half[place]
                axes.fill_between(ends, ends - reach, ends + reach, color=ACCENT, alpha=0.12, linewidth=0)
            axes.plot(ends, ends, color=MUTED, linestyle="--", linewidth=1)
            axes.plot(told, actual, ".", color=ACCENT, markersize=4, alpha=0.6)
            axes.set(xlabel="predicted", ylabel="actual", title=plain(cut(name, 40)))
        save(plot, path)

    def told(self, place: int, names: Sequence[str]) -> tuple[str, str]:
        """Return the actual and the predicted numbers of an answer, for people."""
        half = self.half if self.half is not None else [None] * len(names)
        predicted = [_within(value, reach) for value, reach in zip(self.predicted[place], half, strict=True)]
        return _listed(names, [f"{value:.4g}" for value in self.labels[place]]), _listed(names, predicted)


_SHOWN_NUMBERS = 4  # pictures side by side


def names_of(schema: Schema) -> tuple[str, ...]:
    """Return the names of the numbers; one number has the name of its column."""
    return tuple(map(str, schema.classes)) or (str(schema.label),)


def width_of(classes: int) -> int:
    """Return how many numbers a row has, where the schema names so many."""
    return max(1, classes)


def _within(value: float, half: float | None) -> str:
    return f"{value:.4g}" if half is None else f"{value:.4g} ± {half:.2g}"


def _listed(names: Sequence[str], values: Sequence[str]) -> str:
    if len(names) == 1:
        return values[0]
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


E = TypeVar("E", bound=Examples)


class Regressor(Model[E], Generic[E]):
    """A model that tells numbers: it learns their scale before the first step, and their intervals after the last."""

    scale: Scale
    reach: Floats | None = None
    """(numbers,): how far the intervals reach to each side; None without."""
    _params: Any
    """A `RegressionParams`."""

    @abstractmethod
    def scaled(self, examples: E, *, fast: bool = False) -> torch.Tensor:
        """Return (n, numbers) float32 outputs on the CPU, in deviations from the mean."""

    def begin(self, train: E) -> None:
        self.scale = Scale.of(table(_labels(train)))

    def go_on_from(self, other: Model[E]) -> None:
        super().go_on_from(other)
        assert isinstance(other, Regressor)
        self.scale = other.scale

    def criterion(self, outputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Return the mean squared error of (n, numbers) outputs, a row's times its weight if there are weights.

        Labels are on the CPU or where the outputs are.
        """
        mean, deviation = (
            torch.from_numpy(part).to(labels.device, labels.dtype) for part in (self.scale.mean, self.scale.deviation)
        )
        wanted = (labels.reshape(outputs.shape) - mean) / deviation
        if weights is None:
            return torch.nn.functional.mse_loss(outputs, wanted.to(outputs))
        return weighed((outputs - wanted.to(outputs)).square().mean(dim=1), weights)

    def calibrate(self, val: E, groups: Groups | None = None) -> None:
        together = None if groups is None else groups.of(val.rows.numpy())
        self.reach = half_widths(table(_labels(val)) - self.numbers(val), self._params, together)

    def numbers(self, examples: E, *, fast: bool = False) -> Floats:
        """Return (n, numbers), in the labels' units."""
        return self.scale.back(self.scaled(examples, fast=fast).numpy().astype(np.float64))

    def answer(self, examples: E, *, fast: bool = False) -> NumberAnswers:
        labels, predicted = table(_labels(examples)), self.numbers(examples, fast=fast)
        loss = float((((labels - predicted) / self.scale.deviation) ** 2).mean())
        rows = examples.rows.numpy()
        return NumberAnswers(self._params.scores, rows, loss, labels, predicted, self.reach, self.scale)

    def save(self, folder: Path) -> dict[str, Any]:
        """Return besides the training labels' `mean` and `deviation`, and `half_widths` or null."""
        return {
            **super().save(folder),  # type: ignore[safe-super]  # of the base behind
            "mean": self.scale.mean.tolist(), "deviation": self.scale.deviation.tolist(),
            "half_widths": None if self.reach is None else self.reach.tolist(),
        }  # fmt: skip

    def restore(self, facts: dict[str, Any]) -> Self:
        """Take what `save` returned. Raises KeyError, TypeError or ValueError for what it did not."""
        mean, deviation = (np.array(facts[name], np.float64) for name in ("mean", "deviation"))
        half = facts["half_widths"]
        self.scale, self.reach = Scale(mean, deviation), None if half is None else np.array(half, np.float64)
        if {part.shape for part in (mean, deviation, *([] if self.reach is None else [self.reach]))} != {
            (width_of(len(facts["classes"])),)
        }:
            raise ValueError("mean, deviation and half_widths of other lengths than there are numbers")
        return self

    def tell(self, examples: E, schema: Schema) -> list[dict[str, Any]]:
        """Return `number`, `low` and `high` for each example; where a row has several numbers, these by name."""
        names, half = names_of(schema), self.reach
        found = []
        for row in self.numbers(examples):
            each = [
                {"number": float(value), **_ends(value, None if half is None else half[place])}
                for place, value in enumerate(row)
            ]
            found.append({"numbers": dict(zip(names, each, strict=True))} if schema.classes else each[0])
        return found


def _labels(examples: Any) -> torch.Tensor | None:
    labels: torch.Tensor | None = examples.labels
    return labels


def _ends(value: float, half: float | None) -> dict[str, float]:
    return {} if half is None else {"low": float(value - half), "high": float(value + half)}


class RegressionProblem(Problem[E]):
    """Among a problem's bases, before one that builds and loads models: these are `Regressor`s."""

    header: ClassVar[tuple[str, ...]] = ("number", "interval")
    loss_unit: ClassVar[str] = "squared error, in variances"

    asked: Callable[[Path, list[Any]], E]
    """Returns the questions' values, as the model in the folder takes them, as examples without labels."""

    def read(self, dataset: Path, split: str, folder: Path) -> E:
        found = super().read(dataset, split, folder)  # type: ignore[safe-super]  # of the base behind
        _check_numbers(_labels(found), dataset / f"{split}.parquet")
        return found

    def ask(self, folder: Path, model: Model[E], values: list[Any], schema: Schema) -> list[dict[str, Any]]:
        assert isinstance(model, Regressor)
        examples = self.asked(folder, values)
        return with_cut(model.tell(examples, schema), examples)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        """Return the numbers, and from where to where each may lie."""
        names = tuple(answer.get("numbers", ("",)))
        each = list(answer["numbers"].values()) if "numbers" in answer else [answer]
        ends = [f"{one['low']:.4g} to {one['high']:.4g}" if "low" in one else "unknown" for one in each]
        return _listed(names, [f"{one['number']:.4g}" for one in each]), _listed(names, ends)

    def load(self, folder: Path, facts: dict[str, Any]) -> Any:
        model: Any = super().load(folder, facts)  # type: ignore[safe-super]  # of the base behind
        return model.restore(facts)


def _check_numbers(labels: torch.Tensor | None, path: Path) -> None:
    """Raise InputError if a number is the same in all rows: R2 is a share of its variance."""
    if labels is None:
        return
    for place, column in enumerate(table(labels).T):
        if len(column) and (column == column[0]).all():
            raise InputError(
                path, f"number {place} of the label is {column[0]:g} in all {len(column)} rows",
                expected="at least two different ones", fix="give more rows, or another label",
            )  # fmt: skip
