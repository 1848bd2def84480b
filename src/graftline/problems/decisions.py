"""How a class is chosen out of logits, how far its probability can be believed, and which classes are not ruled out.

Temperature: C. Guo et al., "On calibration of modern neural networks", ICML 2017. Sets: the least ambiguous ones of
M. Sadinle et al., "Least ambiguous set-valued classifiers with bounded error levels", JASA 114 (2019), whose coverage
`conformal.py` promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftline.errors import InputError
from graftline.problems.conformal import limits
from graftline.problems.deciding_parameters import DecidingParams, cost_matrix
from graftline.score import Floats, Integers

if TYPE_CHECKING:
    from graftline.problems.groups import Groups
    from graftline.problems.scores import Sets

PERCENTS = 99
"""Coverages for which limits are kept: 1% to 99%."""
_TEMPERATURES = (0.05, 20.0)
"""The range in which one is looked for: where val is all right, the likelihood has no end."""


@dataclass(frozen=True, eq=False)
class Decision:
    """A rule that makes choices and sets of logits."""

    costs: Floats | None = None
    """(actual, chosen) what each answer costs; None where the most probable class is chosen."""
    temperature: float | None = None
    """What logits are divided by; None leaves them."""
    limits: Floats | None = None
    """(99,): the probability from which on a class is in a set, by the coverage in percent, less 1; None without."""
    coverage: float | None = None
    """How large a share of the sets is to hold the right class; None makes no sets."""
    held_out: int | None = None
    """How many groups of val the limits are made of, rows where these stand by themselves; None where it is not
    known: a model of an earlier version."""

    @classmethod
    def of(cls, params: DecidingParams, classes: Sequence[object]) -> Decision:
        """Return the rule as parameters say it, before val was seen."""
        return cls(cost_matrix(params.costs, classes))

    def fitted(
        self,
        params: DecidingParams,
        logits: torch.Tensor,
        labels: Integers,
        weights: Floats,
        rows: Integers,
        groups: Groups | None = None,
    ) -> Decision:
        """Return the rule that val gives.

        Args:
            params: what is asked for.
            logits: (n, classes) of units.
            labels: (n,).
            weights: (n,) how much each unit counts.
            rows: (n,) that each is of.
            groups: which rows come together.
        """
        if params.calibration is None:
            return self
        found = fit_temperature(logits.numpy(), labels, weights) if params.calibration.temperature else None
        probabilities = replace(self, temperature=found).decide(logits).probabilities
        right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
        together = None if groups is None else groups.of(rows)
        return replace(
            self, temperature=found, limits=set_limits(right, weights, together),
            coverage=params.calibration.coverage, held_out=len(np.unique(rows if together is None else together)),
        )  # fmt: skip

    def decide(self, logits: torch.Tensor) -> Decided:
        """Return what (n, classes) logits say."""
        cooled = logits if self.temperature is None else logits / self.temperature
        probabilities = cooled.softmax(dim=1).numpy()
        if self.costs is not None:
            chosen = (probabilities.astype(np.float64) @ self.costs).argmin(axis=1)
        else:  # of the logits as they came: dividing can round two of them to one
            chosen = logits.softmax(dim=1).numpy().argmax(axis=1)
        return Decided(cooled, probabilities, chosen, self)

    def asked_for(self, coverage: float) -> Decision:
        """Return the rule with sets of another coverage. Raises InputError for one that it has no limit for."""
        if self.limits is None:
            raise InputError(
                "--coverage", "this model has no sets of classes", expected="one that was calibrated",
                fix="set finetune.head.calibration to {}, train and release again",
            )  # fmt: skip
        _percent(coverage)
        return replace(self, coverage=coverage)

    @property
    def limit(self) -> float | None:
        """The probability from which on a class is in a set."""
        if self.limits is None or self.coverage is None:
            return None
        return float(self.limits[_percent(self.coverage) - 1])

    def facts(self) -> dict[str, Any]:
        """Return what head.json keeps of it: nothing of what parameters say, and nothing where val said nothing."""
        if self.limits is None:
            return {}
        return {"temperature": self.temperature, "limits": self.limits.tolist(), "held_out": self.held_out}

    def restored(self, params: DecidingParams, facts: dict[str, Any]) -> Decision:
        """Return the rule with what `facts` returned. Raises TypeError or ValueError for what it did not."""
        if params.calibration is None or "limits" not in facts:
            return self
        temperature, limits = facts["temperature"], np.array(facts["limits"], np.float64)
        if limits.shape != (PERCENTS,) or not (limits >= 0).all():
            raise ValueError(f"limits of shape {limits.shape}")
        if temperature is not None and not float(temperature) > 0:
            raise ValueError(f"temperature {temperature!r}")
        held_out = facts.get("held_out")
        if held_out is not None and (type(held_out) is not int or held_out < 1):
            raise ValueError(f"held_out {held_out!r}")
        return replace(
            self, temperature=temperature, limits=limits, coverage=params.calibration.coverage, held_out=held_out
        )


@dataclass(frozen=True, eq=False)
class Decided:
    """What was chosen of n units, and out of what."""

    logits: torch.Tensor
    """(n, classes), over the temperature if there is one."""
    probabilities: NDArray[np.float32]
    """(n, classes)."""
    chosen: Integers
    """(n,) class indices."""
    by: Decision

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(n,) the probability of what was chosen."""
        found: NDArray[np.float32] = self.probabilities[np.arange(len(self.chosen)), self.chosen]
        return found

    @property
    def sets(self) -> Sets | None:
        """(n, classes): which classes are not ruled out, perhaps none; None without sets."""
        return None if self.by.limit is None else sets_of(self.probabilities, self.by.limit)

    def told(self, classes: Sequence[int | str], coverage: float | None) -> list[dict[str, Any]]:
        """Return `label` and `probabilities` by class name of each unit.

        With a coverage that was asked for also `set`, the classes that are not ruled out, and `known`: whether these
        are the label alone.
        """
        names = [str(name) for name in classes]
        found: list[dict[str, Any]] = [
            {"label": classes[label], "probabilities": dict(zip(names, map(float, row), strict=True))}
            for label, row in zip(self.chosen.tolist(), self.probabilities, strict=True)
        ]
        if coverage is not None and self.sets is not None:
            for one, label, members in zip(found, self.chosen.tolist(), self.sets, strict=True):
                kept = np.flatnonzero(members).tolist()
                one |= {"set": [classes[place] for place in kept], "known": kept == [label], "coverage": coverage}
        return found


def sets_of(probabilities: NDArray[Any], limit: float) -> Sets:
    """Return which classes are at least as probable as the limit, like the probabilities."""
    sets: Sets = probabilities.astype(np.float64) >= limit
    return sets


def fit_temperature(logits: NDArray[Any], labels: Integers, weights: Floats) -> float:
    """Return what to divide (n, classes) logits by, so that the (n,) labels are most probable.

    The likelihood is concave in the inverse, so there is one best number.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    exact = logits.astype(np.float64)
    right = exact[np.arange(len(labels)), labels]

    def loss(log: float) -> float:
        inverse = np.exp(-log)
        return float(np.average(logsumexp(exact * inverse, axis=1) - right * inverse, weights=weights))

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def set_limits(right: Floats, weights: Floats, groups: Integers | None = None) -> Floats:
    """Return (99,): from which probability on a class is in a set, for coverages of 1% to 99%; 0 where every class is.

    Args:
        right: (n,) the probability of each unit's right class.
        weights: (n,) how much each unit counts.
        groups: (n,) the number of each one's group; None where each row stands by itself.
    """
    return np.maximum(limits(right, np.arange(1, PERCENTS + 1) / 100, weights, groups), 0.0)


def _percent(coverage: float) -> int:
    percent = round(coverage * 100) if 0 < coverage < 1 else 0
    if not 1 <= percent <= PERCENTS or abs(percent - coverage * 100) > 1e-6:
        raise InputError("--coverage", f"{coverage:g}", expected="0.01 to 0.99, in steps of 0.01")
    return percent
