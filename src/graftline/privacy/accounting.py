"""The bound that a private training keeps: how much noise it needs, and what epsilon that is at the end."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from graftline.errors import InputError
from graftline.privacy.parameters import Accountant, Noise, PrivacyParams, Unit
from graftline.processes import importing

_TOLERANCE = 0.01
"""By how large a share epsilon may come out below what was asked for."""


@dataclass(frozen=True)
class Budget:
    """What one private training promises; two models of it differ in nothing else."""

    epsilon: float
    """Of all planned steps: one that stops early spends no more."""
    delta: float
    unit: Unit
    units: int
    """How many there are to draw from."""
    sampling_rate: float
    """Probability with which a unit is in a step's batch, independent of all others."""
    steps: int
    noise_multiplier: float
    """The noise's standard deviation over `clip`."""
    clip: float
    noise: Noise
    accountant: Accountant

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics: `epsilon`, `delta`, and what they were counted from."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "privacy_clip": self.clip,
            "privacy_noise_multiplier": self.noise_multiplier,
            "privacy_sampling_rate": self.sampling_rate,
            "privacy_steps": self.steps,
            "privacy_units": self.units,
        }


def budget_for(params: PrivacyParams, *, units: int, sampling_rate: float, steps: int, rounds: int = 1) -> Budget:
    """Return the least noise that keeps the bound over so many steps, and the epsilon that it comes to.

    Args:
        units: how many there are to draw from.
        sampling_rate: probability with which each is in a step's batch.
        steps: of this training.
        rounds: trainings on the same units that each spend this budget: their deltas add up.

    Raises:
        InputError: delta is no promise for so few units, or no noise keeps the bound.
    """
    if params.delta * rounds * units >= 1:
        federated = f" over {rounds} federated rounds" if rounds > 1 else ""
        most = f"1/{rounds * units}"
        raise InputError(
            "finetune.privacy.delta", f"{params.delta:g} for {units} units of privacy ({params.unit}){federated}",
            expected=f"less than {most}: with more, a model that gives one of them away whole would keep the bound",
            fix="make it smaller",
        )  # fmt: skip
    # Without sampling the loss is that of plain noise, which the PRV accountant's formula divides by zero on.
    accountant: Accountant = params.accountant if sampling_rate < 1 else "rdp"
    noise = _noise_multiplier(params.epsilon, params.delta, sampling_rate, steps, accountant)
    spent = epsilon(noise, sampling_rate, steps, params.delta, accountant)
    return Budget(
        spent, params.delta, params.unit, units, sampling_rate, steps, noise, params.clip, params.noise, accountant
    )


@cache
def _noise_multiplier(wanted: float, delta: float, rate: float, steps: int, accountant: Accountant) -> float:
    with importing():
        from opacus.accountants.utils import get_noise_multiplier
    try:
        with warnings.catch_warnings():  # of orders at the end of the list: a looser bound, and a bound still
            warnings.simplefilter("ignore")
            found = get_noise_multiplier(
                target_epsilon=wanted, target_delta=delta, sample_rate=rate, steps=steps, accountant=accountant,
                epsilon_tolerance=_TOLERANCE * wanted,
            )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        raise InputError(
            "finetune.privacy.epsilon", f"{wanted:g} over {steps} steps, which no noise keeps ({error})",
            expected="a larger one", fix="raise it, lower epochs, or set accountant to rdp",
        ) from None  # fmt: skip
    return float(found)


def epsilon(noise_multiplier: float, sampling_rate: float, steps: int, delta: float, accountant: Accountant) -> float:
    """Return the epsilon at `delta` of so many steps of the sampled Gaussian mechanism."""
    with importing():
        from opacus.accountants import create_accountant
    counting = create_accountant(mechanism=accountant)
    counting.history = [(noise_multiplier, sampling_rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(counting.get_epsilon(delta=delta))
