"""What a private model promises and what it does not, as privacy.json beside its weights; without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftline.canonical import read_json
from graftline.errors import InputError
from graftline.jsonfile import write_json
from graftline.privacy.accounting import Budget
from graftline.privacy.parameters import BOUND

PROMISE = "privacy.json"
_WHO = {"row": "row", "subject": "person (all rows of one)"}


def write_promise(budget: Budget, looked: Sequence[str], folder: Path, *, chosen: bool, earlier: int) -> None:
    """Write privacy.json into a model's folder.

    Args:
        looked: what val decided, such as `early stopping`.
        chosen: whether the model learned from a part of the rows, drawn with `labels_per_class`.
        earlier: fine-tunings on the same rows that this one goes on from, such as federated rounds.
    """
    write_json({**budget.as_dict(), "outside": _outside(looked, chosen, earlier)}, folder / PROMISE)


def _outside(looked: Sequence[str], chosen: bool, earlier: int) -> list[str]:
    """Return what the bound says nothing about, in sentences."""
    more = []
    if chosen:
        more.append(
            "Which rows were drawn to learn from (labels_per_class): that depends on how many there are, and the bound "
            "is of those that were drawn."
        )
    if earlier:
        more.append(
            f"The {earlier} rounds before: the model goes on from them, and each spent as much of the same rows. Over "
            f"all rounds it is {earlier + 1} times this epsilon at most."
        )
    val = f"The rows of val, which decided on {' and '.join(looked)}" if looked else "The rows of val"
    return [
        "What pretraining learned from: the trunk and its vocabulary have seen the rows of train and val without their "
        "labels, and what its start was trained on. Only public data are safe there: see the datasheet.",
        f"{val}, and the rows of test: figures of them are as they are.",
        "Parameters that a person chose after looking at earlier runs, and the other fine-tunings of the report (the "
        "lift's): each spends its own epsilon, and none of theirs is counted.",
        "How many rows there are, how many are cut off or alike, the data report, and which classes there are.",
        "Figures of the report about training rows, such as how well an attack tells them.",
        *more,
    ]


def read_promise(folder: Path) -> dict[str, Any] | None:
    """Return what privacy.json in a folder says; None of a model that promises nothing. Raises InputError."""
    path = folder / PROMISE
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        Budget(**{name: values[name] for name in Budget.__dataclass_fields__})
        [str(line) for line in values["outside"]]
    except (KeyError, TypeError) as error:
        raise InputError(path, f"not a model's promise ({error!r})", fix="run finetune again") from None
    return dict(values)


def told(promise: Mapping[str, Any]) -> list[str]:
    """Return the promise in sentences, for card and report."""
    who = _WHO[promise["unit"]]
    lines = [
        f"Fine-tuned with differential privacy: epsilon {promise['epsilon']:.2f} at delta {promise['delta']:g}, for "
        f"each {who} of {promise['units']:,} that it learned from, added or left out. Counted by the accountant "
        f"{promise['accountant']}: {promise['steps']:,} steps, each unit in a batch with probability "
        f"{promise['sampling_rate']:.4g}, its gradient clipped at {promise['clip']:g}, noise of "
        f"{promise['noise_multiplier']:.4g} times that."
    ]
    if promise["noise"] == "seeded":
        lines.append(
            "The noise came from the seed, which is no secret: whoever knows it can take the noise off again, and then "
            "the bound does not hold. Such a model is for tests."
        )
    else:
        lines.append(
            "Batches and noise came from a secure generator whose key nobody keeps: the training cannot be made again "
            "bit by bit, by design."
        )
    return lines


def metrics(promise: Mapping[str, Any]) -> dict[str, float]:
    """Return what the gate may name: `epsilon` and `delta`."""
    return {score.name: promise[score.name] for score in BOUND}


def outside(promise: Mapping[str, Any]) -> list[str]:
    """Return what the promise says nothing about, in sentences."""
    return [str(line) for line in promise["outside"]]
