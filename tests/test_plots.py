"""Pictures of the report: nothing covers what is drawn, and no name is cut by the picture's edge or by another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from graftline import plots
from graftline.components.evaluate.plots import plot_lift
from graftline.evaluation.budget import Trained, plot_budget
from graftline.evaluation.lift import Lift, Point
from graftline.problems import pictures
from graftline.problems.detection import present
from graftline.problems.scores import calibration_rows
from graftline.score import Estimate, Score
from graftline.trunks.plots import image_rows

ACCURACY = Score("accuracy", "accuracy")
NAMES = ["Smileys & Emotion", "no formula: $_{ and $", "a name of very many letters " * 9, "x"]


def _near(value: float) -> Estimate:
    return Estimate(value, value - 0.05, value + 0.05)


def _reliability(path: Path) -> None:
    """Every bin is full: there is no free corner."""
    confidence = (np.arange(150) + 0.5) / 150
    pictures.plot_reliability(calibration_rows(np.arange(150), confidence, np.ones(150, dtype=bool)), path)


def _lift(path: Path) -> None:
    """The arms end in all four corners."""
    given = (("5", 5.0, 0.9, 0.1), ("50", 50.0, 0.5, 0.5), ("all", 480.0, 0.9, 0.1))
    points = [Point(name, size, _near(high), _near(low), _near(high - low)) for name, size, high, low in given]
    plot_lift(Lift([], points, 4, "labels a class", ACCURACY), path)


def _budget(path: Path) -> None:
    curves = [[(10**6, 4.0), (10**7, 3.0)], [(10**6, 3.0), (10**7, 4.0)]]
    found = [
        Trained(name, 1_200_000, 10**7, flops, curve, _near(value))
        for name, flops, curve, value in zip(("short", "main"), (10**13, 10**14), curves, (0.4, 0.6), strict=True)
    ]
    plot_budget(found, 10, "labels a class", ACCURACY, path)


def _loss(path: Path) -> None:
    lines = [{"step": step, "loss": 5 / step**0.1} for step in range(1, 200)]
    plots.loss_curve(lines, path, title="Pretraining loss", unit="nats", log=True)


def _confusion(classes: list[str]) -> Callable[[Path], None]:
    matrix = np.full((len(classes), len(classes)), 12_345)
    return lambda path: pictures.plot_confusion(matrix, classes, path)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    make = plots.figure

    def figure(*size: float) -> Figure:
        figures.append(make(*size))
        return figures[-1]

    for module in ("graftline.plots", "graftline.problems.pictures", "graftline.evaluation.budget",
                   "graftline.components.evaluate.plots", "graftline.problems.detection.present"):  # fmt: skip
        monkeypatch.setattr(f"{module}.figure", figure)
    return figures


@pytest.mark.parametrize("draw", [_reliability, _lift, _budget, _loss])
def test_a_legend_covers_nothing_that_is_drawn(
    draw: Callable[[Path], None], drawn: list[Figure], tmp_path: Path
) -> None:
    draw(tmp_path / "plot.png")
    (plot,) = drawn
    assert not [axes for axes in plot.axes if axes.get_legend()], "one inside the axes lies on some data or other"
    (legend,) = plot.legends
    box = legend.get_window_extent()
    for axes in plot.axes:
        assert not box.overlaps(axes.get_tightbbox())
    whole, (width, height) = plot.get_tightbbox(), plot.get_size_inches()
    assert min(whole.x0, whole.y0) >= 0 and whole.x1 <= width and whole.y1 <= height, "something is cut"


@pytest.mark.parametrize("classes", [NAMES, [f"class number {number}" for number in range(150)], ["a", "b"]])
def test_names_of_classes_stand_beside_one_another(classes: list[str], drawn: list[Figure], tmp_path: Path) -> None:
    _confusion(classes)(tmp_path / "plot.png")
    (plot,) = drawn
    (axes,) = plot.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(one.y0 >= other.y1 - 1 for one, other in pairwise(boxes)), "each ends where the next one begins"
    assert min(box.x0 for box in boxes) >= 0
    assert axes.bbox.width > 0.4 * plot.bbox.width, "names leave the matrix its room"


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 60), (3, 60, 20)])
def test_captions_stand_beside_pictures(shape: tuple[int, int, int], drawn: list[Figure], tmp_path: Path) -> None:
    captions = [("a → b", "90.0%"), (" → ".join(NAMES[:2]), "1.0%")] * 5
    pictures.plot_images(np.zeros((10, *shape)), captions, "Some mistakes", tmp_path / "plot.png")
    (axes,) = drawn[0].axes
    boxes = [image.get_window_extent() for image in axes.images]
    assert len(boxes) == 10 and all(box.width / box.height == pytest.approx(shape[2] / shape[1]) for box in boxes)
    assert not any(text.get_window_extent().overlaps(box) for text in axes.texts for box in boxes)
    for number, box in enumerate(boxes):
        others = [*boxes[:number], *boxes[number + 1 :]]
        assert box.x0 >= 0 and box.x1 <= drawn[0].bbox.width and not any(box.overlaps(other) for other in others)
    below = [text.get_window_extent() for text in axes.texts if text.get_text().endswith("%")]
    assert len(below) == 10 and all(box.y0 > 0 for box in below), "no line is cut"


def test_rows_of_pictures_have_their_names_beside_them(drawn: list[Figure], tmp_path: Path) -> None:
    image_rows({name: torch.rand(3, 1, 8, 8) for name in ("original", "masked", "restored")}, tmp_path / "plot.png")
    (axes,) = drawn[0].axes
    boxes = [image.get_window_extent() for image in axes.images]
    assert [text.get_text() for text in axes.texts] == ["original", "masked", "restored"]
    for text, first in zip(axes.texts, boxes[::3], strict=True):
        name = text.get_window_extent()
        assert name.x0 >= 0 and name.x1 <= first.x0 and abs((name.y0 + name.y1) - (first.y0 + first.y1)) < 4


def test_a_caption_of_a_box_is_no_formula(drawn: list[Figure], tmp_path: Path) -> None:
    present.draw(np.zeros((1, 9, 9)), np.array([[1.0, 1, 5, 5]]), [NAMES[1]], tmp_path / "boxes.png")
    assert drawn[0].axes[0].texts[0].get_text() == plots.plain(NAMES[1])


def test_a_loss_is_read_off_its_axes(drawn: list[Figure], tmp_path: Path) -> None:
    """Plain numbers, whole steps; and one step is a dot, where a line would be nothing."""
    _loss(tmp_path / "many.png")
    plots.loss_curve([{"step": 1, "loss": 5.0}], tmp_path / "one.png", title="Loss", unit="nats")
    many, one = (plot.axes[0] for plot in drawn)
    assert {"3", "4"} <= {label.get_text().strip("$").removeprefix(r"\mathdefault{").rstrip("}")
                          for label in many.get_yticklabels(which="both")}  # fmt: skip
    assert all(float(tick).is_integer() for axes in (many, one) for tick in axes.get_xticks())
    assert one.lines[1].get_marker() == "o"
