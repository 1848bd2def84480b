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
from graftline.problems.fit import steps_for
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


def pretraining(
    sample: Sample, params: PretrainParams, trunk: Path, work: Path
) -> Iterator[tuple[Part, Step]]:
    """Yield what `pretrain` trains, and write the main trunk, untrained, into the folder `trunk`."""
    family = family_for(params, sample.schema, "parameters")
    for planned in family.plan(sample, params, trunk, work):
        run = planned.training.run
        for group in (group for optimizer in run.optimizers for group in optimizer.param_groups):
            group["lr"] = 1e-9  # the rate costs nothing, and harms nothing
        fits = (Fit(planned.steps, planned.batch, planned.answered),)
        part = Part("pretrain", planned.training.name, fits, family.plural, other_seconds=planned.ahead)
        yield part, Step(run.module, run.optimizers, run.loss, planned.examples, planned.tokens)


def _with_labels(
    sample: Sample, params: FinetuneParams, evaluate: EvaluateParams, trunk: Path
) -> Iterator[tuple[Part, Step]]:
    problem = make_problem(params.head)
    examples = problem.read(sample.folder, "train", trunk)
    step = _finetune_step(sample, params, trunk, examples)
    per_label = 1 if examples.classes is None else len(sample.schema.classes)

    def fit(params: FinetuneParams, labels: int | None, test_rows: int) -> Fit:
        count = sample.rows["train"] if labels is None else labels * per_label
        looks = params.epochs if labels is None and params.patience is not None else 0
        batch = min(params.batch, count)
        return Fit(steps_for(params, count), batch, looks * sample.rows["val"] + test_rows)

    tested = sample.rows["test"]
    yield (
        Part("finetune", "", (fit(params, params.labels_per_class, sample.rows["val"]),), problem.plural),
        step,
    )
    lift = params.model_copy(update={"epochs": evaluate.lift_epochs or params.epochs})
    scored = min(evaluate.lift_test_rows or tested, tested)
    fits = [
        fit(lift, n, scored) for n in evaluate.lift_labels for _ in range(evaluate.lift_seeds) for _ in ARMS
    ]
    yield Part("evaluate", "", tuple(fits), problem.plural, apart=True), step


def _finetune_step(sample: Sample, params: FinetuneParams, trunk: Path, examples: Examples) -> Step:
    problem = make_problem(params.head)
    model = problem.build(trunk, sample.schema, scratch=False)
    if params.freeze_trunk:
        model.freeze_trunk()
    batch = min(params.batch, len(examples), sample.rows["train"])
    joint = None
    if params.joint_weight:
        unlabelled = problem.read(sample.folder, UNLABELLED, trunk)
        joint = problem.joint(trunk, model, unlabelled, min(params.batch, len(unlabelled)), scratch=False)
    module = torch.nn.ModuleDict({"model": model} | ({"decoder": joint.module} if joint else {}))

    def loss(step: int) -> torch.Tensor:
        total = model.loss(examples.take(examples.draw(params.seed, step, batch)), params.seed, step)
        return total if joint is None else total + params.joint_weight * joint.loss(params.seed, step)

    trained = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-9, fused=True)  # the rate costs nothing, and harms nothing
    return Step(module, [optimizer], loss, batch)
