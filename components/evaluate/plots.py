"""The picture of the lift."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graftline.plots import ACCENT, INK, MUTED, figure, legend, save
from graftline.tasks.evaluate import ALL

if TYPE_CHECKING:
    from graftline.evaluation.lift import Lift


def plot_lift(lift: Lift, path: Path) -> None:
    """Draw both arms' score by labels a class (log scale), with 95% intervals and the lift in points."""
    plot = figure(6.4, 4.0)
    axes = plot.subplots()
    points = sorted(lift.points, key=lambda point: point.size)
    sizes = np.array([point.size for point in points])
    for arm, colour, shift, label in (
        ("scratch", MUTED, 0.985, "from scratch"),
        ("trunk", ACCENT, 1.015, "from the pretrained trunk"),
    ):
        estimates = [point.arm(arm) for point in points]
        values = np.array([estimate.value for estimate in estimates])
        ends = np.clip([(e.low, e.high) for e in estimates], lift.score.lowest, lift.score.highest).T
        spread = np.abs(ends - values)
        axes.errorbar(
            sizes * shift, values, spread, color=colour, marker="o", markersize=5, capsize=3, linewidth=1.8, label=label
        )
    scale, unit = (100, ", in points") if lift.score.share else (1, "")
    for point in points:
        top = min(lift.score.highest, max(point.arm("trunk").high, point.arm("scratch").high))
        sure = point.lift.low > 0 or point.lift.high < 0
        axes.annotate(
            f"{scale * point.lift.value:+.1f}",
            (point.size, top),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            color=INK if sure else MUTED,
            fontweight="bold" if sure else "normal",
        )
    axes.set_xscale("log")
    axes.set_xticks(sizes, [_tick(point.name, point.size) for point in points])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.12)
    if len(points) == 1:  # or the shift between the arms would be as wide as the picture
        axes.set_xlim(sizes[0] / 2, sizes[0] * 2)
    axes.set(xlabel=lift.amount, ylabel=f"test {lift.score.title}", title=f"Lift of pretraining{unit}")
    legend(plot, note=f"mean and 95% t interval of {lift.seeds} paired seeds; a bold lift's own interval excludes 0")
    save(plot, path)


def _tick(name: str, size: float) -> str:
    return f"all ({size:.0f})" if name == ALL else name
