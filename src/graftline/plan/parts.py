"""What a plan is made of: the trainings of each stage, and how often a run makes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """One training from beginning to end."""

    steps: int
    batch: float
    """Examples a step."""
    answered: float = 0
    """Examples that are only answered, without a step: in validation and on the test set."""


@dataclass(frozen=True)
class Part:
    """One model's share of a stage."""

    stage: str
    name: str
    """Which of the stage's models; empty for its only or main one."""
    fits: tuple[Fit, ...]
    unit: str
    """What an example is, such as images."""
    apart: bool = False
    """Whether the fits are independent and run in processes of one thread each."""
    other_seconds: float = 0.0
    """Work of this part on this machine that is no training, such as tokenising."""
