"""The change in each metric of two releases, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from graftline.releases.chain import ReleaseChain
from graftline.score import primary_name, told_scores

_ENDS = ("_low", "_high")
_PAIRED = "champion_difference"


@dataclass(frozen=True)
class MetricChange:
    """One metric before and after; None where it was not measured."""

    name: str
    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    """Lower end of the difference's 95% interval; None if the metric has no interval."""
    high: float | None
    method: str
    """paired, independent, or empty without an interval."""
    higher: bool | None
    """Whether more of it is better; None where that is not known."""
    before_interval: tuple[float, float] | None
    after_interval: tuple[float, float] | None

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> str:
        """`better` or `worse` where that is sure, else empty."""
        if not self.significant or self.difference is None or self.higher is None:
            return ""
        return "better" if (self.difference > 0) == self.higher else "worse"


def metric_changes(a: ReleaseChain, b: ReleaseChain) -> tuple[tuple[MetricChange, ...], list[str]]:
    """Return the change of each metric, and what to say of how they compare.

    A difference's interval is from the two metrics' own as if they were independent: square and add, R. G. Newcombe,
    "Interval estimation for the difference between independent proportions", Statistics in Medicine 17 (1998), method
    10. On the same test rows that is too wide rather than too narrow. Where b was evaluated against a itself, the
    difference in the primary score is the paired one that evaluate measured.
    """
    of_a, of_b = a.manifest.get("metrics", {}), b.manifest.get("metrics", {})
    one, two = _numbers(of_a), _numbers(of_b)
    names = [n for n in {**one, **two} if not n.endswith(_ENDS) and not n.startswith("champion_")]
    notes = []
    champion = {"version": a.release.version, "digest": a.release.digest}
    paired = b.manifest.get("compared_with") == champion and f"{_PAIRED}_low" in two
    metrics = (*told_scores(of_a), *told_scores(of_b))
    higher = {told.name: told.higher for told in metrics}
    higher |= {name: True for name in names if name.startswith("lift_")}
    changes = [_change(name, one, two, higher.get(name)) for name in sorted(names)]
    if paired:
        changes = [_as_paired(change, two) if change.name == primary_name(of_b) else change for change in changes]
    if _test_rows(a) != _test_rows(b):
        notes.append("the two were measured on different test rows")
    return tuple(changes), notes


def _numbers(metrics: Any) -> dict[str, float]:
    return {
        str(name): value
        for name, value in dict(metrics).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _change(name: str, a: dict[str, float], b: dict[str, float], higher: bool | None) -> MetricChange:
    before, after, first, second = a.get(name), b.get(name), _interval(name, a), _interval(name, b)
    if before is None or after is None:
        return MetricChange(name, before, after, None, None, None, "", higher, first, second)
    difference = after - before
    if first is None or second is None:
        return MetricChange(name, before, after, difference, None, None, "", higher, first, second)
    low = difference - math.hypot(after - second[0], first[1] - before)
    high = difference + math.hypot(second[1] - after, before - first[0])
    return MetricChange(name, before, after, difference, low, high, "independent", higher, first, second)


def _as_paired(change: MetricChange, b: dict[str, float]) -> MetricChange:
    low, high = (b[_PAIRED + end] for end in _ENDS)
    return replace(change, difference=b[_PAIRED], low=low, high=high, method="paired")


def _interval(name: str, metrics: dict[str, float]) -> tuple[float, float] | None:
    low, high = (metrics.get(name + end) for end in _ENDS)
    return None if low is None or high is None else (low, high)


def _test_rows(chain: ReleaseChain) -> str | None:
    """Return the sha256 of the rows that a model was measured on, or of their whole data set."""
    dataset = chain.parts.get("dataset")
    if dataset is None:
        return None
    return next((file.sha256 for file in dataset.files if file.path == "test.parquet"), dataset.content)
