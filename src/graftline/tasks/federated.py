"""Parameters of federated fine-tuning: the section `federated`, which the sites and the component `aggregate` read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from graftline.errors import InputError
from graftline.privacy.parameters import MOST_DELTA
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.parameters import Params


class FederatedParams(Params):
    """Fine-tuning where the data lie: rounds in which each site learns for itself, and updates are averaged."""

    rounds: int = Field(default=10, ge=1, le=9999)
    """Rounds."""
    algorithm: Literal["fedavg", "fedprox"] = "fedavg"
    """fedavg: each site fine-tunes from the round's model, and the models are averaged by rows (McMahan et al., 2017);
    fedprox: the same with a pull towards the round's model (Li et al., 2020)."""
    mu: float | None = Field(default=None, gt=0, le=1000)
    """Of fedprox: the loss of a site has mu/2 times the squared distance from the round's model added."""
    local_epochs: int = Field(default=1, ge=1, le=1000)
    """Passes of a site over its rows in a round."""
    local_steps: int = Field(default=1, ge=1, le=1_000_000)
    """Steps of a site in a round at least, however few rows it has."""
    start: Literal["trunk", "scratch"] = "trunk"
    """What the first round starts from: the pretrained trunk, or an untrained one of its shape; the head is new."""
    norm_bound: float | None = Field(default=None, gt=0)
    """An update that is further than this from the round's model (Euclidean, over all weights) is left out; null for
    any. The round's record names how far each was."""
    max_share: float | None = Field(default=None, gt=0, le=1)
    """Largest weight of a site in the average, however many rows it says it has; null for any. Where there are too few
    sites for it, all weigh the same."""
    quorum: int = Field(default=1, ge=1)
    """Updates that must go in; with fewer the round fails, and there is no new model."""
    late: float = Field(default=3600, gt=0, le=30 * 86400)
    """Seconds after which a round does not wait for a site any more."""

    @model_validator(mode="after")
    def _mu_belongs_to_fedprox(self) -> Self:
        if (self.mu is not None) != (self.algorithm == "fedprox"):
            raise ValueError(f"algorithm {self.algorithm} with mu {self.mu}: fedprox has a mu, and fedavg has none")
        return self

    def check_with(self, sections: Mapping[str, Any], where: str) -> None:
        """Return if fine-tuning is of a kind that goes on from a model."""
        if sections["finetune"].probe_below is not None:
            raise InputError(
                f"{where}: finetune.probe_below",
                "a head that is solved in closed form does not go on from a round's model",
                expected="null beside a section federated",
                fix="leave it out, or freeze_trunk instead",
            )
        privacy = sections["finetune"].privacy
        if privacy is not None and self.mu is not None:
            raise InputError(
                f"{where}: federated.mu",
                "a private fine-tuning has no proximal term",
                expected="algorithm fedavg beside finetune.privacy",
                fix="leave mu out",
            )
        if privacy is not None and privacy.delta * self.rounds >= MOST_DELTA:
            raise InputError(
                f"{where}: finetune.privacy.delta",
                f"{privacy.delta:g} in each of {self.rounds} rounds: together {privacy.delta * self.rounds:g}",
                expected=f"a sum below {MOST_DELTA:g}: more is no promise, not even for two rows",
                fix="make it smaller: it adds up over federated.rounds",
            )

    def at_a_site(self, finetune: FinetuneParams, number: int) -> FinetuneParams:
        """Return how a site fine-tunes in round `number` (from 1): all its steps, and other batches each round."""
        changed = {
            "epochs": self.local_epochs,
            "min_steps": self.local_steps,
            "patience": None,
            "seed": (finetune.seed + number - 1) % 2**31,
        }
        return finetune.model_copy(update=changed)


ROUND = "round"
"""The metric by which a model's record names the round that made it: 0 before the first."""


def round_of(metrics: Mapping[str, Any], where: object) -> int:
    """Return which round made a model, by its record's metrics. Raises InputError if none did."""
    number = metrics.get(ROUND)
    if type(number) is not int or not 0 <= number < 10_000:
        raise InputError(where, "a model that no federated round made", expected="the output of aggregate")
    return number
