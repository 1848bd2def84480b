"""The lift of pretraining: the same fine-tuning from the trunk and from scratch, at several label counts.

Both arms of a pair have the same seed, hence the same labelled subset, batches and head; they differ in the
trunk's first weights alone. The fits run in worker processes with one thread each, so that their bits do not
depend on how many workers there are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.components.evaluate.params import label_name
from graftline.components.evaluate.predict import Predictions
from graftline.components.evaluate.statistics import Estimate, t_interval
from graftline.components.evaluate.workers import run_all
from graftline.dataset import read_images, read_schema
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.training.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from graftline.components.finetune.fit import Data, Examples
    from graftline.components.finetune.params import FinetuneParams

TRUNK, SCRATCH = ARMS = ("trunk", "scratch")


@dataclass(frozen=True)
class Experiment:
    """What all fits of a measurement share."""

    dataset: Path
    trunk: Path
    params: FinetuneParams
    work: Path
    """A folder for arrays that the workers share."""


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
    accuracy: float
    """On the whole test set."""


@dataclass(frozen=True)
class Point:
    """Both arms at one label count, over all seeds."""

    name: str
    size: float
    """Labels a class; for all labels the mean over the classes."""
    trunk: Estimate
    """Accuracy, mean and 95% t interval over the seeds."""
    scratch: Estimate
    lift: Estimate
    """The paired differences, trunk less scratch."""

    def arm(self, name: str) -> Estimate:
        """Return the accuracy of `trunk` or `scratch`."""
        return self.trunk if name == TRUNK else self.scratch


@dataclass(frozen=True)
class Lift:
    """The whole measurement."""

    runs: list[Run]
    points: list[Point]
    seeds: int

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics: `trunk_5`, `scratch_5`, `lift_5`, `lift_5_low`, `lift_5_high`, ..."""
        found: dict[str, float] = {}
        for point in self.points:
            found |= {
                f"trunk_{point.name}": point.trunk.value,
                f"scratch_{point.name}": point.scratch.value,
                f"lift_{point.name}": point.lift.value,
                f"lift_{point.name}_low": point.lift.low,
                f"lift_{point.name}_high": point.lift.high,
            }
        return found

    def as_dict(self) -> dict[str, Any]:
        return {
            "runs": [asdict(run) for run in self.runs],
            "points": [asdict(point) for point in self.points],
        }


def measure_lift(experiment: Experiment, counts: tuple[int | None, ...], seeds: range, workers: int) -> Lift:
    """Fit both arms at every label count and seed, and compare them pair by pair.

    Args:
        experiment: data, trunk and fine-tuning parameters.
        counts: labels a class; None for all.
        seeds: one pair of fits each per label count.
        workers: processes to use; the result does not depend on it.

    Raises:
        InputError: a label count is more than a class has, or a fit cannot be done.
    """
    _unpack(experiment)
    sizes = _sizes(experiment, counts)
    fits = [Fit(experiment, count, seed, arm) for count in counts for seed in seeds for arm in ARMS]
    # The longest first, so that no worker ends long after the others.
    fits.sort(key=lambda fit: -sizes[fit.labels])
    runs = _run_showing_progress(fits, min(workers, len(fits)))
    points = [_point(count, sizes[count], runs) for count in counts]
    return Lift(sorted(runs, key=lambda run: (run.examples, run.seed, run.arm)), points, len(seeds))


def _run_showing_progress(fits: list[Fit], workers: int) -> list[Run]:
    progress = Progress("lift", len(fits), "fits")
    ended = 0

    def show(run: Run) -> None:
        nonlocal ended
        ended += 1
        if progress.due() or ended == len(fits):
            progress.show(ended)

    try:
        return run_all(run_fit, fits, workers=workers, done=show)
    finally:
        progress.close()


def run_fit(fit: Fit) -> Run:
    """Fine-tune as `fit` says and return what came of it. Runs in a worker."""
    from graftline.components.finetune.fit import fit as fine_tune
    from graftline.components.finetune.model import probabilities
    from graftline.training.randomness import seed_everything

    experiment = fit.experiment
    classes = len(read_schema(experiment.dataset).classes)
    data, test = _data(fit, classes), _load(experiment.work, "test")
    seed_everything(fit.seed, threads=1)
    model = fine_tune(
        experiment.trunk, data, experiment.params, fit.seed, classes, scratch=fit.arm == SCRATCH
    )
    answers = Predictions(test.labels.numpy(), probabilities(model, test.pixels))
    return Run(
        label_name(fit.labels), fit.seed, fit.arm, len(data.train), _digest(data.train), answers.accuracy
    )


def _data(fit: Fit, classes: int) -> Data:
    """Return what one fit learns from; it depends on label count and seed, not on the arm.

    With few labels nothing is held out to stop early, as in `finetune`: that would be labels by another name.
    """
    from graftline.components.finetune.fit import Data, select

    folder, params = fit.experiment.work, fit.experiment.params
    return Data(
        select(_load(folder, "train"), fit.labels, classes, fit.seed),
        _load(folder, "val") if fit.labels is None else None,
        _map(folder, "unlabelled", "pixels") if params.joint_weight else None,
    )


def _load(folder: Path, split: str) -> Examples:
    """Return a labelled split that `_unpack` wrote."""
    from graftline.components.finetune.fit import Examples

    return Examples(_map(folder, split, "pixels"), _map(folder, split, "labels"))


@cache
def _map(folder: Path, split: str, name: str) -> Tensor:
    """Return an array that `_unpack` wrote, mapped into memory: workers share its pages."""
    import torch

    return torch.from_numpy(np.load(_array(folder, split, name), mmap_mode="c"))


def _unpack(experiment: Experiment) -> None:
    """Write the splits of the dataset as plain arrays into the experiment's folder."""
    experiment.work.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test", *(("unlabelled",) if experiment.params.joint_weight else ())):
        images = read_images(experiment.dataset, split)
        np.save(_array(experiment.work, split, "pixels"), images.pixels)
        if images.labels is not None:
            np.save(_array(experiment.work, split, "labels"), images.labels)


def _array(folder: Path, split: str, name: str) -> Path:
    return folder / f"{split}-{name}.npy"


def _digest(examples: Examples) -> str:
    """Return the sha256 of pixels and labels."""
    return sha256_bytes(examples.pixels.numpy().tobytes() + examples.labels.numpy().tobytes())


def _sizes(experiment: Experiment, counts: tuple[int | None, ...]) -> dict[int | None, float]:
    """Return labels a class by label count; for None the mean. Raises InputError if a class has too few."""
    schema = read_schema(experiment.dataset)
    labels = np.load(_array(experiment.work, "train", "labels"))
    available = np.bincount(labels, minlength=len(schema.classes))
    fewest = int(available.argmin())
    for count in counts:
        if count is not None and count > available[fewest]:
            raise InputError(
                "evaluate.lift_labels", f"{count} labels a class",
                expected=f"at most {available[fewest]}, which class {schema.classes[fewest]} has in train",
                fix="lower it, or label more data",
            )  # fmt: skip
    return {count: float(available.mean()) if count is None else count for count in counts}


def _point(count: int | None, size: float, runs: list[Run]) -> Point:
    """Return both arms' mean accuracy and their paired difference at one label count."""
    name = label_name(count)
    arms = {arm: {run.seed: run for run in runs if run.labels == name and run.arm == arm} for arm in ARMS}
    trunk, scratch = arms[TRUNK], arms[SCRATCH]
    for seed, run in trunk.items():
        if run.subset != scratch[seed].subset:
            raise AssertionError(f"{name} labels, seed {seed}: the arms learnt from different examples")
    return Point(
        name,
        size,
        trunk=t_interval([run.accuracy for run in trunk.values()]),
        scratch=t_interval([run.accuracy for run in scratch.values()]),
        lift=t_interval([run.accuracy - scratch[seed].accuracy for seed, run in trunk.items()]),
    )
