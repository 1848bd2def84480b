"""A public detector's own queries under the head detection: what they learn from, find, and open as."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_detectors
import small_scenes
from commands import Done, on_store

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.learning.distributed import World
from graftline.problems.detection.examples import Scenes
from graftline.problems.detection.parameters import DetectionParams
from graftline.problems.detection.problem import Detection
from graftline.problems.detection.queries import QueryDetector
from graftline.problems.model import load_model, read_facts
from graftline.values.boxes import Objects

SIDE = small_scenes.SIDE
STILL = DetectionParams.model_validate({"augmentation": {"shift": 0}})
RELEASED, HEART, STEPS = "yolos", "deformable_detr", 60
"""The kind that goes all the way to a release; and the one that learns scenes by heart, in so many steps."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def scenes(home: Path) -> Scenes:
    return Detection(STILL).read(small_scenes.dataset(home), "train", small_detectors.trunk(home, "detr"))


@pytest.fixture(scope="module")
def released(home: Path) -> Path:
    return small_detectors.released(home, RELEASED)


@pytest.fixture
def graftline(
    released: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    return on_store(released / "store", monkeypatch, capsys)


def built(home: Path, kind: str, *, scratch: bool = False, params: DetectionParams = STILL) -> QueryDetector:
    torch.manual_seed(0)
    schema = read_schema(small_scenes.dataset(home))
    model = Detection(params).build(small_detectors.trunk(home, kind), schema, scratch=scratch)
    assert isinstance(model, QueryDetector)
    return model


def crowded(scenes: Scenes) -> Scenes:
    """Return six scenes; all that is in the first, and one object of the second, are crowds."""
    some = scenes.take(torch.arange(6))
    objects = some.objects
    crowd = objects.crowd.copy()
    crowd[: objects.offsets[1] + 1] = True
    return replace(some, labels=replace(objects, crowd=crowd))


# What they learn from


@pytest.mark.parametrize("kind", small_detectors.KINDS)
def test_the_loss_is_transformers_own_and_the_processes_addends_are_it(kind: str, home: Path, scenes: Scenes) -> None:
    model, batch = built(home, kind).eval(), crowded(scenes)
    labels: list[dict[str, torch.Tensor]] = []
    for image in range(6):
        of = slice(*batch.objects.offsets[image : image + 2])
        single = ~batch.objects.crowd[of]
        x0, y0, x1, y1 = torch.from_numpy(batch.objects.boxes[of][single] / SIDE).T
        boxes = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=1)
        labels.append({"class_labels": torch.from_numpy(batch.objects.classes[of][single]), "boxes": boxes})
    assert len(labels[0]["boxes"]) == 0 < len(labels[2]["boxes"])
    whole = model.loss(batch, 0, 3).item()
    with torch.no_grad():
        assert whole == pytest.approx(model.trunk(torch.from_numpy(batch.pixels.numpy()), labels).loss.item(), rel=1e-5)
    addends = [model.loss(batch, 0, 3, World(rank, 4)).item() for rank in range(4)]
    assert len(set(addends)) == 4 and sum(addends) == pytest.approx(whole, rel=1e-5)
    assert model.answer(batch).loss == pytest.approx(whole, rel=1e-5)


def test_the_loss_is_a_pure_function_of_seed_and_step(home: Path, scenes: Scenes) -> None:
    model = built(home, "rt_detr", params=DetectionParams()).train()
    batch = scenes.take(torch.arange(5))
    one = model.loss(batch, 0, 3).item()
    torch.rand(7)
    assert model.loss(batch, 0, 3).item() == one != model.loss(batch, 0, 4).item()


@pytest.mark.parametrize("kind", ["conditional_detr", "rt_detr_v2", "yolos"])
def test_both_arms_begin_with_equal_rows_of_the_new_classes_and_all_of_each_is_trained(
    kind: str, home: Path, scenes: Scenes
) -> None:
    trained, scratch = (built(home, kind, scratch=of) for of in (False, True))
    rows = {name for name, of in trained.named_parameters() if any(of is one for one in trained.head_parameters())}
    assert rows and len(rows) + len(trained.trunk_parameters()) == len(list(trained.parameters()))
    one, other = trained.state_dict(), scratch.state_dict()
    assert all(torch.equal(one[name][:2], other[name][:2]) for name in rows), "0 and 1; of 7 the checkpoint knows"
    backbone = next(name for name, of in one.items() if "embed" in name and of.ndim == 4)
    assert not torch.equal(one[backbone], other[backbone])
    trained.loss(scenes.take(torch.arange(4)), 0, 0).backward()
    gradients = dict(trained.named_parameters())
    learned = {name for name, of in gradients.items() if of.grad is not None and bool(of.grad.any())}
    assert rows | {backbone} <= learned
    trained.freeze_trunk()
    assert not trained.trunk_parameters() and not trained.train().trunk.training
    assert {name for name, of in trained.named_parameters() if of.requires_grad} == rows


def test_a_few_scenes_are_learned_by_heart(home: Path, scenes: Scenes) -> None:
    model, few = built(home, HEART), scenes.take(torch.arange(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(STEPS):
        model.train()
        optimizer.zero_grad()
        loss = model.loss(few, 0, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert model.answer(few).value > 0.2


def test_images_without_objects_teach_that_there_are_none(home: Path, scenes: Scenes) -> None:
    empty = Objects(np.zeros(5, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    none = Scenes(scenes.pixels.take(np.arange(4)), empty, torch.arange(4))
    for kind in ("detr", "rt_detr"):
        model = built(home, kind)
        model.begin(none)
        loss = model.loss(none, 0, 0)
        loss.backward()
        assert np.isfinite(loss.item())
        assert all(of.grad is not None and bool(of.grad.any()) for of in model.head_parameters())
        assert len(model.answer(none)) == 4 and np.isnan(model.answer(none).value)


def test_it_computes_in_bfloat16_too(home: Path, scenes: Scenes) -> None:
    narrow = STILL.model_copy(update={"precision": "bfloat16"})
    batch = scenes.take(torch.arange(4))
    for kind in ("deformable_detr", "yolos"):
        loss = built(home, kind, params=narrow).loss(batch, 0, 0)
        loss.backward()
        assert loss.item() == pytest.approx(built(home, kind).loss(batch, 0, 0).item(), rel=0.2), kind


# What comes out


def test_a_task_goes_all_the_way_with_its_own_score_and_report(released: Path) -> None:
    metrics = json.loads((released / "evaluation/metrics.json").read_text())
    assert metrics["primary"] == "ap50" and {"ap50", "ap", "recall"} <= set(metrics["scores"])
    assert "lift_20" in metrics
    sections = json.loads((released / "evaluation/sections.json").read_text())
    assert all((released / "evaluation" / one["picture"]).is_file() for one in sections if one["picture"])
    test = pq.read_table(released / "evaluation/predictions.parquet").to_pylist()
    assert len(test) == metrics["n_test"] and all(len(row["predicted_boxes"]) <= 12 for row in test)


def test_predict_tells_boxes_in_pixels_of_the_picture_that_was_asked_about(
    graftline: Callable[..., Done], released: Path, home: Path, tmp_path: Path
) -> None:
    pixels = Detection(STILL).read(small_scenes.dataset(home), "test", released / "model").pixels[:1]
    small_picture = Image.fromarray((pixels[0, 0] * 255).round().astype(np.uint8))
    model = load_model(released / "model")
    assert isinstance(model, QueryDetector) and model.threshold == read_facts(released / "model")["threshold"]
    (tmp_path / "asked").mkdir()
    small_picture.save(tmp_path / "asked/0.png")
    small_picture.resize((3 * SIDE, 2 * SIDE), Image.Resampling.NEAREST).save(tmp_path / "asked/1.png")
    code, out, error = graftline("predict", "digits@1", tmp_path / "asked", "--json", "--draw", tmp_path / "drawn")
    assert code == 0 and "1 picture: scaled to the size" in error
    one, large = json.loads(out)
    assert large["size"] == [2 * SIDE, 3 * SIDE] and one["size"] == [SIDE, SIDE]
    (found,) = model.see(Detection(STILL).read(small_scenes.dataset(home), "test", released / "model").pixels.take([0]))
    given = found.found.probabilities >= model.threshold
    assert len(one["objects"]) == given.sum()
    for told, box in zip(one["objects"], found.found.boxes[given], strict=True):
        assert told["class"] in small_scenes.DIGITS and told["box"] == pytest.approx(box.tolist(), abs=0.01)
    assert len(list((tmp_path / "drawn").iterdir())) == 2


def test_a_release_opens_with_transformers_alone_and_finds_the_same_boxes(released: Path, home: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder = released / "model"
    pixels = Detection(STILL).read(small_scenes.dataset(home), "test", folder).pixels.take([3])
    picture = Image.fromarray((pixels.numpy()[0, 0] * 255).round().astype(np.uint8)).convert("RGB")
    theirs = AutoModelForObjectDetection.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    assert all(type(one).__module__.startswith("transformers.") for one in (theirs, processor))
    with torch.no_grad():
        said = theirs(**processor(picture, return_tensors="pt"))
    (found,) = processor.post_process_object_detection(said, threshold=0.01, target_sizes=[(SIDE, SIDE)])
    assert list(theirs.config.id2label.values()) == list(small_scenes.DIGITS)
    model = load_model(folder)
    assert isinstance(model, QueryDetector)
    (own,) = model.see(pixels)
    scores, boxes, classes = (found[name].numpy() for name in ("scores", "boxes", "labels"))
    best = np.argsort(-scores, kind="stable")
    assert len(best) == small_detectors.QUERIES
    np.testing.assert_allclose(own.found.probabilities, scores[best], atol=1e-5)
    np.testing.assert_allclose(own.found.boxes, boxes[best].clip(0, SIDE), atol=1e-3)
    assert own.found.classes.tolist() == classes[best].tolist()


def test_more_than_a_hundred_boxes_of_an_image_are_told_where_more_are_asked_for(home: Path, scenes: Scenes) -> None:
    trunk = built(home, "deformable_detr").eval().trunk
    trunk.lay_classes([f"class {number}" for number in range(10)])
    with torch.no_grad():
        said = trunk(torch.from_numpy(scenes.pixels[:1]))
    assert [len(trunk.boxes(said, 0.0, most)[0]["scores"]) for most in (10, 1000)] == [10, 10 * small_detectors.QUERIES]


# What is wrong


@pytest.mark.parametrize(("name", "value"), [("prototypes", 4), ("stride", 8), ("width", 32), ("overlap", 0.9)])
def test_what_the_dense_head_alone_has_is_refused(name: str, value: Any, home: Path) -> None:
    with pytest.raises(InputError, match=rf"finetune\.head\.{name}: {value} on a detector_rootstock, .* without masks"):
        built(home, "detr", params=STILL.model_copy(update={name: value}))


def test_rows_with_weights_and_more_objects_than_queries_are_refused(home: Path, scenes: Scenes) -> None:
    model, batch = built(home, "detr"), scenes.take(torch.arange(3))
    with pytest.raises(InputError, match="rows with weights on a detector_rootstock"):
        model.loss(batch.weighted(torch.ones(3)), 0, 0)
    many = Objects(
        np.array([0, 13]),
        np.tile(np.array([[0, 0, 9, 9]], np.float32), (13, 1)),
        np.zeros(13, np.int64),
        np.zeros(13, bool),
    )
    with pytest.raises(InputError, match="row 7: 13 objects in an image; expected at most 12, the model's queries"):
        model.begin(Scenes(scenes.pixels.take(np.arange(1)), many, torch.tensor([7])))


def test_there_is_no_objective_to_go_on_with(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"finetune": {"head": {"name": "detection"}, "joint_weight": 0.5, "epochs": 1}}
    inputs = {"in_dataset": small_scenes.dataset(home), "in_trunk": small_detectors.trunk(home, "detr")}
    assert small.run("finetune", document, **inputs, out_model=tmp_path / "model") == 2
    error = capsys.readouterr().err
    assert "finetune.joint_weight: a trunk that is a public detector, which no objective made" in error
    assert "Traceback" not in error and not (tmp_path / "model").exists()
