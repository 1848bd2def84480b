"""Average precision is that of COCO's own code, also of images that are drawn anew; matching, doubles, thresholds."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from graftline.problems.detection import present
from graftline.problems.detection.answers import SceneAnswers
from graftline.problems.detection.boxes import Found, offsets_of, overlaps, without_doubles
from graftline.problems.detection.scores import (
    AP,
    AP50,
    IGNORED,
    MASK_IOU,
    MISSED,
    PRECISION,
    RECALL,
    SCORES,
    AveragePrecision,
    best_threshold,
    matches,
)
from graftline.score import difference, estimate
from graftline.values.boxes import Objects

IMAGES, CLASSES = 40, 3


def objects(draw: np.random.Generator, counts: np.ndarray) -> Objects:
    count = int(counts.sum())
    low, sides = draw.uniform(0, 50, (count, 2)), draw.uniform(6, 30, (count, 2))
    boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
    return Objects(offsets_of(counts), boxes, draw.integers(0, CLASSES, count), draw.random(count) < 0.15)


@pytest.fixture(scope="module")
def made() -> tuple[Found, Objects]:
    """Return true boxes, some of them crowds, and found ones: two near each of them, and some that are nowhere."""
    draw = np.random.default_rng(0)
    true, more = objects(draw, draw.integers(0, 5, IMAGES)), objects(draw, draw.integers(0, 4, IMAGES))
    parts = []
    for image in range(IMAGES):
        of, away = slice(*true.offsets[image : image + 2]), slice(*more.offsets[image : image + 2])
        near = [true.boxes[of] + draw.normal(0, shift, true.boxes[of].shape) for shift in (1.5, 3)]
        boxes = np.concatenate([*near, more.boxes[away]]).astype(np.float32)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        classes = np.concatenate([true.classes[of], true.classes[of], more.classes[away]])
        probabilities = -np.sort(-draw.random(len(boxes)))
        parts.append(Found(offsets_of([len(boxes)]), boxes, classes, probabilities.astype(np.float32)))
    return Found.joined(parts), true


def by_coco(found: Found, true: Objects, drawn: np.ndarray) -> tuple[float, float]:
    """Return AP and AP at IoU 0.5 that pycocotools gives; image i counts drawn[i] times."""
    images: list[dict[str, int]] = []
    right, guessed = [], []
    for image in np.repeat(np.arange(len(true)), drawn).tolist():
        images.append({"id": len(images) + 1})
        for place in range(*true.offsets[image : image + 2].tolist()):
            x0, y0, x1, y1 = true.boxes[place].astype(float).tolist()
            right.append(
                {
                    "id": len(right) + 1, "image_id": len(images), "category_id": int(true.classes[place]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": int(true.crowd[place]),
                }
            )  # fmt: skip
        for place in range(found.of(image).start, found.of(image).stop):
            x0, y0, x1, y1 = found.boxes[place].astype(float).tolist()
            guessed.append(
                {
                    "image_id": len(images), "category_id": int(found.classes[place]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "score": float(found.probabilities[place]),
                }
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        whole = COCO()
        categories = [{"id": number} for number in range(CLASSES)]
        whole.dataset = {"images": images, "annotations": right, "categories": categories}
        whole.createIndex()
        asked = COCOeval(whole, whole.loadRes(guessed), "bbox")
        asked.evaluate()
        asked.accumulate()
        asked.summarize()
    return float(asked.stats[0]), float(asked.stats[1])


def test_average_precision_is_cocos_on_all_images_and_on_images_drawn_anew(made: tuple[Found, Objects]) -> None:
    found, true = made
    measured = [AveragePrecision.of(score, np.arange(IMAGES), found, true, CLASSES) for score in (AP, AP50)]
    draw = np.random.default_rng(1)
    drawn = [np.ones(IMAGES, int), *(np.bincount(draw.integers(0, IMAGES, IMAGES), minlength=IMAGES) for _ in range(3))]
    ours = np.stack([one.values(np.stack(drawn).astype(float)) for one in measured], axis=1)
    assert 0.1 < ours[0, 0] < ours[0, 1] < 0.95
    assert ours == pytest.approx(np.array([by_coco(found, true, of) for of in drawn]), abs=1e-6)


def test_its_interval_and_differences_are_those_of_images(made: tuple[Found, Objects]) -> None:
    found, true = made
    one = AveragePrecision.of(AP50, np.arange(IMAGES), found, true, CLASSES)
    interval = estimate(one, resamples=200, seed=0)
    assert interval.low < interval.value < interval.high
    assert difference(one, one, resamples=200, seed=0).value == 0
    worse = Found(found.offsets, found.boxes + 3, found.classes, found.probabilities)
    other = AveragePrecision.of(AP50, np.arange(IMAGES), worse, true, CLASSES)
    assert difference(one, other, resamples=200, seed=0).low > 0


def few(probabilities: list[float], boxes: list[list[float]]) -> Found:
    count = len(boxes)
    return Found(
        np.array([0, count]), np.array(boxes, np.float32).reshape(-1, 4), np.zeros(count, np.int64),
        np.array(probabilities, np.float32),
    )  # fmt: skip


def true_of(boxes: list[list[float]], crowd: list[bool] | None = None) -> Objects:
    return Objects(
        np.array([0, len(boxes)]), np.array(boxes, np.float32), np.zeros(len(boxes), np.int64),
        np.array(crowd or [False] * len(boxes)),
    )  # fmt: skip


def test_a_true_box_is_found_once_and_what_lies_in_a_crowd_is_neither_right_nor_wrong() -> None:
    true = true_of([[0, 0, 10, 10], [20, 20, 60, 60]], [False, True])
    found = few([0.9, 0.8, 0.7, 0.6], [[0, 0, 10, 9], [0, 0, 10, 10], [30, 30, 40, 40], [70, 0, 80, 10]])
    assert matches(found, true, np.array([0.5, 0.95])).T.tolist() == [
        [0, MISSED, IGNORED, MISSED],
        [MISSED, 0, IGNORED, MISSED],
    ]


def test_of_two_boxes_of_a_class_that_are_nearly_one_the_first_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [8, 0, 18, 10]], np.float32)
    assert overlaps(boxes[:1], boxes)[0] == pytest.approx([1, 0.9, 0.9, 1 / 9])
    assert without_doubles(boxes, np.array([0, 0, 1, 0]), 0.5).tolist() == [True, False, True, True]


def test_the_threshold_is_where_f1_is_largest() -> None:
    true = true_of([[0, 0, 10, 10], [20, 0, 30, 10]])
    found = few([0.9, 0.7, 0.5, 0.2], [[0, 0, 10, 10], [50, 0, 60, 10], [20, 0, 30, 10], [80, 0, 90, 9]])
    assert best_threshold(found, true) == pytest.approx(0.35)
    assert best_threshold(few([0.9], [[50, 0, 60, 10]]), true) is None


def test_recall_precision_and_masks_are_of_the_answers_alone() -> None:
    true = true_of([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [False, False, True])
    found = few([0.9, 0.7, 0.6, 0.2], [[0, 0, 10, 10], [60, 0, 70, 10], [42, 2, 48, 8], [20, 0, 30, 10]])
    ious = np.array([0.8, 0, 0])
    answers = SceneAnswers(SCORES, np.array([5]), 0.0, found, true, 1, 0.3, ious)
    assert answers.measured(RECALL).value == 0.5
    assert answers.measured(PRECISION).value == 0.5, "one right, one wrong, one in a crowd, one below the threshold"
    assert answers.measured(MASK_IOU).value == pytest.approx(0.4)
    assert answers.hit.tolist() == [True, False, False]
    assert answers.false.tolist() == [False, True, False, False]


def test_what_no_image_defines_is_not_a_number() -> None:
    nothing = few([], [])
    answers = SceneAnswers(SCORES, np.array([5]), 0.0, nothing, true_of([[0, 0, 9, 9]]), 1, 0.3)
    assert [answers.measured(score).value for score in (AP50, AP, RECALL)] == [0, 0, 0]
    assert np.isnan(answers.measured(PRECISION).value) and np.isnan(answers.measured(MASK_IOU).value)
    empty = SceneAnswers(SCORES, np.array([5]), 0.0, nothing, true_of([[0, 0, 9, 9]], [True]), 1, 0.3)
    assert np.isnan(empty.measured(AP50).value) and np.isnan(empty.measured(RECALL).value)


def test_the_dot_on_the_curve_is_where_the_answers_that_count_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plots: list[Any] = []
    monkeypatch.setattr(present, "save", lambda plot, path: plots.append(plot))
    true = true_of([[0, 0, 10, 10], [40, 0, 50, 10]], [False, True])
    found = few([0.9, 0.7, 0.1], [[40, 0, 50, 10], [0, 0, 10, 10], [60, 0, 70, 10]])
    for threshold in (0.5, 0.8):  # of the latter the only answer lies in a crowd
        answers = SceneAnswers(SCORES, np.array([5]), 0.0, found, true, 1, threshold)
        present._plot_curves(answers, tmp_path / "precision.png")
    dots = [[line.get_xydata().tolist() for line in plot.axes[0].lines[2:]] for plot in plots]
    assert dots == [[[[1, 1]]], []]
