"""The pictures of answers that choose a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.plots import ACCENT, INK, MUTED, WARN, cut, figure, legend, place_image, plain, save, sheet
from graftline.score import Integers, RowStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from graftline.problems.classes import ClassAnswers

NUMBERED_CLASSES = 30  # with more classes the numbers in the cells cannot be read
_CAPTION, _LINE = 12, 14
"""Letters an inch above a picture, in one line; and in a line in the smaller size of two."""
_TITLE, _ABOVE, _BELOW = 0.35, 0.3, 0.25
"""Of the title of a picture of pictures, and of what stands above and below one in it: inches."""
_NAME, _LEAST = 24, 5.0
"""Letters of a class beside its row, and their least size in points."""


def plot_reliability(measured: RowStatistics, path: Path) -> None:
    """Draw accuracy against confidence, and below it how many answers each bin holds (log scale).

    Args:
        measured: what `calibration_rows` returned.
        path: of the PNG.
    """
    plot = figure(5.2, 4.8)
    top, below = plot.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    counts, confidence, right = np.split(measured.weighed.sum(axis=0), 3)
    bins, filled = len(counts), counts > 0
    centres = (np.arange(bins) + 0.5) / bins
    accuracy, confidence = (part / np.maximum(counts, 1) for part in (right, confidence))
    top.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1, label="perfect calibration")
    top.bar(centres[filled], accuracy[filled], 0.9 / bins, color=ACCENT, label="accuracy in the bin")
    top.plot(
        confidence[filled], accuracy[filled], "o", color=WARN, markersize=4,
        label="at the bin's mean confidence",
    )  # fmt: skip
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy", title=f"Calibration error {measured.value:.2%}")
    below.bar(centres[filled], counts[filled], 0.9 / bins, color=MUTED)
    below.set_yscale("log")
    below.set(xlabel="confidence", ylabel="answers", ylim=(0.7, counts.max() * 2))
    legend(plot, columns=2)
    save(plot, path)


def plot_risk(answered: np.ndarray, wrong: np.ndarray, path: Path) -> None:
    """Draw the (n,) shares of wrong answers among the surest, by the (n,) shares that are answered."""
    plot = figure(5.2, 3.4)
    axes = plot.subplots()
    axes.plot(answered, wrong, color=ACCENT, linewidth=1.8)
    axes.axvline(0.8, color=MUTED, linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1.01), ylim=(0, None), xlabel="share answered, the surest first", ylabel="share wrong")
    axes.set_title("Risk and coverage")
    save(plot, path)


def plot_confusion(matrix: Integers, classes: list[str], path: Path) -> None:
    """Draw the shares of each actual class, right ones in green and wrong ones in red, with the counts."""
    names = [plain(cut(name, _NAME)) for name in classes]
    margin = 1.4 + 0.07 * max(0, max(map(len, names)) - 12)
    size = min(max(4.4, margin + 0.4 * len(classes)), 12)
    cell = 72 * (size - margin) / len(classes)  # points
    plot = figure(size, size)
    axes = plot.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(_confusion_colours(shares))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    every = math.ceil(_LEAST / cell)
    ticks, letters = range(0, len(classes), every), min(9.0, max(_LEAST, 0.8 * cell))
    short = max(map(len, names)) < 4
    slanted: dict[str, Any] = {} if short else {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(ticks, names[::every], fontsize=letters, **slanted)
    axes.set_yticks(ticks, names[::every], fontsize=letters)
    axes.tick_params(length=0)
    right = int(np.trace(matrix))
    axes.set(xlabel="predicted", ylabel="actual", title=f"{right:,} of {int(matrix.sum()):,} right")
    if len(classes) <= NUMBERED_CLASSES:
        _write_counts(axes, matrix, shares, cell)
    save(plot, path)


def _confusion_colours(shares: np.ndarray) -> np.ndarray:
    """Return an RGB picture: the diagonal from white to green by share, the rest from white to red.

    Mistakes are scaled to the largest of them: on the diagonal's scale a good model's would be invisible.
    """
    from matplotlib.colors import to_rgb

    diagonal = np.eye(len(shares), dtype=bool)
    worst = max(float(shares[~diagonal].max(initial=0)), 1e-9)
    mistakes = np.where(shares > 0, 0.2 + 0.65 * shares / worst, 0)
    strength = np.where(diagonal, shares, mistakes)[..., None]
    target = np.where(diagonal[..., None], to_rgb(ACCENT), to_rgb(WARN))
    blank = np.array(to_rgb("#f7f9fa"))
    colours: np.ndarray = blank + strength * (target - blank)
    return colours


def _write_counts(axes: Axes, matrix: Integers, shares: np.ndarray, cell: float) -> None:
    from matplotlib.colors import rgb_to_hsv

    dark = rgb_to_hsv(_confusion_colours(shares))[..., 1] > 0.4
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if dark[row, column] else INK
            size = min(8.0, cell / (0.65 * len(f"{count}")))
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=size)


def plot_mistakes(pictures: np.ndarray, answers: ClassAnswers, worst: Integers, classes: list[str], path: Path) -> None:
    """Draw the most confident wrong answers: the picture, actual and predicted class, confidence.

    Args:
        pictures: (k, channels, height, width) of the rows to draw.
        answers: on all test rows.
        worst: (k,) positions of the rows to draw, most confident first.
        classes: the classes' names.
        path: of the PNG.
    """
    wrong = int((~answers.correct).sum())
    below = [
        (f"{classes[answers.labels[row]]} → {classes[answers.predicted[row]]}", f"{answers.confidence[row]:.1%}")
        for row in worst
    ]
    plot_images(pictures, below, _mistakes_title(len(worst), wrong), path)


def plot_images(
    pixels: np.ndarray, captions: Sequence[tuple[str, str]], title: str, path: Path,
    *, columns: int = 8, width: float = 1.0, height: float = 1.5,
) -> None:  # fmt: skip
    """Draw pictures in a grid.

    Args:
        pixels: (k, channels, height, width).
        captions: the line above each picture, and the one below it, which may be empty.
        title: of all.
        path: of the PNG.
        columns: pictures side by side.
        width: of a picture with its margins, in inches.
        height: of a picture with its lines, in inches.
    """
    lines = max(1, -(-len(pixels) // columns))
    plot, axes = sheet(width * columns, height * lines + _TITLE)
    axes.text(0.08, 0.05, title, va="top", fontsize=11, fontweight="bold")
    for place, (picture, (above, below)) in enumerate(zip(pixels, captions, strict=False)):
        line, column = divmod(place, columns)
        box = width * column + 0.04, _TITLE + height * line + _ABOVE, width - 0.08, height - _ABOVE - _BELOW
        top, bottom = place_image(axes, picture, box, ink=True)
        fitted, size = fit_caption(above, inches=width)
        middle: dict[str, Any] = {"x": width * (column + 0.5), "ha": "center"}
        axes.text(y=top - 0.04, s=fitted, va="bottom", fontsize=size, fontweight="bold", color=WARN, **middle)
        if below:
            axes.text(y=bottom + 0.04, s=plain(cut(below, 18)), va="top", fontsize=8, **middle)
    save(plot, path)


def fit_caption(caption: str, inches: float = 1.0) -> tuple[str, int]:
    """Return `actual → predicted` as it fits above a picture, and its size in points: long names in two lines, cut."""
    if len(caption) <= _CAPTION * inches:
        return plain(caption), 10
    return plain(" →\n".join(cut(line, int(_LINE * inches)) for line in caption.split(" → "))), 7


def _mistakes_title(shown: int, wrong: int) -> str:
    if not wrong:
        return "No mistakes"
    which = "All" if shown == wrong else f"The {shown} most confident of"
    return f"{which} {wrong} mistakes: actual → predicted, confidence"
