"""Where the marks of a line chart go: numbers for the SVG that a template writes. Nothing here writes markup."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NEWEST = 120
"""Versions that a chart shows: of a longer history, the newest."""
_SIZE = (560, 190)
_MARGIN = (58, 10, 14, 30)
"""Pixels left, right, above and below the plot, for the labels of the axes."""


@dataclass(frozen=True)
class Sample:
    """What one release measured."""

    label: str
    """Under the x axis, such as a version."""
    note: str
    """For a pointer or a screen reader that rests on the mark."""
    link: str
    metrics: Mapping[str, float]
    marked: bool = False
    """Whether it was promoted when it was released."""


@dataclass(frozen=True)
class Mark:
    """One sample of one metric, in pixels."""

    x: float
    y: float
    low: float | None
    """Of the interval: where its lower end is drawn, below `y`."""
    high: float | None
    value: float
    sample: Sample


@dataclass(frozen=True)
class Chart:
    """One metric over the releases."""

    metric: str
    width: int
    height: int
    left: float
    right: float
    bottom: float
    marks: list[Mark]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    left_out: int
    """Older releases that measured this and are not drawn."""

    @property
    def line(self) -> str:
        return " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in self.marks)

    @property
    def band(self) -> str:
        """The area between the ends of the intervals, as the points of a polygon; empty if there are none."""
        known = [mark for mark in self.marks if mark.low is not None and mark.high is not None]
        if len(known) < 2:
            return ""
        above = [f"{mark.x:.1f},{mark.high:.1f}" for mark in known]
        below = [f"{mark.x:.1f},{mark.low:.1f}" for mark in reversed(known)]
        return " ".join(above + below)


def with_interval(metrics: Mapping[str, float], primary: str) -> list[str]:
    """Return the names that have an interval, `name_low` to `name_high`; the primary score first."""
    names = [name for name in metrics if f"{name}_low" in metrics and f"{name}_high" in metrics]
    return sorted(names, key=lambda name: (name != primary, natural(name)))


def without_interval(metrics: Mapping[str, float]) -> list[str]:
    """Return the other names, without the ends of intervals."""
    certain = set(with_interval(metrics, ""))
    ends = {f"{name}_{end}" for name in certain for end in ("low", "high")}
    return sorted((name for name in metrics if name not in ends | certain), key=natural)


def natural(name: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts lift_5 before lift_10."""
    parts = re.split(r"([0-9]{1,15})", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def draw(metric: str, samples: Sequence[Sample], size: tuple[int, int] = _SIZE) -> Chart | None:
    """Return the chart of `metric`, or None if no sample measured it."""
    measured = [sample for sample in samples if metric in sample.metrics]
    shown = measured[-NEWEST:]
    if not shown:
        return None
    width, height = size
    left, right, top, bottom = _MARGIN
    ticks = _ticks(*_range(metric, shown))
    across = _Scale(0, max(len(shown) - 1, 1), left + 8, width - right - 8)
    up = _Scale(ticks[0], ticks[-1], height - bottom, top)
    if len(shown) == 1:
        across = _Scale(-1, 1, left, width - right)
    return Chart(
        metric=metric,
        width=width,
        height=height,
        left=left,
        right=width - right,
        bottom=height - bottom,
        marks=[_mark(metric, sample, across(number), up) for number, sample in enumerate(shown)],
        x_ticks=[(across(number), shown[number].label) for number in _spread(len(shown))],
        y_ticks=[(up(tick), _shown(tick, ticks)) for tick in ticks],
        left_out=len(measured) - len(shown),
    )


def sparkline(metric: str, samples: Sequence[Sample]) -> str:
    """Return the points of a small line without axes, in a box of 120 by 28; empty for fewer than two."""
    values = [sample.metrics[metric] for sample in samples if metric in sample.metrics][-NEWEST:]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    across, up = _Scale(0, len(values) - 1, 3, 117), _Scale(low, high if high > low else low + 1, 25, 3)
    return " ".join(f"{across(number):.1f},{up(value):.1f}" for number, value in enumerate(values))


@dataclass(frozen=True)
class _Scale:
    """A straight line from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _mark(metric: str, sample: Sample, x: float, up: _Scale) -> Mark:
    low, high = sample.metrics.get(f"{metric}_low"), sample.metrics.get(f"{metric}_high")
    known = low is not None and high is not None
    return Mark(
        x=x,
        y=up(sample.metrics[metric]),
        low=up(low) if known and low is not None else None,
        high=up(high) if known and high is not None else None,
        value=sample.metrics[metric],
        sample=sample,
    )


def _range(metric: str, samples: Sequence[Sample]) -> tuple[float, float]:
    values = [
        sample.metrics[name]
        for sample in samples
        for name in (metric, f"{metric}_low", f"{metric}_high")
        if name in sample.metrics
    ]
    return min(values), max(values)


def _ticks(low: float, high: float) -> list[float]:
    """Return 3 to 7 round values that enclose the range: multiples of 1, 2 or 5 times a power of ten."""
    size = max(abs(low), abs(high))
    span = high - low if high - low > max(1e-9 * size, 1e-300) else size * 0.1 or 1.0
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    return [number * step for number in range(first, last + 1)]


def _shown(tick: float, ticks: list[float]) -> str:
    """Return a tick's label, with as many digits as tell it from its neighbours."""
    step = ticks[1] - ticks[0]
    if abs(tick) >= 1e6 or step < 1e-5:
        return f"{tick:.3g}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{tick:.{digits}f}"


def _spread(count: int, most: int = 8) -> list[int]:
    """Return at most `most` places among `count`, evenly spread, the last one always."""
    step = max(1, math.ceil(count / most))
    return sorted(range(count - 1, -1, -step))
