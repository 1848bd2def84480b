"""The training that a task's parameters ask for: real steps of each model, and how often a run makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from graftline.dataset import UNLABELLED
from graftline.evaluation.lift import ARMS
from graftline.plan.measure import Step
from graftline.plan.parts import Fit, Part
from graftline.plan.sample import Sample
from graftline.problems.fit import Data, steps_for, training
from graftline.problems.problem import Examples
from graftline.problems.registry import make_problem
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks.registry import family_for


def parts(
    sample: Sample, pretrain: PretrainParams, finetune: FinetuneParams, evaluate: EvaluateParams, work: Path
) -> Iterator[tuple[Part, Step]]:
    """Yield the parts of all stages in their order, each with a step of its model.

    Untrained trunks and token files go into the folder `work`.

    Raises:
        InputError: the parameters do not fit the data, or the rootstock is none.
    """
    trunk = work / "trunk"
    trunk.mkdir()
    torch.manual_seed(pretrain.seed)
    yield from pretraining(sample, pretrain, trunk, work)
    yield from _with_labels(sample, finetune, evaluate, trunk)


def pretraining(sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[tuple[Part, Step]]:
    """Yield what `pretrain` trains, and write the main trunk, untrained, into the folder `trunk`."""
    family = family_for(params, sample.schema, "parameters")
    for planned in family.plan(sample, params, trunk, work):
        fits = (Fit(planned.steps, planned.batch, planned.answered),)
        part = Part("pretrain", planned.training.name, fits, family.plural, other_seconds=planned.ahead)
        yield part, Step(planned.training.run, planned.examples, planned.tokens)


def _with_labels(
    sample: Sample, params: FinetuneParams, evaluate: EvaluateParams, trunk: Path
) -> Iterator[tuple[Part, Step]]:
    problem = make_problem(params.head, sample.schema)
    examples = problem.read(sample.folder, "train", trunk)
    step = _finetune_step(sample, params, trunk, examples)
    per_label = 1 if examples.classes is None else len(sample.schema.classes)

    def fit(params: FinetuneParams, labels: int | None, test_rows: int) -> Fit:
        count = sample.rows["train"] if labels is None else labels * per_label
        looks = params.epochs if labels is None and params.patience is not None else 0
        batch = min(params.batch, count)
        return Fit(steps_for(params, count), batch, looks * sample.rows["val"] + test_rows)

    tested = sample.rows["test"]
    yield (Part("finetune", "", (fit(params, params.labels_per_class, sample.rows["val"]),), problem.plural), step)
    lift = params.model_copy(update={"epochs": evaluate.lift_epochs or params.epochs})
    scored = min(evaluate.lift_test_rows or tested, tested)
    fits = [fit(lift, n, scored) for n in evaluate.lift_labels for _ in range(evaluate.lift_seeds) for _ in ARMS]
    yield Part("evaluate", "", tuple(fits), problem.plural, apart=True), step


def _finetune_step(sample: Sample, params: FinetuneParams, trunk: Path, examples: Examples) -> Step:
    labelled = examples.take(torch.arange(min(len(examples), sample.rows["train"])))
    unlabelled = None
    if params.joint_weight:
        unlabelled = make_problem(params.head, sample.schema).read(sample.folder, UNLABELLED, trunk)
    _, run = training(trunk, Data(labelled, None, unlabelled), params, params.seed, sample.schema)
    return Step(run, min(params.batch, len(labelled)))
