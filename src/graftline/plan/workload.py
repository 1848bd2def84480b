"""The training that a task's parameters ask for: real steps of each model, and how often a run makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from graftline.dataset import UNLABELLED
from graftline.evaluation.lift import ARMS
from graftline.plan.images import pretrain_images
from graftline.plan.measure import Step
from graftline.plan.parts import Fit, Part
from graftline.plan.sample import Sample
from graftline.plan.text import pretrain_text
from graftline.problems.fit import Data, steps_for, training
from graftline.problems.head import Examples
from graftline.problems.registry import make_head
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks.conv.parameters import ConvParams


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
    if isinstance(pretrain.trunk, ConvParams):
        yield pretrain_images(sample, pretrain, trunk)
    else:
        yield from pretrain_text(sample, pretrain, trunk, work)
    yield from _with_labels(sample, finetune, evaluate, trunk)


def _with_labels(
    sample: Sample, params: FinetuneParams, evaluate: EvaluateParams, trunk: Path
) -> Iterator[tuple[Part, Step]]:
    head = make_head(params.head)
    examples = head.read(sample.folder, "train", trunk)
    step = _finetune_step(sample, params, trunk, examples)
    per_label = 1 if examples.classes is None else len(sample.schema.classes)

    def fit(params: FinetuneParams, labels: int | None, test_rows: int) -> Fit:
        count = sample.rows["train"] if labels is None else labels * per_label
        looks = params.epochs if labels is None and params.patience is not None else 0
        batch = min(params.batch, count)
        return Fit(steps_for(params, count), batch, looks * sample.rows["val"] + test_rows)

    tested = sample.rows["test"]
    yield Part("finetune", "", (fit(params, params.labels_per_class, sample.rows["val"]),), head.plural), step
    lift = params.model_copy(update={"epochs": evaluate.lift_epochs or params.epochs})
    scored = min(evaluate.lift_test_rows or tested, tested)
    fits = [
        fit(lift, n, scored) for n in evaluate.lift_labels for _ in range(evaluate.lift_seeds) for _ in ARMS
    ]
    yield Part("evaluate", "", tuple(fits), head.plural, apart=True), step


def _finetune_step(sample: Sample, params: FinetuneParams, trunk: Path, examples: Examples) -> Step:
    labelled = examples.take(torch.arange(min(len(examples), sample.rows["train"])))
    unlabelled = None
    if params.joint_weight:
        unlabelled = make_head(params.head).read(sample.folder, UNLABELLED, trunk)
    _, run = training(trunk, Data(labelled, None, unlabelled), params, params.seed, sample.schema)
    return Step(run, min(params.batch, len(labelled)))
