"""Fine-tuning as a function: `finetune` calls it once, `evaluate` many times to measure the lift of pretraining."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graftline.canonical import read_json
from graftline.components.finetune.heads.image_classification import ImageClassifier
from graftline.components.finetune.params import FinetuneParams
from graftline.components.pretrain.objectives import WEIGHTS as OBJECTIVE_WEIGHTS
from graftline.components.pretrain.objectives import ObjectiveParams, build_objective
from graftline.components.pretrain.objectives.reconstruction import Reconstruction
from graftline.errors import GraftlineError, InputError
from graftline.training.loop import Desk, Run, train
from graftline.training.randomness import batch_indices, generator
from graftline.trunks import CONFIG, load_trunk, load_weights
from graftline.trunks.conv import ConvTrunk


@dataclass(frozen=True)
class Examples:
    """Labelled images."""

    pixels: torch.Tensor
    """(n, height, width) float32 from 0 to 1."""
    labels: torch.Tensor
    """(n,) int64 class indices."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """What one fine-tuning learns from."""

    train: Examples
    val: Examples | None
    """For early stopping; None to use all steps."""
    unlabelled: torch.Tensor | None = None
    """(n, height, width) pixels, for the joint objective only."""


def select(examples: Examples, labels_per_class: int | None, classes: int, seed: int) -> Examples:
    """Return a balanced random subset, a pure function of the seed; all examples for None.

    Raises:
        InputError: a class has fewer examples than asked for.
    """
    if labels_per_class is None:
        return examples
    order = torch.randperm(len(examples), generator=generator(seed, 0, "subset"))
    chosen = []
    for number in range(classes):
        members = order[examples.labels[order] == number][:labels_per_class]
        if len(members) < labels_per_class:
            raise InputError(
                "labels_per_class", f"{labels_per_class}, but class number {number} has {len(members)} examples",
                fix=f"ask for at most {len(members)}, or give more labelled data",
            )  # fmt: skip
        chosen.append(members)
    rows = torch.cat(chosen)
    return Examples(examples.pixels[rows], examples.labels[rows])


def steps_for(params: FinetuneParams, examples: int) -> int:
    """Return the steps of a fine-tuning from so many examples."""
    return max(params.min_steps, params.epochs * examples // params.batch)


def fit(
    trunk_folder: Path, data: Data, params: FinetuneParams, seed: int, classes: int,
    *, scratch: bool = False, desk: Desk | None = None,
) -> ImageClassifier:  # fmt: skip
    """Return a model fine-tuned from the trunk in `trunk_folder`, or with `scratch` from its shape only.

    Both arms draw the same batches and warps at equal seed, and their heads start equal.
    """
    torch.manual_seed(seed)
    trunk = load_trunk(trunk_folder, weights=not scratch)
    model = ImageClassifier(trunk, classes)
    joint = _joint(trunk_folder, trunk, scratch) if params.joint_weight else None
    module = nn.ModuleDict({"model": model} | ({"decoder": joint.decoder} if joint else {}))
    batch = min(params.batch, len(data.train))
    steps = steps_for(params, len(data.train))

    def loss(step: int) -> torch.Tensor:
        module.train()
        if params.freeze_trunk:
            trunk.eval()
        chosen = batch_indices(seed, step, batch, len(data.train))
        total = model.loss(data.train.pixels[chosen], data.train.labels[chosen], params.head, seed, step)
        if joint is not None and data.unlabelled is not None:
            rows = batch_indices(seed + 1, step, params.batch, len(data.unlabelled))
            total = total + params.joint_weight * joint.loss(data.unlabelled[rows], seed, step)
        return total

    run = Run(module, _optimizer(model, joint, params), loss, steps, params.warmup_steps)
    if data.val is not None and params.patience is not None:
        run.watcher = EarlyStop(model, data.val, max(1, steps // params.epochs), params.patience)
    train(run, desk)
    if isinstance(run.watcher, EarlyStop):
        run.watcher.take_best()
    return model.eval()


def _joint(folder: Path, trunk: ConvTrunk, scratch: bool) -> Reconstruction:
    """Return the pretraining objective around `trunk`, with the decoder that pretraining ended with."""
    from pydantic import TypeAdapter

    params: ObjectiveParams = TypeAdapter(ObjectiveParams).validate_python(
        read_json(folder / CONFIG)["objective"]
    )
    objective = build_objective(trunk, params)
    if not scratch:
        load_weights(objective.decoder, folder / OBJECTIVE_WEIGHTS, fix="run pretrain again")
    return objective


def _optimizer(
    model: ImageClassifier, joint: Reconstruction | None, params: FinetuneParams
) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [{"params": list(model.output.parameters()), "lr": params.learning_rate}]
    if params.freeze_trunk:
        model.trunk.requires_grad_(False)
    else:
        groups.append(
            {"params": list(model.trunk.parameters()), "lr": params.learning_rate * params.trunk_rate}
        )
    if joint is not None:
        groups.append({"params": list(joint.decoder.parameters()), "lr": params.learning_rate})
    return torch.optim.AdamW(groups, weight_decay=params.weight_decay, fused=True)


class EarlyStop:
    """Keeps the weights with the best validation accuracy; ends the run when it no longer improves."""

    def __init__(self, model: ImageClassifier, val: Examples, every: int, patience: int) -> None:
        """Look every `every` steps; stop after `patience` looks without a better accuracy."""
        self._model, self._val, self._every, self._patience = model, val, every, patience
        self._best: dict[str, torch.Tensor] = {}
        self._score, self._waited = (-1, 0.0), 0

    def after_step(self, step: int) -> bool:
        if step % self._every:
            return False
        score = self._measure()
        if not math.isfinite(score[1]):
            raise GraftlineError(
                f"the validation loss is {-score[1]} after step {step}; lower the learning rate, or look at the data"
            )
        if score > self._score:
            self._score, self._waited = score, 0
            self._best = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        else:
            self._waited += 1
        return self._waited >= self._patience

    def _measure(self) -> tuple[int, float]:
        """Return how many validation examples are right and, to break ties, minus the loss."""
        self._model.eval()
        with torch.no_grad():
            logits = torch.cat([self._model(part) for part in self._val.pixels.split(1000)])
            loss = nn.functional.cross_entropy(logits, self._val.labels)
        return int((logits.argmax(dim=1) == self._val.labels).sum()), -loss.item()

    def take_best(self) -> None:
        """Put the best weights into the model, if there was a look."""
        if self._best:
            self._model.load_state_dict(self._best)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return self._best, {"score": list(self._score), "waited": self._waited}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        self._best, self._waited = tensors, facts["waited"]
        self._score = (facts["score"][0], facts["score"][1])
