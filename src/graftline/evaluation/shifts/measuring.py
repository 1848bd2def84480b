"""The released model, and the lift's fits, on rows that are not as those they learned from."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.evaluation.lift import ARMS, SCRATCH, TRUNK, Experiment, Lift, measure_lift, paired, place_split
from graftline.evaluation.shifts.datasets import CLEAN, TEST, Source
from graftline.evaluation.shifts.parameters import DataShift, ShiftParams
from graftline.learning.progress import Progress
from graftline.problems.fit import select
from graftline.problems.reading import read_examples
from graftline.problems.scores import ECE
from graftline.problems.weighing import answer
from graftline.score import Estimate, Floats, RowStatistics, Score, estimate, t_interval
from graftline.values.corruption import Corruption

if TYPE_CHECKING:
    from graftline.problems.problem import Model

FAR = "far"
Values = dict[str, dict[str, dict[int, float]]]
"""Of the fits: by arm, set of rows and seed the primary score, or its error."""


def set_name(corruption: str, severity: int) -> str:
    return f"{corruption}.{severity}"


@dataclass(frozen=True, eq=False)
class Mean(RowStatistics):
    """The mean of one score over several answers on the same rows."""

    parts: Sequence[RowStatistics]

    @property
    def most_resamples(self) -> int | None:
        return 1000

    def _values(self, weights: Floats) -> Floats:
        mean: Floats = np.mean([part.values(weights) for part in self.parts], axis=0)
        return mean


def mean_of(parts: Sequence[RowStatistics]) -> Mean:
    """Return what the mean of answers on the same rows needs; each keeps its rows' weights."""
    return Mean(parts[0].score, parts[0].rows, parts[0].statistics, parts=parts)


@dataclass(frozen=True)
class Arms:
    """Fits from the trunk and from scratch on one or several sets of rows."""

    trunk: Estimate
    scratch: Estimate
    lift: Estimate
    """By how much the trunk's arm is better, in pairs of one seed."""


@dataclass
class Shifts:
    """What was measured."""

    params: ShiftParams
    source: Source
    score: Score
    ways: tuple[str, ...]
    rows: int = 0
    """How many test rows were spoiled."""
    released: dict[str, RowStatistics] = field(default_factory=dict)
    """The released model's primary score by set of rows."""
    calibration: dict[str, RowStatistics] = field(default_factory=dict)
    """Its calibration error likewise, where it has one."""
    values: Values = field(default_factory=dict)
    """Of the fits on the test rows, clean and spoiled."""
    errors: Values = field(default_factory=dict)
    """Their calibration errors likewise."""
    named: dict[str, Values] = field(default_factory=dict)
    """Of the fits of each real shift, on rows like those they learned from and on the others."""

    @property
    def severities(self) -> tuple[int, ...]:
        return tuple(sorted(self.params.severities))

    def sets(self, ways: Sequence[str] | None = None, severities: Sequence[int] | None = None) -> list[str]:
        return [
            set_name(way, severity)
            for way in (self.ways if ways is None else ways)
            for severity in (severities or self.severities)
        ]

    def arms(self, sets: Sequence[str], values: Values | None = None) -> Arms | None:
        """Return both arms' mean over sets of rows, with intervals over the seeds; None where it is not defined."""
        of = self.values if values is None else values
        if not of:
            return None
        per_seed = {
            arm: {seed: math.fsum(of[arm][one][seed] for one in sets) / len(sets) for seed in of[arm][sets[0]]}
            for arm in ARMS
        }
        pairs = [(value, per_seed[SCRATCH][seed]) for seed, value in per_seed[TRUNK].items()]
        found = Arms(*paired(self.score, pairs))
        return found if found.trunk.finite and found.scratch.finite else None

    def corruption_error(self) -> Estimate | None:
        """Return the mCE: the trunk's errors over those from scratch, way by way, below 1 where pretraining helps.

        Hendrycks and Dietterich (2019), section 4.1: errors are summed over the severities before they are divided, and
        ratios averaged over the ways. Their baseline is AlexNet, here the same model without pretraining. The interval
        is over the seeds. None where an error has no end or the baseline makes none.
        """
        ratios = []
        for seed in self.values.get(TRUNK, {}).get(CLEAN, {}):
            found = []
            for way in self.ways:
                sums = [math.fsum(self._error(arm, one, seed) for one in self.sets([way])) for arm in ARMS]
                found.append(sums[0] / sums[1] if sums[1] > 0 else math.nan)
            ratios.append(math.fsum(found) / len(found))
        error = t_interval(ratios) if len(ratios) > 1 else None
        return error if error is not None and error.finite else None

    def _error(self, arm: str, one: str, seed: int) -> float:
        value = self.values[arm][one][seed]
        return self.score.highest - value if self.score.higher else value - self.score.lowest

    def estimated(self, sets: Sequence[str], of: dict[str, RowStatistics]) -> Estimate | None:
        """Return the released model's mean over sets of rows, with its interval over rows."""
        found = estimate(mean_of([of[one] for one in sets]), resamples=1000, seed=0) if of else None
        return found if found is not None and found.finite else None

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics: `shifted_<primary score>`, `shift_lift`, `mce`, and of one way `shift_lift_fog`."""
        found: dict[str, float] = {}

        def add(name: str, value: Estimate | None) -> None:
            if value is not None:
                found.update(value.metrics(name))

        groups = {f"_{way}": self.sets([way]) for way in self.ways}
        for end, sets in ({"": self.sets(), **groups} if self.ways else {}).items():
            arms = self.arms(sets)
            add(f"shifted_{self.score.name}{end}", self.estimated(sets, self.released))
            add(f"shift_lift{end}", arms.lift if arms else None)
        if self.ways:
            add(f"shifted_{ECE.name}", self.estimated(self.sets(), self.calibration))
            add("mce", self.corruption_error())
        for name, values in self.named.items():
            arms = self.arms([FAR], values)
            add(f"shift_lift_{name}", arms.lift if arms else None)
        return found


def begin(params: ShiftParams | None, experiment: Experiment, seed: int) -> Shifts | None:
    """Return the measurement, still empty; None if none is asked for. Raises InputError for what does not apply."""
    if params is None:
        return None
    source = Source(experiment.dataset, experiment.problem, params.test_rows, seed)
    ways = source.ways(params)
    for name, shift in sorted(params.data.items()):
        _check(source, experiment, name, shift, params.labels)
    return Shifts(params, source, experiment.params.head.scores[0], ways)


def _check(source: Source, experiment: Experiment, name: str, shift: DataShift, labels: int | None) -> None:
    """Return if a real shift's rows are there, with labels enough. Raises InputError, as `take` would hours later."""
    folder = experiment.work / "checked" / name
    try:
        near, _ = source.write_chosen(folder, name, shift)
        if labels is not None:
            classes = len(read_schema(near).classes)
            select(read_examples(source.problem, near, "train", experiment.trunk), labels, classes, 0)
    except InputError as error:
        if error.where != "labels_per_class":
            raise
        raise InputError(f"evaluate.shifts.data.{name}", f"labels {error.found}", fix=error.fix) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def spoil(found: Shifts, experiment: Experiment, folder: Path, model: Model[Any]) -> Experiment:
    """Ask the released model about each spoiled set of test rows; return the experiment whose fits are asked too.

    Args:
        found: where its answers go.
        experiment: the lift's.
        folder: of the model.
        model: the released one.
    """
    if not found.ways:
        return experiment
    source, sets, written = found.source, (CLEAN, *found.sets()), experiment.work / "spoiled"
    with closing(Progress("shifts", len(sets), "sets of rows")) as progress:
        for number, name in enumerate(sets, 1):
            if name == CLEAN:
                source.write_clean(written)
            else:
                way, _, severity = name.rpartition(".")
                source.write_spoiled(written, Corruption(way, int(severity), source.seed))
            answers = answer(model, read_examples(source.problem, written, TEST, folder))
            found.released[name], found.rows = answers.primary, len(answers.primary.rows)
            if ECE in answers.scores:
                found.calibration[name] = answers.measured(ECE)
            place_split(experiment, read_examples(source.problem, written, TEST, experiment.trunk), f"beside/{name}")
            shutil.rmtree(written)
            progress.count(number)
    return replace(experiment, beside=sets, beside_labels=found.params.labels)


def take(found: Shifts, lift: Lift, experiment: Experiment, seeds: range, workers: int) -> None:
    """Take what the lift's fits said of the spoiled rows, and fit both arms anew for each real shift."""
    found.values, found.errors = (_by_arm(lift, name) for name in (found.score.name, ECE.name))
    for name, shift in sorted(found.params.data.items()):
        work = experiment.work / "data" / name
        near, far = found.source.write_chosen(work, name, shift)
        mine = replace(
            experiment, dataset=near, work=work / "arrays", test_rows=None,
            beside=(CLEAN, FAR), beside_labels=found.params.labels,
        )  # fmt: skip
        for one, dataset in ((CLEAN, near), (FAR, far)):
            place_split(mine, read_examples(found.source.problem, dataset, TEST, mine.trunk), f"beside/{one}")
        where = f"evaluate.shifts.data.{name}"
        fits = measure_lift(mine, (found.params.labels,), seeds, workers, where=where)
        found.named[name] = _by_arm(fits, found.score.name)


def _by_arm(lift: Lift, score: str) -> Values:
    """Return what the fits that were asked said, by arm, set of rows and seed; empty if none has such a score."""
    runs = [run for run in lift.runs if score in next(iter(run.beside.values()), {})]
    sets = runs[0].beside if runs else {}
    return {
        arm: {one: {run.seed: run.beside[one][score] for run in runs if run.arm == arm} for one in sets}
        for arm in ARMS
        if runs
    }
