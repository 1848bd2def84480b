"""How much examples count: by a column of the data, in the loss and in scores; and classes that are to count alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from graftline.errors import InputError
from graftline.learning.randomness import generator
from graftline.problems.answers import Answers
from graftline.problems.problem import Examples, Model

Balance = Literal["none", "sampling", "loss"]


def answer(model: Model[Any], examples: Examples, *, fast: bool = False) -> Any:
    """Return the model's answers on labelled examples; in scores each row counts by its weight."""
    answers: Answers = model.answer(examples, fast=fast)
    if examples.weights is None:
        return answers
    rows, first = np.unique(examples.rows.numpy(), return_index=True)
    return replace(answers, weights=(rows, examples.weights.numpy()[first].astype(np.float64)))


def for_training(examples: Examples, balance: Balance) -> Examples:
    """Return the examples with the weights that their losses are multiplied by: 1 on average.

    With `loss` as balance each class has the same share of all weights.

    Raises:
        InputError: classes are to count alike, and the examples have none.
    """
    weights = examples.unit_weights()
    if balance == "loss":
        classes = examples.unit_classes
        if classes is None:
            raise _no_classes(balance)
        known = torch.ones(len(classes)) if weights is None else weights
        totals = torch.bincount(classes, known.double())
        weights = known / totals[classes]
    elif balance == "sampling" and examples.classes is None:
        raise _no_classes(balance)
    return examples if weights is None else examples.weighted((weights / weights.mean()).float())


def _no_classes(balance: Balance) -> InputError:
    words = "an example is of no one class" if balance == "sampling" else "nothing is of one class"
    return InputError("finetune.balance", balance, expected=f"none: {words}", fix="leave it out")


class BalancedDraw:
    """Batches in which all classes are equally frequent: a batch is a pure function of (seed, step).

    Classes come in turns, in a new order each time; a class's examples in permutations of them, one after the other. So
    examples of a rare class come again sooner. Batches of text are not sorted by length: they hold more padding.
    """

    def __init__(self, classes: torch.Tensor, seed: int) -> None:
        self._members = [(classes == number).nonzero().flatten() for number in classes.unique()]
        self._seed = seed
        self._orders: dict[int, tuple[int, torch.Tensor]] = {}

    def __call__(self, step: int, size: int) -> torch.Tensor:
        """Return (size,) positions."""
        count = len(self._members)
        turns = range(step * size // count, ((step + 1) * size - 1) // count + 1)
        slots = [(turn, number) for turn in turns for number in self._shuffled(count, turn, "class turn").tolist()]
        first = step * size - turns.start * count
        return torch.stack([self._pick(number, turn) for turn, number in slots[first : first + size]])

    def _pick(self, number: int, turn: int) -> torch.Tensor:
        members = self._members[number]
        epoch, place = divmod(turn, len(members))
        if self._orders.get(number, (None,))[0] != epoch:
            self._orders[number] = epoch, self._shuffled(len(members), epoch, f"class {number}")
        position: torch.Tensor = members[self._orders[number][1][place]]
        return position

    def _shuffled(self, count: int, turn: int, purpose: str) -> torch.Tensor:
        return torch.randperm(count, generator=generator(self._seed, turn, purpose))


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Return the mean cross entropy of (n, classes) logits, each times its weight if there are weights."""
    reduction = "mean" if weights is None else "none"
    losses = nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction=reduction)
    return weighed(losses, weights)


def weighed(losses: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of losses times weights; the loss as it is, a mean already, where there are no weights.

    Args:
        losses: (n,), or a scalar without weights.
        weights: (n,), on any device.
    """
    return losses if weights is None else (losses * weights.to(losses.device, non_blocking=True)).mean()
