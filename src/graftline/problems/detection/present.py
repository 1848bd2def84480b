"""What a person is shown of boxes: images with true and found ones, precision against recall, and who is missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graftline.dataset import Schema
from graftline.plots import ACCENT, INK, MUTED, WARN, figure, legend, plain, save, show_image
from graftline.problems.detection.answers import SceneAnswers
from graftline.problems.detection.boxes import areas, images_of
from graftline.problems.detection.scores import AP, FOUND_IOU, IGNORED, THRESHOLDS, AveragePrecision
from graftline.problems.sections import Section, write_sections
from graftline.values.pixels import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
_SHOWN = 12
"""Images of each kind, at most."""
_CAPTION = 0.05
"""Height of a caption, as a share of a picture's."""
_CURVES = (0, 5)
"""Of the thresholds of AP: IoU 0.5 and 0.75."""
_SIZES = 3
_COLOURS = f"Found objects are green, missed ones dashed, wrong boxes orange; right at an IoU of {FOUND_IOU}."


def write(answers: SceneAnswers, pixels: Pixels, schema: Schema, out: Path, mistakes: int) -> None:
    """Write scenes.png, worst.png, precision.png, and the report's sections about the test images."""
    names = [str(name) for name in schema.classes]
    wrong = _wrong(answers)
    worst = np.argsort(-wrong, kind="stable")[: min(mistakes, _SHOWN)]
    some = np.arange(len(answers))[:: max(1, len(answers) // _SHOWN)][:_SHOWN]
    _plot(answers, pixels, worst, names, out / "worst.png")
    _plot(answers, pixels, some, names, out / "scenes.png")
    _plot_curves(answers, out / "precision.png")
    note = f"{int((wrong > 0).sum()):,} of {len(answers):,} images have an object that is missed or a wrong box."
    write_sections(
        [
            Section("Worst images", f"{note} {_COLOURS}", "worst.png", "Images with most objects missed or wrong"),
            Section("Images", f"Some of the test images. {_COLOURS}", "scenes.png", "Images with true and found boxes"),
            Section(
                "Precision and recall", "Of all classes' boxes together, as the probability from which on they count "
                "falls.", "precision.png", "Precision against recall at two IoUs",
            ),
            Section(
                "By size", "Objects by the square root of their boxes' area, in thirds, and how many are found.",
                header=("pixels", "objects", "found", "recall"), lines=tuple(_sizes(answers)),
            ),
            Section(
                "By class", f"Boxes of a probability of {answers.threshold:.3g} and more are answers.",
                header=("class", "objects", "recall", "answers", "precision"), lines=tuple(_classes(answers, names)),
            ),
        ],
        out,
    )  # fmt: skip


def draw(pixels: np.ndarray, boxes: np.ndarray, captions: Sequence[str], path: Path) -> None:
    """Write a picture of (channels, height, width) pixels with (m, 4) boxes and what each is."""
    height, width = pixels.shape[1:]
    scale = 6 / max(height, width)
    plot = figure(max(1.5, width * scale), max(1.5, height * scale))
    axes = plot.subplots()
    _show(axes, pixels)
    for box, caption in zip(boxes, captions, strict=True):
        _box(axes, box, ACCENT, caption)
    save(plot, path)


def _wrong(answers: SceneAnswers) -> np.ndarray:
    """Return (n,) how many objects of each image are missed, and boxes wrong."""
    single = ~answers.true.crowd
    missed = np.bincount(images_of(answers.true.offsets)[single & ~answers.hit], minlength=len(answers))
    found: np.ndarray = missed + np.bincount(answers.found.images[answers.false], minlength=len(answers))
    return found


def _plot(answers: SceneAnswers, pixels: Pixels, chosen: np.ndarray, names: list[str], path: Path) -> None:
    lines = max(1, -(-len(chosen) // COLUMNS))
    height, width = pixels.shape[2:]
    plot = figure(2.2 * COLUMNS, 2.2 * lines * min(2.0, max(0.5, height / width)) + 0.2)
    grid = plot.subplots(lines, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid.flat, chosen.tolist(), strict=False):
        _show(axes, pixels[[image]][0])
        for box, colour, dashed, caption in _marks(answers, image, names):
            _box(axes, box, colour, caption, dashed=dashed)
    save(plot, path)


def _marks(answers: SceneAnswers, image: int, names: list[str]) -> Iterator[tuple[np.ndarray, str, bool, str]]:
    """Yield box, colour, whether it is dashed, and what it is, of what is to be seen in an image."""
    true, found = answers.true, answers.found
    for place in range(*true.offsets[image : image + 2].tolist()):
        if not answers.hit[place] and not true.crowd[place]:
            yield true.boxes[place], WARN, True, names[true.classes[place]] if len(names) > 1 else ""
    of = found.of(image)
    for place in range(of.start, of.stop):
        if answers.given[place]:
            name = f"{names[found.classes[place]]} " if len(names) > 1 else ""
            caption = f"{name}{found.probabilities[place]:.0%}"
            yield found.boxes[place], WARN if answers.false[place] else ACCENT, False, caption


def _show(axes: Axes, pixels: np.ndarray) -> None:
    height, width = pixels.shape[1:]
    show_image(axes, pixels)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()


def _box(axes: Axes, box: np.ndarray, colour: str, caption: str, *, dashed: bool = False) -> None:
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = (float(side) - 0.5 for side in box)  # a picture's first pixel is drawn around 0
    style = "--" if dashed else "-"
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.4, linestyle=style))
    if caption:
        bottom, top = axes.get_ylim()
        least = _CAPTION * (bottom - top)
        if dashed:
            y, align = y1, "top" if y1 + least <= bottom else "bottom"
        else:
            y, align = y0, "bottom" if y0 - least >= top else "top"  # inside, where outside is the next picture
        axes.text(
            x0, y, plain(caption), fontsize=6, color="white", va=align,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def _plot_curves(answers: SceneAnswers, path: Path) -> None:
    measured = answers.statistics(AP)
    assert isinstance(measured, AveragePrecision)
    plot = figure(5.2, 4.0)
    axes = plot.subplots()
    for column, colour in zip(_CURVES, (ACCENT, MUTED), strict=True):
        axes.plot(*measured.curve(column), color=colour, label=f"IoU {THRESHOLDS[AP][column]:g}")
    given = int(answers.given.sum())
    at = int((measured.matched[:given, _CURVES[0]] != IGNORED).sum()) - 1  # a curve is of those that count
    if at >= 0:
        recall, precision = measured.curve(_CURVES[0])
        axes.plot(recall[at], precision[at], "o", color=INK, label=f"probability {answers.threshold:.3g}")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    legend(plot)
    save(plot, path)


def _sizes(answers: SceneAnswers) -> Iterator[tuple[str, ...]]:
    single = ~answers.true.crowd
    sides, hit = np.sqrt(areas(answers.true.boxes[single])), answers.hit[single]
    order = np.argsort(sides, kind="stable")
    for part in np.array_split(order, _SIZES):
        if len(part):
            found = int(hit[part].sum())
            low, high = sides[part].min(), sides[part].max()
            yield f"{low:.0f} to {high:.0f}", f"{len(part):,}", f"{found:,}", f"{found / len(part):.1%}"


def _classes(answers: SceneAnswers, names: list[str]) -> Iterator[tuple[str, ...]]:
    single = ~answers.true.crowd
    for number, name in enumerate(names):
        true = single & (answers.true.classes == number)
        given = answers.given & (answers.found.classes == number) & ((answers.matched >= 0) | answers.false)
        objects, found, right = int(true.sum()), int(given.sum()), int((given & ~answers.false).sum())
        recall = f"{answers.hit[true].mean():.1%}" if objects else ""
        yield name, f"{objects:,}", recall, f"{found:,}", f"{right / found:.1%}" if found else ""
