"""The verdict of a reproduction, and the work while it is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from graftline.audit.reproduce import checkouts
from graftline.audit.reproduce.checkouts import Checkout, Code
from graftline.canonical import canonical_json
from graftline.records.model import Record
from graftline.releases.catalogue import Release
from graftline.signing.envelope import seal
from graftline.signing.keyring import load_keyring
from graftline.store import Store
from graftline.times import utc_now

PAYLOAD_TYPE = "application/vnd.graftline.reproduction+json"
STEPS = {"dataset": "validate", "trunk": "pretrain", "model": "finetune", "evaluation": "evaluate"}
"""Each output in the order in which they are made, and the component that makes it."""
Verdict = Literal["identical", "within intervals", "diverged", "not sound", "impossible"]
"""Not sound: the release is not as its writers signed it, or holds what none of its steps made."""


@dataclass(frozen=True)
class StepCheck:
    """One output, or one thing from outside, as recorded and as it is now."""

    name: str
    recorded: str
    """sha256 of its content."""
    found: str | None
    """The same of what was made again; None: it was not made, or is not at hand."""
    seconds: float = 0.0
    differing: tuple[str, ...] = ()
    """The files of an output that differ, the first of them."""

    @property
    def same(self) -> bool:
        return self.recorded == self.found


@dataclass(frozen=True)
class MetricCheck:
    """A metric with an interval, as released and as measured again."""

    name: str
    released: float
    low: float
    high: float
    found: float

    @property
    def within(self) -> bool:
        return self.low <= self.found <= self.high


@dataclass
class Reproduction:
    """What came of it; `as_dict` is what is signed."""

    release: str
    manifest: str
    """The sha256 of the release's manifest; empty if the verdict is `not sound`, for then nothing vouches for one."""
    verdict: Verdict = "impossible"
    reasons: list[str] = field(default_factory=list)
    """Why it is so, in a line each."""
    first: str | None = None
    """The first step that differs."""
    conditions: list[str] = field(default_factory=list)
    """What is otherwise here than when the release was made."""
    steps: list[StepCheck] = field(default_factory=list)
    metrics: list[MetricCheck] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    at: str = field(default_factory=utc_now)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "steps": [asdict(step) | {"same": step.same} for step in self.steps],
            "metrics": [asdict(metric) | {"within": metric.within} for metric in self.metrics],
        }

    def sealed(self) -> bytes:
        """Return the verdict as a DSSE envelope signed with this machine's key."""
        return seal(canonical_json(self.as_dict()), PAYLOAD_TYPE, load_keyring().signer())


@dataclass
class Work:
    """One reproduction under way."""

    store: Store
    release: Release
    folder: Path
    on_event: Callable[[str], None]
    records: dict[str, Record]
    result: Reproduction
    checkouts: dict[Code, Checkout] = field(default_factory=dict)
    outputs: dict[str, Path] = field(default_factory=dict)

    def checkout(self, output: str) -> Checkout:
        code = Code.of(self.records[output])
        if code not in self.checkouts:
            folder = self.folder / f"checkout-{len(self.checkouts) + 1}"
            self.checkouts[code] = checkouts.check_out(code, folder)
            self.result.commits.append(str(code.commit))
        return self.checkouts[code]


def compare_metrics(released: Mapping[str, float], found: Mapping[str, float]) -> list[MetricCheck]:
    """Return each metric that the release gives with an interval (`name_low`, `name_high`), beside its new value."""
    return [
        MetricCheck(name, value, released[f"{name}_low"], released[f"{name}_high"], found.get(name, float("nan")))
        for name, value in sorted(released.items())
        if f"{name}_low" in released and f"{name}_high" in released
    ]
