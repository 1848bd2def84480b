"""One point of a cluster: what was found, what is needed, what to do.

A point is `wrong` if a run would fail, wait for ever, or be open to what the manifests shut off. It is a `note` if runs
work and something is lost. A point that could not be looked at is `unknown`; it counts as wrong only where nothing
else would show it before a run does (`essential`): Kubernetes, Kubeflow Pipelines, the namespace, the store from here,
and the pod, where one was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from graftline.errors import EXIT_INPUT

State = Literal["ok", "note", "wrong", "unknown", "skipped"]


@dataclass(frozen=True)
class Point:
    """What is said of one point."""

    name: str
    state: State
    found: str
    needed: str = ""
    do: str = ""
    essential: bool = False
    """Whether it counts as wrong if it is `unknown`."""

    @property
    def counts(self) -> bool:
        """Whether it makes the cluster wrong."""
        return self.state == "wrong" or (self.state == "unknown" and self.essential)


def judged(name: str, problems: Iterable[str], fine: str, needed: str, do: str) -> Point:
    """Return a point that is wrong if there are `problems`, and says `fine` if there are none."""
    said = "; ".join(problems)
    return Point(name, "wrong", said, needed, do) if said else Point(name, "ok", fine, needed)


def exit_code(points: Iterable[Point]) -> int:
    """Return 0, or 2 if any point makes the cluster wrong."""
    return EXIT_INPUT if any(point.counts for point in points) else 0
