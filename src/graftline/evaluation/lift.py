"""The lift of pretraining: the same fine-tuning from the trunk and from scratch, at several label counts.

Both arms of a pair have the same seed, hence the same labelled subset, batches and head; they differ in the
trunk's first weights alone, and with so few labels that a pretrained trunk is left as it is (`probe_below`), in that
one from scratch is trained all the same: as it is it knows nothing. The fits run in worker processes with one thread
each, so that their bits do not depend on how many workers there are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.evaluation.workers import run_all
from graftline.learning.memory import keep_freed_memory
from graftline.learning.progress import Progress
from graftline.learning.randomness import generator, seed_everything
from graftline.privacy.units import read_units
from graftline.problems.fit import Data, probes, select
from graftline.problems.fit import fit as fine_tune
from graftline.problems.reading import read_examples
from graftline.problems.registry import make_problem
from graftline.problems.scores import ECE
from graftline.problems.weighing import answer
from graftline.score import Estimate, Score, t_interval
from graftline.tasks.evaluate import label_name

if TYPE_CHECKING:
    from graftline.problems.answers import Answers
    from graftline.problems.problem import Examples, Model, Problem
    from graftline.tasks.finetune import FinetuneParams

TRUNK, SCRATCH = ARMS = ("trunk", "scratch")
ATTACKED, MEMBERS, OTHERS = "attacked", "members", "others"
"""Where in `work` the rows lie that a membership attack tells apart."""


@dataclass(frozen=True)
class Experiment:
    """What all fits of a measurement share."""

    dataset: Path
    trunk: Path
    params: FinetuneParams
    work: Path
    """A folder for arrays that the workers share."""
    test_rows: int | None = None
    """Test rows on which the fits are scored; None for all."""
    seed: int = 0
    """Draws those rows."""
    beside: tuple[str, ...] = ()
    """Further sets of test rows in `work`/beside that fits with `beside_labels` labels a class are asked about."""
    beside_labels: int | None = None
    shadow_labels: int | None = None
    """Labels a class of the trunk's fits that are asked about `work`/attacked, as shadow models; None for none."""

    @property
    def problem(self) -> Problem[Any]:
        return make_problem(self.params.head, read_schema(self.dataset))


@dataclass(frozen=True)
class Fit:
    """One fine-tuning to do."""

    experiment: Experiment
    labels: int | None
    """A class; None for all."""
    seed: int
    arm: str
    """`trunk` or `scratch`."""


@dataclass(frozen=True)
class Run:
    """One fine-tuning that was done."""

    labels: str
    seed: int
    arm: str
    examples: int
    """Labelled examples that it learnt from."""
    subset: str
    """sha256 of those examples: equal for both arms of a pair."""
    value: float
    """The primary score on the test rows, or on the sample of them."""
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    """Scores by name on each further set of rows."""
    odds: dict[str, list[float]] = field(default_factory=dict)
    """Log odds of what is right of members and others; NaN of a row that it learned from."""


@dataclass(frozen=True)
class Point:
    """Both arms at one label count, over all seeds."""

    name: str
    size: float
    """Labels a class; for all labels the mean over the classes."""
    trunk: Estimate
    """The primary score, mean and 95% t interval over the seeds."""
    scratch: Estimate
    lift: Estimate
    """The paired differences: by how much the trunk's arm is better, negative if it is worse."""

    def arm(self, name: str) -> Estimate:
        """Return the score of `trunk` or `scratch`."""
        return self.trunk if name == TRUNK else self.scratch


@dataclass(frozen=True)
class Lift:
    """The whole measurement."""

    runs: list[Run]
    points: list[Point]
    """At the label counts at which the score is defined in both arms."""
    seeds: int
    amount: str
    """What the label counts count."""
    score: Score
    """What was measured of each fit: the problem's primary score."""
    probed: tuple[str, ...] = ()
    """The label counts at which the pretrained trunk was left as it is."""

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics: `trunk_5`, `scratch_5`, `lift_5`, `lift_5_low`, `lift_5_high`, ..."""
        found: dict[str, float] = {}
        for point in self.points:
            found |= {
                f"trunk_{point.name}": point.trunk.value,
                f"scratch_{point.name}": point.scratch.value,
                **point.lift.metrics(f"lift_{point.name}"),
            }
        return found

    def as_dict(self) -> dict[str, Any]:
        return {
            "runs": [_told(run) for run in self.runs],
            "points": [asdict(point) for point in self.points],
            "amount": self.amount,
            "score": self.score.name,
            **({"probed": list(self.probed)} if self.probed else {}),
        }


def _told(run: Run) -> dict[str, Any]:
    told = asdict(run) | {"value": run.value if math.isfinite(run.value) else None}
    return {name: value for name, value in told.items() if name not in ("beside", "odds")}


def measure_lift(
    experiment: Experiment,
    counts: tuple[int | None, ...],
    seeds: range,
    workers: int,
    *,
    where: str = "evaluate.lift_labels",
) -> Lift:
    """Fit both arms at every label count and seed, and compare them pair by pair.

    Args:
        experiment: data, trunk and fine-tuning parameters.
        counts: labels a class; None for all.
        seeds: one pair of fits each per label count.
        workers: processes to use; the result does not depend on it.
        where: the parameter that asks for the counts, for errors.

    Raises:
        InputError: a label count is more than a class has, or a fit cannot be done.
    """
    unpack(experiment)
    sizes = _sizes(experiment, counts, where)
    fits = [Fit(experiment, count, seed, arm) for count in counts for seed in seeds for arm in ARMS]
    # The longest first, so that no worker ends long after the others.
    fits.sort(key=lambda fit: -sizes[fit.labels])
    ended = itertools.count(1)
    with closing(Progress("lift", len(fits), "fits")) as progress:
        runs = run_all(run_fit, fits, workers=min(workers, len(fits)), done=lambda run: progress.count(next(ended)))
    score = experiment.params.head.scores[0]
    points = [_point(score, count, sizes[count], runs) for count in counts]
    points = [point for point in points if point.trunk.finite and point.scratch.finite and point.lift.finite]
    runs.sort(key=lambda run: (run.examples, run.seed, run.arm))
    classes = len(read_schema(experiment.dataset).classes)
    probed = [point for point in points if probes(experiment.params, round(point.size * classes), classes)]
    return Lift(runs, points, len(seeds), experiment.problem.amount, score, tuple(point.name for point in probed))


def run_fit(fit: Fit) -> Run:
    """Fine-tune as `fit` says and return what came of it. Runs in a worker."""
    keep_freed_memory()
    experiment, schema = fit.experiment, read_schema(fit.experiment.dataset)
    data = _data(fit, len(schema.classes))
    seed_everything(fit.seed, threads=1)
    model = fine_tune(experiment.trunk, data, experiment.params, fit.seed, schema, scratch=fit.arm == SCRATCH)
    value = answer(model, load_split(experiment, "test"), fast=True).value
    asked = experiment.beside if fit.labels == experiment.beside_labels else ()
    beside = {name: _scores(answer(model, load_split(experiment, f"beside/{name}"), fast=True)) for name in asked}
    odds = _shadow(fit, model, data) if fit.arm == TRUNK and fit.labels == experiment.shadow_labels else {}
    return Run(label_name(fit.labels), fit.seed, fit.arm, data.train.wholes, data.train.digest(), value, beside, odds)


def _shadow(fit: Fit, model: Model[Any], data: Data) -> dict[str, list[float]]:
    """Return the log odds of what is right of the rows that are told apart, without those that were learned from."""
    found = {}
    for name in (MEMBERS, OTHERS) if fit.labels is not None else ():
        rows = load_split(fit.experiment, f"{ATTACKED}/{name}")
        learned = np.isin(rows.rows.numpy(), data.train.rows.numpy())
        found[name] = np.where(learned, np.nan, answer(model, rows, fast=True).odds()).tolist()
    return found


def _scores(answers: Answers) -> dict[str, float]:
    """Return the primary score and, where there is one, the calibration error."""
    return {s.name: answers.measured(s).value for s in answers.scores if s in (answers.scores[0], ECE)}


def _data(fit: Fit, classes: int) -> Data:
    """Return what one fit learns from; it depends on label count and seed, not on the arm.

    With few labels nothing is held out to stop early, as in `finetune`: that would be labels by another name.
    """
    experiment = fit.experiment
    train = select(load_split(experiment, "train"), fit.labels, classes, fit.seed)
    return Data(
        train,
        load_split(experiment, "val") if fit.labels is None else None,
        load_split(experiment, "unlabelled") if experiment.params.joint_weight else None,
        read_units(experiment.params.privacy, experiment.dataset, train.rows),
    )


@cache
def load_split(experiment: Experiment, split: str) -> Examples:
    """Return a split that `unpack` wrote, mapped into memory: workers share its pages."""
    folder = experiment.work / split
    arrays = {path.stem: np.load(path, mmap_mode="c") for path in sorted(folder.glob("*.npy"))}
    examples: Examples = experiment.problem.examples.from_arrays(arrays)
    return examples


def unpack(experiment: Experiment) -> None:
    """Write the splits of the dataset as plain arrays into the experiment's folder."""
    for split in ("train", "val", "test", *(("unlabelled",) if experiment.params.joint_weight else ())):
        examples = read_examples(experiment.problem, experiment.dataset, split, experiment.trunk)
        if split == "test":
            examples = _sample(examples, experiment)
        place_split(experiment, examples, split)


def place_split(experiment: Experiment, examples: Examples, split: str) -> None:
    """Write examples as plain arrays into the experiment's folder, as `load_split` reads them."""
    (experiment.work / split).mkdir(parents=True, exist_ok=True)
    for name, array in examples.arrays().items():
        _place(experiment.work / split / f"{name}.npy", array)


def _place(path: Path, array: np.ndarray) -> None:
    """Write an array; one that is mapped from a file of the dataset is linked, for all splits share it."""
    if isinstance(array, np.memmap) and array.filename and not array.flags.owndata:
        path.unlink(missing_ok=True)
        path.symlink_to(array.filename)
    else:
        np.save(path, array)


def _sample(examples: Examples, experiment: Experiment) -> Examples:
    """Return the test rows on which the fits are scored, the same for all of them."""
    if experiment.test_rows is None or experiment.test_rows >= examples.wholes:
        return examples
    order = torch.randperm(examples.wholes, generator=generator(experiment.seed, 0, "lift test rows"))
    return examples.take_wholes(order[: experiment.test_rows].sort().values)


def _sizes(experiment: Experiment, counts: tuple[int | None, ...], where: str) -> dict[int | None, float]:
    """Return labels a class by label count; for None the mean. Raises InputError if a class has too few."""
    train, schema = load_split(experiment, "train"), read_schema(experiment.dataset)
    if train.classes is None:
        available, who = np.array([train.wholes]), "there are"
    else:
        available = np.bincount(train.classes.numpy(), minlength=len(schema.classes))
        who = f"class {schema.classes[int(available.argmin())]} has"
    for count in counts:
        if count is not None and count > available.min():
            raise InputError(
                where,
                f"{count} {experiment.problem.amount}",
                expected=f"at most {available.min()}, which {who} in train",
                fix="lower it, or label more data",
            )
    return {count: float(available.mean()) if count is None else count for count in counts}


def _point(score: Score, count: int | None, size: float, runs: list[Run]) -> Point:
    """Return both arms' mean score and their paired difference at one label count."""
    name = label_name(count)
    arms = {arm: {run.seed: run for run in runs if run.labels == name and run.arm == arm} for arm in ARMS}
    trunk, scratch = arms[TRUNK], arms[SCRATCH]
    for seed, run in trunk.items():
        if run.subset != scratch[seed].subset:
            raise AssertionError(f"{name} labels, seed {seed}: the arms learnt from different examples")
    return Point(name, size, *paired(score, [(run.value, scratch[seed].value) for seed, run in trunk.items()]))


def paired(score: Score, pairs: Sequence[tuple[float, float]]) -> tuple[Estimate, Estimate, Estimate]:
    """Return the means of the scores from the trunk, from scratch and of the gains, over pairs of one seed."""
    gains = [score.gain(*pair) for pair in pairs]
    return t_interval([trunk for trunk, _ in pairs]), t_interval([scratch for _, scratch in pairs]), t_interval(gains)
