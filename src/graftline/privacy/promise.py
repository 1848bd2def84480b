"""What a private model promises and what it does not, as privacy.json beside its weights; without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graftline.canonical import read_json
from graftline.errors import InputError
from graftline.jsonfile import write_json
from graftline.privacy.accounting import Budget
from graftline.privacy.parameters import BOUND, Noise, PrivacyParams, Unit

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


@dataclass(frozen=True)
class RoundsBudget:
    """What federated rounds promise together: of each round the largest bound of a site that went in, added up.

    Basic composition (Dwork and Roth, 2014, theorem 3.16): it holds whoever was in which round.
    """

    epsilon: float
    delta: float
    unit: Unit
    """Of a site's rows."""
    noise: Noise
    rounds: int


def write_rounds_promise(
    before: Mapping[str, Any] | None, spent: Sequence[tuple[float, float]], params: PrivacyParams, folder: Path
) -> dict[str, float]:
    """Write privacy.json of the model that a round made; return epsilon and delta.

    Args:
        before: the promise of the round's model; None before the first round.
        spent: epsilon and delta of each update that went in.
        params: of fine-tuning at the sites.
        folder: of the new model.
    """
    sums = [max(values) for values in zip(*spent, strict=True)]
    rounds = 1
    if before is not None:
        sums = [value + before[score.name] for value, score in zip(sums, BOUND, strict=True)]
        rounds += before["rounds"]
    budget = RoundsBudget(sums[0], sums[1], params.unit, params.noise, rounds)
    write_json({**asdict(budget), "outside": _OUTSIDE_ROUNDS}, folder / PROMISE)
    return metrics(asdict(budget))


_OUTSIDE_ROUNDS = [
    "What pretraining learned from, and its vocabulary. Only public data are safe there: see the datasheet.",
    "The coordinator's own rows: those of val, which calibrate the model, and those of test.",
    "Sites that say of their noise what is not so: each site's bound is what it counted and signed.",
    "Updates that were left out: the coordinator has seen them, and each spent its own epsilon.",
    "Who has rows at several sites: each site counts its own rows, and what they spent adds up.",
    "Other runs over the same sites, such as those by which parameters were chosen: each spends its own epsilon.",
    "How many rows each site has, which is signed in the clear, that a site took part, and which of its rows were "
    "drawn to learn from, where labels_per_class draws some.",
]


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
            f"all rounds it is {earlier + 1} times this epsilon, and delta, at most."
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
    kind = RoundsBudget if "rounds" in values else Budget
    try:
        kind(**{name: values[name] for name in kind.__dataclass_fields__})
        [str(line) for line in values["outside"]]
    except (KeyError, TypeError) as error:
        raise InputError(path, f"not a model's promise ({error!r})", fix="run finetune again") from None
    return dict(values)


def told(promise: Mapping[str, Any]) -> list[str]:
    """Return the promise in sentences, for card and report."""
    who = _WHO[promise["unit"]]
    if "rounds" in promise:
        lines = [
            f"Fine-tuned in {promise['rounds']} federated rounds, with differential privacy at each site: epsilon "
            f"{promise['epsilon']:.2f} at delta {promise['delta']:g} at most, for each {who} of a site, added or left "
            "out. Of each round the largest bound that a site signed, added up over the rounds."
        ]
    else:
        lines = [_counted(promise, who)]
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


def _counted(promise: Mapping[str, Any], who: str) -> str:
    return (
        f"Fine-tuned with differential privacy: epsilon {promise['epsilon']:.2f} at delta {promise['delta']:g}, for "
        f"each {who} of {promise['units']:,} that it learned from, added or left out. Counted by the accountant "
        f"{promise['accountant']}: {promise['steps']:,} steps, each unit in a batch with probability "
        f"{promise['sampling_rate']:.4g}, its gradient clipped at {promise['clip']:g}, noise of "
        f"{promise['noise_multiplier']:.4g} times that."
    )


def metrics(promise: Mapping[str, Any]) -> dict[str, float]:
    """Return what the gate may name: `epsilon` and `delta`."""
    return {score.name: promise[score.name] for score in BOUND}


def outside(promise: Mapping[str, Any]) -> list[str]:
    """Return what the promise says nothing about, in sentences."""
    return [str(line) for line in promise["outside"]]
