"""The head detection, from scenes to a release: what it learns from, finds, says and writes.

What it learns here lies in tests/learning/small_scenes.py. tests/problems/test_detection_scores.py has its scores.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_numbers
import small_scenes
import torch
import torch.nn.functional as F
from commands import Done, on_store

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.learning.augment import draw
from graftline.learning.distributed import World
from graftline.learning.parameters import Augmentation
from graftline.learning.randomness import generator
from graftline.problems.detection.examples import Scenes
from graftline.problems.detection.head import Focal, generalised_iou, losses
from graftline.problems.detection.model import Detector
from graftline.problems.detection.parameters import DetectionParams
from graftline.problems.detection.problem import Detection
from graftline.problems.detection.targets import Grid, looked_up, masks_of, targets, warped, with_masks
from graftline.problems.model import load_model, read_facts
from graftline.values import rle
from graftline.values.boxes import Objects

SIDE = small_scenes.SIDE
PARAMS = DetectionParams.model_validate(small_scenes.HEAD)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def released(home: Path) -> Path:
    return small_scenes.released(home)


@pytest.fixture(scope="module")
def scenes(home: Path) -> Scenes:
    return Detection(PARAMS).read(small_scenes.dataset(home), "train", small_scenes.trunk(home, "conv"))


@pytest.fixture
def graftline(
    released: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    return on_store(released / "store", monkeypatch, capsys)


def built(home: Path, kind: str = "conv", *, scratch: bool = False, params: DetectionParams = PARAMS) -> Detector:
    torch.manual_seed(0)
    schema = read_schema(small_scenes.dataset(home))
    return Detection(params).build(small_scenes.trunk(home, kind), schema, scratch=scratch)


def of(boxes: list[list[float]], classes: list[int] | None = None, crowd: list[bool] | None = None) -> Objects:
    """Return the objects of one image."""
    return Objects(
        np.array([0, len(boxes)]), np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes or [0] * len(boxes), np.int64), np.array(crowd or [False] * len(boxes)),
    )  # fmt: skip


# What it learns from


def test_a_hill_is_on_the_map_of_its_class_and_its_places_learn_its_box() -> None:
    wanted = targets(of([[4, 4, 22, 30], [21, 21, 31, 31]], [1, 0]), 2, Grid.of(32, 32, 4))
    assert wanted.heat.shape == (1, 2, 8, 8)
    assert (wanted.heat == 1).nonzero().tolist() == [[0, 0, 6, 6], [0, 1, 4, 3]]
    assert wanted.middles.tolist() == [[0, 4, 3], [0, 6, 6]]
    assert wanted.heat[0, 1, :, 3].tolist() == sorted(wanted.heat[0, 1, :5, 3].tolist()) + sorted(
        wanted.heat[0, 1, 5:, 3].tolist(), reverse=True
    )
    assert wanted.heat[0, 1, 5, 3] > wanted.heat[0, 1, 4, 4] > 0, "the box is higher than wide, and so is the hill"
    first = wanted.boxes[:, 0] == 4
    assert wanted.shares[first].sum() == pytest.approx(1) and wanted.shares[~first].sum() == pytest.approx(1)


def test_a_place_on_two_hills_learns_the_box_of_the_higher_one() -> None:
    wanted = targets(of([[2, 2, 38, 38], [9, 9, 17, 17]]), 1, Grid.of(40, 40, 4))
    assert len(wanted.places.unique(dim=0)) == len(wanted.places)
    at = (wanted.places[:, 1:] == torch.tensor([3, 3])).all(dim=1)
    assert wanted.boxes[at].tolist() == [[9, 9, 17, 17]]


def test_a_crowd_is_no_object_and_what_is_said_of_its_places_does_not_count() -> None:
    wanted = targets(of([[0, 0, 16, 32]], crowd=[True]), 1, Grid.of(32, 32, 4))
    assert wanted.heat.max() == 0 and len(wanted.places) == 0
    assert wanted.counted[0, 0].tolist() == [[0] * 4 + [1] * 4] * 8


def test_an_object_that_a_crowd_reaches_over_is_learned_all_the_same() -> None:
    boxes = [[0.0, 0, 32, 32], [4, 4, 22, 14]]
    wanted = targets(of(boxes, crowd=[True, False]), 1, Grid.of(32, 48, 4))
    counted, hill = wanted.counted[0, 0], wanted.heat[0, 0]
    assert (hill == 1).nonzero().tolist() == [[2, 3]] and counted[2, 3] == 1, "its middle"
    assert len(wanted.places) > 1 and all(counted[row, column] for _, row, column in wanted.places)
    assert counted[5:, :8].sum() == 0 and counted[0, :8].sum() == 0, "the rest of the crowd"
    assert counted[:, 8:].all()


def test_boxes_and_masks_go_where_their_pixels_go() -> None:
    how = Augmentation(shift=6, scale=0.3, flip=0.5, crop=0.6)
    boxes = [[6.0, 10.0, 22.0, 34.0], [28.0, 4.0, 44.0, 40.0]]
    objects = Objects(
        np.arange(0, 41, 2), np.tile(np.array(boxes, np.float32), (20, 1)), np.zeros(40, np.int64), np.zeros(40, bool)
    )
    pixels, masks = torch.zeros(20, 2, SIDE, SIDE), np.zeros((40, SIDE, SIDE), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(np.array(boxes, int)):
        pixels[:, number, y0:y1, x0:x1] = 1
        masks[number::2, y0:y1, x0:x1] = 1
    changes = draw(how, generator(0, 0, "x"), 20, (2, SIDE, SIDE))
    seen = changes.apply(pixels, "black") > 0.5
    moved, stays = warped(objects, changes, SIDE, SIDE)
    assert 20 < len(moved.boxes) <= 40 and len(stays) == len(moved.boxes)
    maps = changes.maps.numpy()[np.repeat(np.arange(20), 2)[stays]]
    kept = torch.from_numpy(looked_up(masks[stays], *np.ogrid[: len(stays), :SIDE, :SIDE], maps))
    place = 0
    for image in range(20):
        for _ in range(int(moved.offsets[image + 1] - moved.offsets[image])):
            x0, y0, x1, y1 = moved.boxes[place]
            if moved.crowd[place]:  # hardly anything of it is left
                place += 1
                continue
            near = [torch.equal(kept[place] > 0, channel) for channel in seen[image]]
            assert any(near), "its mask is where its pixels are"
            rows, columns = (np.flatnonzero(kept[place].any(dim=axis)) for axis in (1, 0))
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(np.array(found) - [x0, y0, x1, y1]).max() < 1
            place += 1


def test_an_object_that_has_mostly_left_the_image_is_not_asked_for() -> None:
    still = draw(Augmentation(shift=0), generator(0, 0, "x"), 1, (1, SIDE, SIDE))
    still.maps[:, 0, 2] = 0.5  # what is a quarter of the width to the right comes here
    boxes = [[0, 0, 10, 20], [0, 0, 14, 20], [0, 24, 15, 48], [30, 0, 40, 20]]
    moved, stays = warped(of(boxes, crowd=[False, False, True, False]), still, SIDE, SIDE)
    left = [[0, 0, 2, 20], [0, 24, 3, 48], [18, 0, 28, 20]]
    assert [box.tolist() for box in moved.boxes] == [pytest.approx(box, abs=1e-4) for box in left]
    assert moved.crowd.tolist() == [True, True, False], "neither an object nor background"
    assert stays.tolist() == [1, 2, 3]


def test_of_masks_the_pixels_in_the_box_are_learned_each_object_alike(home: Path, scenes: Scenes) -> None:
    model = built(home)
    model.begin(scenes)
    objects = scenes.objects.take(np.arange(6))
    with torch.no_grad():
        model.head.output.bias.normal_()
    plain = targets(objects, len(small_scenes.DIGITS), model.head.grid)
    wanted = with_masks(plain, masks_of(objects, SIDE, SIDE), model.head.grid)
    found = []
    for whole in (False, True):
        if whole:
            said = model(torch.from_numpy(scenes.pixels[:6]))
            logits, inside = said.masks(plain.middles, plain.outlines)
            masks = torch.from_numpy(masks_of(objects, SIDE, SIDE)).float()
            each = F.binary_cross_entropy_with_logits(logits, masks, reduction="none") * inside
            mean = each.sum(dim=(1, 2)) / inside.sum(dim=(1, 2))
            loss = losses(said, plain).index_add(0, plain.middles[:, 0], mean)
        else:
            said = model(torch.from_numpy(scenes.pixels[:6]), wanted.cells)
            assert said.prototypes.shape[1] == 0, "not drawn where nobody looks"
            loss = losses(said, wanted)
        model.zero_grad()
        loss.sum().backward()
        found.append([loss.detach(), *(weights.grad.clone() for weights in model.head_parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert (losses(model(torch.from_numpy(scenes.pixels[:6])), plain) < found[0][0]).all(), "masks are part of it"


def test_the_gradient_of_the_heat_is_that_of_its_loss(scenes: Scenes, home: Path) -> None:
    wanted = targets(scenes.objects.take(np.arange(3)), len(small_scenes.DIGITS), Grid.of(SIDE, SIDE, 4))
    counted = (torch.rand(wanted.counted.shape, generator=generator(0, 0, "x")) > 0.2).double()
    heat = wanted.heat.double()
    logits = (torch.randn(heat.shape, generator=generator(0, 1, "x")) * 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda said: Focal.apply(said, heat, counted), logits)
    probability = logits.sigmoid()
    right = (1 - probability) ** 2 * probability.log()
    wrong = (1 - heat) ** 4 * probability**2 * (1 - probability).log()
    whole = -(torch.where(heat == 1, right, wrong) * counted).sum(dim=(1, 2, 3))  # CornerNet, eq. 1
    torch.testing.assert_close(Focal.apply(logits, heat, counted), whole)


def test_pixels_count_whose_middles_are_in_the_box_and_those_of_a_box_as_much_as_of_another() -> None:
    boxes = [[0.5, 1.2, 2.4, 2.6], [1.6, 0, 2.4, 3], [5, 2, 9, 9]]
    plain = targets(of(boxes), 1, Grid.of(6, 7, 4))
    masks = np.zeros((3, 6, 7), np.uint8)
    masks[0, 2, 1] = masks[2, :, 5] = 1
    learned = with_masks(plain, masks, Grid.of(6, 7, 4)).masks
    assert learned is not None
    found = []
    for (number, row, column), shares, wanted in zip(
        learned.cells.tolist(), learned.shares, learned.wanted, strict=True
    ):
        for place in shares.nonzero()[:, 0].tolist():
            at = (number, row * 4 + place // 4, column * 4 + place % 4)
            found.append((*at, round(1 / float(shares[place])), int(wanted[place])))
    first = [(0, y, x, 4, int((y, x) == (2, 1))) for y in (1, 2) for x in (0, 1)]
    last = [(2, y, x, 8, int(x == 5)) for y in (2, 3, 4, 5) for x in (5, 6)]
    assert sorted(found) == [*first, *last], "the second box is between the middles of pixels"


def test_pairs_of_boxes_are_worth_their_common_area_less_what_lies_between() -> None:
    one = torch.tensor([[0.0, 0, 10, 10]] * 3)
    other = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    assert generalised_iou(one, other).tolist() == pytest.approx([1, 1 / 3, -1 / 3])


def test_the_loss_is_a_pure_function_of_seed_and_step_and_the_processes_addends_are_it(
    home: Path, scenes: Scenes
) -> None:
    model = built(home).eval()
    model.begin(scenes)
    batch = scenes.take(torch.arange(9))
    whole = model.loss(batch, 0, 3).item()
    torch.rand(7)
    assert model.loss(batch, 0, 3).item() == whole
    assert model.loss(batch, 0, 4).item() != whole
    assert sum(model.loss(batch, 0, 3, World(rank, 2)).item() for rank in range(2)) == pytest.approx(whole, rel=1e-5)
    weighed = batch.weighted(torch.tensor([2.0, *[0.0] * 8]))
    first = model.loss(weighed, 0, 3).item()
    assert 0 < first < 2 * whole and first != whole


def test_heads_start_equal_on_a_trained_and_on_an_untrained_trunk(home: Path) -> None:
    one, other = built(home).state_dict(), built(home, scratch=True).state_dict()
    same = {name for name in one if torch.equal(one[name], other[name])}
    assert {name for name in one if name.startswith("head.")} <= same
    assert not any(name.startswith("trunk.convolutions.0") for name in same)


@pytest.mark.parametrize("kind", sorted(small_scenes.TRUNKS))
def test_trunk_and_head_learn_from_the_first_steps(kind: str, home: Path, scenes: Scenes) -> None:
    model = built(home, kind)
    model.begin(scenes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(2):  # the last layer starts at zero, which no gradient passes
        optimizer.zero_grad()
        model.loss(scenes.take(torch.arange(8)), 0, step).backward()
        optimizer.step()
    still = {name for name, weights in model.named_parameters() if weights.grad is None or not weights.grad.any()}
    assert not {name for name in still if name.startswith("head.")}
    first = "convolutions.0.weight" if kind == "conv" else "patch_embeddings"
    assert not any(first in name for name in still)


def test_images_without_objects_teach_that_there_are_none(home: Path, scenes: Scenes) -> None:
    empty = Objects(np.zeros(5, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool),
                    np.zeros(0, np.uint8), np.zeros(1, np.int64))  # fmt: skip
    model = built(home)
    none = Scenes(scenes.pixels.take(np.arange(4)), empty, torch.arange(4))
    loss = model.loss(none, 0, 0)
    loss.backward()
    assert 0 < loss.item() < 5
    answers = model.answer(none)
    assert len(answers) == 4 and answers.loss > 0 and np.isnan(answers.value)


def test_examples_are_equal_after_their_arrays_are_shared(scenes: Scenes) -> None:
    some = scenes.take(torch.tensor([3, 0, 7]))
    again = Scenes.from_arrays({name: np.array(array) for name, array in some.arrays().items()})
    assert again.digest() == some.digest() != scenes.take(torch.tensor([0, 3, 7])).digest()
    assert np.array_equal(masks_of(again.objects, SIDE, SIDE), masks_of(some.objects, SIDE, SIDE))
    mine = scenes.objects.masks(0)
    assert [rle.encode(mask) for mask in masks_of(some.objects.take([1]), SIDE, SIDE)] == mine


# What comes out


def test_the_small_task_is_learned_and_its_report_shows_what_was_found(released: Path) -> None:
    metrics = json.loads((released / "evaluation/metrics.json").read_text())
    assert metrics["primary"] == "ap50"
    assert set(metrics["scores"]) == {"ap50", "ap", "recall", "precision", "mask_iou"}
    assert metrics["ap50"] > 0.3 and metrics["recall"] > 0.4 and metrics["mask_iou"] > 0.2
    assert "lift_20" in metrics
    sections = json.loads((released / "evaluation/sections.json").read_text())
    assert [one["title"] for one in sections] == [
        "Worst images",
        "Images",
        "Precision and recall",
        "By size",
        "By class",
    ]
    assert all((released / "evaluation" / one["picture"]).is_file() for one in sections if one["picture"])
    by_class = {line[0]: line for line in sections[-1]["lines"]}
    assert set(by_class) == set(small_scenes.DIGITS)
    test = pq.read_table(released / "evaluation/predictions.parquet")
    assert test.num_rows == metrics["n_test"]
    objects = [len(row) for row in test["boxes"].to_pylist()]
    assert sum(objects) == sum(int(line[1]) for line in by_class.values())
    found = test.to_pylist()
    assert sum(sum(row["found"]) for row in found) == pytest.approx(metrics["recall"] * sum(objects))
    assert all(len(row["predicted_boxes"]) == len(row["probabilities"]) == len(row["predicted"]) for row in found)


def test_predict_tells_classes_boxes_and_masks_and_draws_them(
    graftline: Callable[..., Done], released: Path, home: Path, tmp_path: Path
) -> None:
    pixels = Detection(PARAMS).read(small_scenes.dataset(home), "test", released / "model").pixels[:3]
    (tmp_path / "asked").mkdir()
    for number, shades in enumerate(pixels[:, 0]):
        Image.fromarray((shades * 255).round().astype(np.uint8)).save(tmp_path / f"asked/{number}.png")
    code, out, error = graftline("predict", "digits@1", tmp_path / "asked", "--json", "--draw", tmp_path / "drawn/here")
    assert (code, error) == (0, "")
    answers = json.loads(out)
    found = [one for answer in answers for one in answer["objects"]]
    assert found and all(one["class"] in small_scenes.DIGITS for one in found)
    for one in found:
        x0, y0, x1, y1 = one["box"]
        assert 0 <= x0 < x1 <= SIDE and 0 <= y0 < y1 <= SIDE and one["probability"] > 0.01
        mask = rle.decode(one["mask"]["counts"], *one["mask"]["size"])
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        assert not len(rows) or (rows[0] >= y0 - 1 and rows[-1] <= y1 and columns[0] >= x0 - 1 and columns[-1] <= x1)
    large = Image.fromarray((pixels[0, 0] * 255).round().astype(np.uint8)).resize((3 * SIDE, 2 * SIDE))
    large.save(tmp_path / "large.png")
    code, out, _ = graftline("predict", "digits@1", tmp_path / "large.png", "--json")
    (answer,) = json.loads(out)
    assert code == 0 and answer["size"] == [2 * SIDE, 3 * SIDE]
    surest, again = answers[0]["objects"][0], [np.array(one["box"]) / [3, 2, 3, 2] for one in answer["objects"]]
    assert min(np.abs(box - surest["box"]).max() for box in again) < 5
    assert all(one["mask"]["size"] == answer["size"] for one in answer["objects"])
    drawn = sorted((tmp_path / "drawn/here").iterdir())
    assert [path.name for path in drawn] == ["0000.png", "0001.png", "0002.png"]
    with Image.open(drawn[0]) as picture:
        assert min(picture.size) > 300
    code, out, _ = graftline("predict", "digits@1", tmp_path / "asked")
    assert code == 0 and f"{found[0]['class']} ({found[0]['probability']:.2f}) at" in out


def test_a_saved_model_says_what_it_said(released: Path, home: Path) -> None:
    folder = released / "model"
    one, test = load_model(folder), Detection(PARAMS).read(small_scenes.dataset(home), "test", folder)
    assert isinstance(one, Detector)
    assert one.threshold == read_facts(folder)["threshold"] not in (0.3, None), "chosen on val"
    stored = pq.read_table(released / "evaluation/predictions.parquet")["probabilities"].to_pylist()
    np.testing.assert_allclose(one.answer(test).found.probabilities, np.concatenate(stored), rtol=1e-5)


ALONE = """
import json, sys
sys.modules["graftline"] = None  # any import of it fails
import numpy, torch
import torch.nn.functional as F
from safetensors.torch import load_file
torch.set_num_threads(1)
folder, kind, pictures, out, stride, sizes = sys.argv[1:]
head, trunk = load_file(f"{folder}/head.safetensors"), load_file(f"{folder}/model.safetensors")
with torch.no_grad():
    pixels = torch.from_numpy(numpy.load(pictures))
    maps = []
    if kind == "conv":
        for n in (0, 3, 6):
            pixels = F.conv2d(pixels, trunk[f"convolutions.{n}.weight"], trunk[f"convolutions.{n}.bias"], 2, 1)
            norm = [trunk[f"convolutions.{n + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
            pixels = F.gelu(F.batch_norm(pixels, *norm, eps=1e-5))
            maps.append(pixels)
    else:
        from transformers import AutoImageProcessor, AutoModel
        from PIL import Image
        seen = [Image.fromarray((image[0] * 255).round().byte().numpy()) for image in pixels]
        seen = AutoImageProcessor.from_pretrained(folder)(seen, return_tensors="pt")
        found = AutoModel.from_pretrained(folder).eval()(**seen, output_hidden_states=True)
        four = [one for one in [*found.hidden_states, found.last_hidden_state] if one.ndim == 4]
        maps = list({one.shape[2:]: one for one in four}.values())
        if not maps:
            side = 48 // 8
            maps = [found.last_hidden_state[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))]
    lateral = sum(name.startswith("lateral.") for name in head) // 2
    layers = [(head[f"lateral.{n}.weight"], head[f"lateral.{n}.bias"]) for n in range(lateral)]
    maps = [F.conv2d(one, *layer) for one, layer in zip(maps[-lateral:], layers)]
    hidden = maps[-1]
    for one in maps[-2::-1]:
        hidden = one + F.interpolate(hidden, one.shape[2:])
    hidden = F.interpolate(hidden, json.loads(sizes))
    for n in (0, 1):
        hidden = F.conv2d(hidden, head[f"layers.{n}.weight"], head[f"layers.{n}.bias"], padding=1)
        hidden = F.gelu(F.group_norm(hidden, 8, head[f"norms.{n}.weight"], head[f"norms.{n}.bias"]))
    said = F.conv2d(hidden, head["output.weight"], head["output.bias"])
    drawn = F.pixel_shuffle(F.conv2d(hidden, head["prototypes.weight"], head["prototypes.bias"]), int(stride))
    classes = said.shape[1] - 4 - drawn.shape[1]
    numbers = said[:, classes : classes + 4]
    y, x = (torch.arange(side) * int(stride) + int(stride) / 2 for side in said.shape[2:])
    x, y = x + numbers[:, 0] * int(stride), y[:, None] + numbers[:, 1] * int(stride)
    wide, high = (head["size"][n] * numbers[:, 2 + n].clamp(-6, 6).exp() for n in (0, 1))
    boxes = torch.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], dim=1)
numpy.savez(out, heat=said[:, :classes], boxes=boxes, weights=said[:, classes + 4 :], prototypes=drawn)
"""


@pytest.mark.parametrize("kind", sorted(small_scenes.TRUNKS))
def test_a_model_opens_without_graftline_as_its_page_says(kind: str, home: Path, tmp_path: Path) -> None:
    folder = small_scenes.model(home, kind)
    model = load_model(folder)
    assert isinstance(model, Detector)
    pixels = Detection(PARAMS).read(small_scenes.dataset(home), "test", folder).pixels[:4]
    np.save(tmp_path / "pixels.npy", pixels)
    grid = model.head.grid
    arguments = [folder, kind, tmp_path / "pixels.npy", tmp_path / "out.npz", grid.stride, [grid.rows, grid.columns]]
    done = forked.run([sys.executable, "-I", "-c", forked.OFFLINE + ALONE, *map(str, arguments)], text=True)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        said = model(torch.from_numpy(pixels))
    for name, found in np.load(tmp_path / "out.npz").items():
        own = getattr(said, name).numpy()
        np.testing.assert_allclose(found, own, atol=2e-4, err_msg=name)
        assert own.std() > 1e-4
    page = (folder / "HEAD.md").read_text()
    assert f"{grid.rows} x {grid.columns} places" in page and ("AutoModel" in page) == (kind != "conv")


# What is wrong


def test_masks_are_not_learned_from_boxes_alone(home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_scenes.dataset(home), tmp_path / "dataset"))
    rows = pq.read_table(folder / "train.parquet")
    names = ("box", "class", "crowd")
    plain = [{name: row[name] for name in names} for row in rows["objects"].to_pylist()]
    place = rows.schema.get_field_index("objects")
    pq.write_table(rows.set_column(place, "objects", pa.array(plain)), folder / "train.parquet")
    with pytest.raises(
        InputError, match=r"train\.parquet: objects without masks; .* set finetune\.head\.prototypes to 0"
    ):
        Detection(PARAMS).read(folder, "train", folder)
    without = PARAMS.model_copy(update={"prototypes": 0})
    model = built(home, params=without)
    answers = model.answer(Detection(without).read(folder, "train", folder).take(torch.arange(3)))
    assert answers.mask_ious is None


def test_another_kind_of_label_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = small_numbers.dataset(home, "images")
    inputs = {"in_dataset": numbers, "in_trunk": small.trunk(home), "out_model": tmp_path / "model"}
    code = small.run("finetune", {"finetune": {"head": {"name": "detection"}}}, **inputs)
    error = capsys.readouterr().err
    assert code == 2 and "the label is of type" in error and "expected boxes" in error and "Traceback" not in error


def test_a_release_that_finds_no_objects_has_nothing_to_draw(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "black.png")
    ask = on_store(small.released(home) / "store", monkeypatch, capsys)
    code, out, error = ask("predict", "digits@1", tmp_path / "black.png", "--draw", tmp_path / "drawn")
    assert code == 2 and out == "" and "--draw: nothing that can be drawn" in error
    assert not (tmp_path / "drawn").exists()


def test_a_head_that_does_not_fit_its_facts_is_refused(home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_scenes.model(home, "conv"), tmp_path / "model"))
    facts: dict[str, Any] = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**facts, "head": {**facts["head"], "width": 32}}))
    with pytest.raises(InputError, match=r"head\.safetensors: .*; run finetune again"):
        load_model(folder)
    (folder / "head.json").write_text(json.dumps({name: of for name, of in facts.items() if name != "threshold"}))
    with pytest.raises(InputError, match=r"not a model's head\.json"):
        load_model(folder)
