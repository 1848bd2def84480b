"""Fine-tuning as a function: `finetune` calls it once, `evaluate` many times to measure the lift of pretraining."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graftline.dataset import Schema
from graftline.errors import GraftlineError, InputError, brief
from graftline.learning.distributed import World, world
from graftline.learning.loop import Desk, Run, train
from graftline.learning.randomness import generator
from graftline.privacy.accounting import Budget, budget_for
from graftline.privacy.draws import draws_for
from graftline.privacy.training import PrivateSteps
from graftline.problems.groups import Groups
from graftline.problems.model import load_model
from graftline.problems.problem import E, Examples, Joint, Model
from graftline.problems.registry import make_problem
from graftline.problems.weighing import BalancedDraw, answer, for_training
from graftline.tasks.finetune import FinetuneParams


@dataclass(frozen=True)
class Data:
    """What one fine-tuning learns from."""

    train: Examples
    val: Examples | None
    """Held out, to stop early and to calibrate by; None to use all steps."""
    unlabelled: Examples | None = None
    """For the joint objective only."""
    units: torch.Tensor | None = None
    """(n,) the number of the unit of privacy that each training example is of, from 0; None where each is its own."""
    groups: Groups | None = None
    """Which rows of `val` come together; None where each stands by itself."""


@dataclass(frozen=True)
class Near:
    """A model to go on from, and how strongly to stay near it."""

    model: Path
    """The folder of a fine-tuned model of the same trunk and head."""
    weight: float = 0.0
    """mu of the proximal term mu/2 * |w - w0|**2 (FedProx: T. Li et al., arXiv:1812.06127); 0 for none."""


class Pull:
    """The proximal term of what a module learns, around its weights as they are now."""

    def __init__(self, module: nn.Module, weight: float) -> None:
        self._weight = weight
        self._held = [(p, p.detach().clone()) for p in module.parameters() if p.requires_grad]

    def __call__(self) -> torch.Tensor:
        """Return it, a scalar."""
        return self._weight / 2 * torch.stack([(p - at).square().sum() for p, at in self._held]).sum()


def select(examples: E, labels_per_class: int | None, classes: int, seed: int) -> E:
    """Return a balanced random subset, a pure function of the seed; all examples for None.

    Where an example has no one class (a sentence with a tag a word, a document to generate), `labels_per_class`
    is the number of wholes in all, such as of questions, each with all its windows.

    Raises:
        InputError: there are fewer examples, or fewer of a class, than asked for.
    """
    if labels_per_class is None:
        return examples
    order = torch.randperm(examples.wholes, generator=generator(seed, 0, "subset"))
    labels = examples.classes
    if labels is None:
        return examples.take_wholes(_first(order, labels_per_class, "there are"))
    chosen = [
        _first(order[labels[order] == number], labels_per_class, f"class number {number} has")
        for number in range(classes)
    ]
    return examples.take(torch.cat(chosen))


def _first(members: torch.Tensor, count: int, who: str) -> torch.Tensor:
    if len(members) < count:
        raise InputError(
            "labels_per_class",
            f"{count}, but {who} {len(members)} examples",
            fix=f"ask for at most {len(members)}, or give more labelled data",
        )
    return members[:count]


def steps_for(params: FinetuneParams, examples: int) -> int:
    """Return the steps of a fine-tuning from so many examples."""
    return max(params.min_steps, params.epochs * examples // params.batch)


def probes(params: FinetuneParams, examples: int, classes: int) -> bool:
    """Return whether so many examples are too few to train a pretrained trunk with."""
    return params.probe_below is not None and examples < params.probe_below * classes


def fit(
    trunk: Path,
    data: Data,
    params: FinetuneParams,
    seed: int,
    schema: Schema,
    *,
    scratch: bool = False,
    desk: Desk | None = None,
    near: Near | None = None,
) -> Model[Any]:
    """Return a model fine-tuned from the trunk in a folder, or with `scratch` from its shape only.

    With `near` it goes on from a model that was fine-tuned from that trunk before.

    Both arms draw the same batches and warps at equal seed, and their heads start equal. With so few labels that the
    trunk is left as it is (`probe_below`) nothing is drawn, and there is no step; from scratch all is trained as ever.
    """
    part = world() if desk else World()  # without a desk no other process takes part
    model, run = training(trunk, data, params, seed, schema, scratch=scratch, part=part, near=near)
    if desk and params.privacy is None:  # the lift's fits end before compiling has paid
        model.compile_if_worth(run.steps)
    train(run, desk)
    if isinstance(run.watcher, EarlyStop):
        run.watcher.take_best()
    if data.val is not None:
        model.calibrate(data.val, data.groups)
    return model.eval()


def training(
    trunk: Path,
    data: Data,
    params: FinetuneParams,
    seed: int,
    schema: Schema,
    *,
    scratch: bool = False,
    part: World | None = None,
    near: Near | None = None,
) -> tuple[Model[Any], Run]:
    """Return the model that `fit` trains, and its training; `part` of each batch is this process's."""
    torch.manual_seed(seed)
    problem = make_problem(params.head, schema)
    model = problem.build(trunk, schema, scratch=scratch)
    examples = for_training(data.train, params.balance)
    balanced = None
    if params.balance == "sampling":
        assert examples.classes is not None
        balanced = BalancedDraw(examples.classes, seed)
    _begin(model, data.train, near)
    joint = None
    if params.joint_weight and data.unlabelled is not None:
        joint = problem.joint(trunk, model, data.unlabelled, params.batch, scratch=scratch)
    module = nn.ModuleDict({"model": model} | ({"decoder": joint.module} if joint else {}))
    batch = min(params.batch, len(data.train))
    steps = steps_for(params, len(data.train))
    if params.freeze_trunk:
        model.freeze_trunk()
    if not scratch and probes(params, len(data.train), len(schema.classes)):
        model.freeze_trunk()
        model.probe(for_training(data.train, "none" if params.balance == "none" else "loss"))  # nothing is drawn
        steps = 0

    pull = None
    if near is not None and near.weight and (part is None or part.leads):  # an addend of one process
        pull = Pull(module, near.weight)

    def drawn(step: int) -> Examples:
        return examples.take(examples.draw(seed, step, batch) if balanced is None else balanced(step, batch))

    def loss(step: int) -> torch.Tensor:
        module.train()
        total = model.loss(drawn(step), seed, step, part)
        if joint is not None:
            total = total + params.joint_weight * joint.loss(seed, step, part)
        return total if pull is None else total + pull()

    optimizer = _optimizer(model, joint, params)
    run = Run(
        module, optimizer, loss, steps, params.warmup_steps, clip=model.clip,
        rows=lambda step: drawn(step).rows.tolist(), addends=True,
    )  # fmt: skip
    if params.privacy is not None:
        _make_private(run, model, data, params, seed, part or World())
    if data.val is not None and params.patience is not None:
        run.watcher = EarlyStop(model, data.val, max(1, steps // params.epochs), params.patience)
    return model, run


def _begin(model: Model[Any], train: Examples, near: Near | None) -> None:
    """Let a model take what it has before the first step. Raises InputError if it cannot go on from `near`."""
    if near is None:
        model.begin(train)
        return
    try:
        model.go_on_from(load_model(near.model))
    except (KeyError, RuntimeError) as error:
        raise InputError(
            near.model, f"a model of another trunk or head ({brief(error)})", fix="give one of the same"
        ) from None


def budget(params: FinetuneParams, data: Data, rounds: int = 1) -> Budget | None:
    """Return what a fine-tuning from these data, one of so many rounds, promises, if it is a private one.

    Raises InputError.
    """
    if params.privacy is None:
        return None
    examples = len(data.train)
    units = examples if data.units is None else int(data.units.max()) + 1
    rate, steps = min(params.batch, examples) / examples, steps_for(params, examples)
    return budget_for(params.privacy, units=units, sampling_rate=rate, steps=steps, rounds=rounds)


def _make_private(run: Run, model: Model[Any], data: Data, params: FinetuneParams, seed: int, team: World) -> None:
    """Draw a run's batches by chance, clip what each unit of privacy adds, and add noise.

    Raises:
        InputError: the bound cannot be kept: there are several processes, examples have weights, or the gradients of a
            layer are not known row by row.
    """
    promised = budget(params, data)
    assert params.privacy is not None and promised is not None
    if team.size > 1:
        raise InputError(
            "finetune.privacy", f"torchrun with {team.size} processes", expected="one: batches are drawn by chance",
            fix="start one process",
        )  # fmt: skip
    if not model.rows_apart:
        raise InputError(
            "finetune.privacy", "a trunk that normalises over time, to which the zeros beside a clip count",
            expected="one that a row's neighbours in a batch change nothing of", fix="take a trunk with layer norms",
        )  # fmt: skip
    if data.train.weights is not None:
        raise InputError(
            "finetune.privacy", "a column of the role weight", fix="give it the role metadata",
            expected="none: weights are divided by their mean, in which every row has a part",
        )  # fmt: skip
    examples: Any = data.train
    units = torch.arange(len(examples)) if data.units is None else data.units
    steps = PrivateSteps(
        model, promised, draws_for(params.privacy.noise, seed), units, params.privacy.subject_rows,
        lambda rows: examples.take(rows).alike_in_size(),
    )  # fmt: skip

    def loss(step: int) -> torch.Tensor:
        run.module.train()
        return steps.loss(step, lambda rows, seed: model.loss(examples.take(rows), seed, step))

    run.loss, run.after_backward, run.clip = loss, steps.finish, None
    run.rows = lambda _: examples.rows[steps.rows].tolist()


def _optimizer(model: Model[Any], joint: Joint | None, params: FinetuneParams) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [{"params": model.head_parameters(), "lr": params.learning_rate}]
    if trunk := model.trunk_parameters():
        groups.append({"params": trunk, "lr": params.learning_rate * params.trunk_rate})
    if joint is not None:
        groups.append({"params": list(joint.module.parameters()), "lr": params.learning_rate})
    return torch.optim.AdamW(groups, weight_decay=params.weight_decay, fused=True)


class EarlyStop:
    """Keeps the weights with the best primary score on val; ends the run when it no longer improves."""

    def __init__(self, model: Model[Any], val: Examples, every: int, patience: int) -> None:
        """Look every `every` steps; stop after `patience` looks without a better score; a lower loss breaks ties."""
        self._model, self._val, self._every, self._patience = model, val, every, patience
        self._best: dict[str, torch.Tensor] = {}
        self._score: tuple[float, float] | None = None
        self._waited = 0

    def after_step(self, step: int) -> bool:
        if step % self._every:
            return False
        answers = answer(self._model, self._val, fast=True)
        if not math.isfinite(answers.loss):
            raise GraftlineError(
                f"the validation loss is {answers.loss} after step {step}; lower the learning rate, or look at the data"
            )
        gain = answers.scores[0].gain(answers.value, 0.0)
        score = -math.inf if math.isnan(gain) else gain, -answers.loss  # not defined on val: any value is better
        if self._score is None or score > self._score:
            self._score, self._waited = score, 0
            self._best = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        else:
            self._waited += 1
        return self._waited >= self._patience

    def take_best(self) -> None:
        """Put the best weights into the model, if there was a look."""
        if self._best:
            self._model.load_state_dict(self._best)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        score = self._score and [self._score[0] if math.isfinite(self._score[0]) else None, self._score[1]]
        return self._best, {"score": score, "waited": self._waited}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        self._best, self._waited = tensors, facts["waited"]
        score = facts["score"]
        self._score = score and (-math.inf if score[0] is None else score[0], score[1])
