"""Objects in pictures: boxes and masks go with their picture, and what is wrong with them is said."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Picture
from pycocotools import mask as coco
from pydantic import ValidationError

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.values import rle
from graftline.values.boxes import Boxes, BoxLabel, Objects
from graftline.values.columns import read_columns
from graftline.values.contract import Contract, load_contract
from graftline.values.decoding import Rule, decode, upright
from graftline.values.facts import ColumnBatch
from graftline.values.framing import Framing

FAULTS = ("form", "count", "size", "finite", "area", "inside", "class", "mask")
CAT = [[2.0, 3.0, 10.0, 20.0]]


def picture(width: int, height: int, box: tuple[int, int, int, int] | None = None, **how: Any) -> bytes:
    """Return a black picture with a white box in it."""
    pixels = np.zeros((height, width), np.uint8)
    if box is not None:
        pixels[box[1] : box[3], box[0] : box[2]] = 255
    file, exif = io.BytesIO(), Picture.Exif()
    exif[0x112] = how.pop("orientation", 1)
    Picture.fromarray(pixels).save(file, how.pop("format", "PNG"), exif=exif, **how)
    return file.getvalue()


def contract(image: dict[str, Any] | None = None, **rules: Any) -> Contract:
    return Contract.model_validate(
        {
            "columns": {
                "image": {"type": "image", "shape": [40, 60], **(image or {})},
                "objects": {"type": "boxes", "of": "image", "classes": ["cat", "dog"], "form": "xyxy", **rules},
            }
        }
    )


def read(objects: list[Any], pictures: list[bytes] | None = None, **rules: Any) -> ColumnBatch:
    """Return the column of boxes; pictures are 60 x 40 (width x height) unless they are given."""
    image = rules.pop("image", None)
    columns = {"image": pa.array(pictures or [picture(60, 40)] * len(objects)), "objects": pa.array(objects)}
    batch = RawBatch(Path("x"), 0, columns, False, np.full(len(objects), 2))
    return read_columns(batch, contract(image, **rules))["objects"]


def stored(column: ColumnBatch) -> list[Any]:
    found: list[Any] = column.take(np.ones(len(column.facts["given"]), bool)).to_pylist()
    return found


def faults(column: ColumnBatch) -> list[str]:
    return [
        "; ".join(f"{rule}: {column.facts[rule][place]}" for rule in FAULTS if column.facts[rule][place] is not None)
        for place in range(len(column.facts["given"]))
    ]


def test_the_three_forms_say_the_same_box_in_pixels_and_in_shares() -> None:
    forms = {"xyxy": [6.0, 10.0, 18.0, 30.0], "xywh": [6.0, 10.0, 12.0, 20.0], "cxcywh": [12.0, 20.0, 12.0, 20.0]}
    for form, box in forms.items():
        for raw, normalised in ((box, False), ([n / size for n, size in zip(box, (60, 40) * 2, strict=True)], True)):
            column = read([{"bbox": [raw], "category": ["cat"]}], form=form, normalised=normalised)
            assert faults(column) == [""]
            assert np.allclose(stored(column)[0]["box"], [[6, 10, 18, 30]], atol=1e-5)


def test_lists_of_objects_say_what_objects_of_lists_do() -> None:
    of_lists = {"bbox": CAT * 2, "category": ["cat", "dog"], "iscrowd": [0, 1]}
    one_each = [{"bbox": CAT[0], "label": name, "iscrowd": crowd} for name, crowd in (("cat", 0), ("dog", 1))]
    assert stored(read([of_lists])) == stored(read([one_each]))
    assert stored(read([of_lists]))[0]["crowd"] == [False, True]


@pytest.mark.parametrize("crowd", [["0", "1"], [0.0, 1.0], ["false", "True"], [None, True]])
def test_a_crowd_is_said_by_0_and_1_as_text_too(crowd: list[Any]) -> None:
    column = read([{"bbox": CAT * 2, "category": ["cat", "dog"], "difficult": crowd}])
    assert faults(column) == [""] and stored(column)[0]["crowd"] == [False, True]


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_boxes_and_masks_go_where_the_pixels_go(resize: str, form: str) -> None:
    for orientation in range(1, 9):
        data = picture(101, 77, (20, 15, 70, 52), orientation=orientation, format=form)
        rule = Rule(48, 50, "grey", resize)  # type: ignore[arg-type]
        white = decode(data, None, rule)[0][:, :, 0] > 127
        size, turned = upright(data)
        assert (size, turned) == ((101, 77), orientation)
        framing = Framing.of(size, turned, rule)
        x0, y0, x1, y1 = np.clip(framing.boxes(np.array([[20, 15, 70, 52]]))[0], 0, [50, 48] * 2)
        rows, columns = np.nonzero(white)
        assert np.abs([columns.min() - x0, rows.min() - y0, columns.max() + 1 - x1, rows.max() + 1 - y1]).max() < 0.6
        mask = np.zeros((77, 101), np.uint8)
        mask[15:52, 20:70] = 1
        corners = framing.points(np.array([[20, 15], [70, 15], [70, 52], [20, 52]]))
        for found in (framing.mask(mask), rle.drawn([corners], 48, 50)):
            assert (found.astype(bool) != white).mean() < 0.02


def test_objects_are_about_the_picture_that_has_their_size() -> None:
    turned = picture(80, 40, orientation=6)
    given = [{"bbox": [[0.0, 0.0, 8.0, 4.0]], "category": ["cat"], "width": w, "height": h} for w, h in
             ((80, 40), (40, 80), (81, 40))]  # fmt: skip
    column = read(given, [turned] * 3, image={"shape": [80, 40], "resize": "stretch"})
    assert faults(column) == ["", "", "size: objects of a picture of 40 x 81, and a picture of 40 x 80"]
    assert [row["box"] for row in stored(column)[:2]] == [[[36, 0, 40, 8]], [[0, 0, 8, 4]]]
    assert column.changes == {"turned": 1}


def test_what_reaches_over_the_border_is_cut_and_what_is_left_over_is_counted() -> None:
    boxes = [[-2.0, 1.0, 8.0, 9.0], [0.0, 0.0, 4.0, 40.0], [30.0, 10.0, 40.0, 20.0], [8.0, 5.0, 20.0, 25.0]]
    column = read(
        [{"bbox": boxes, "category": ["cat", "dog", "3", "dog"]}], image={"shape": [40, 40], "resize": "crop"},
        min_area=2, map={"3": None},
    )  # fmt: skip
    assert faults(column) == [""]
    assert stored(column)[0]["box"] == [[0, 5, 10, 25]] and stored(column)[0]["class"] == ["dog"]
    assert column.changes == {"cut": 1, "cropped": 1, "small": 2, "unwanted": 1}
    assert "cut" not in read([{"bbox": CAT, "category": ["cat"]}]).changes


BAD = {
    "form: 1 boxes, 2 classes": {"bbox": CAT, "category": ["cat", "dog"]},
    "form: object 0: box [1.0, 2.0], class cat": {"bbox": [[1.0, 2.0]], "category": ["cat"]},
    "form: object 0: box [2.0, 3.0, 10.0, 20.0], class None": {"bbox": CAT, "category": [None]},
    "count: 4 objects": {"bbox": CAT * 4, "category": ["cat"] * 4},
    "finite: box 0: nan 3 10 20": {"bbox": [[float("nan"), 3.0, 10.0, 20.0]], "category": ["cat"]},
    "finite: box 1: 2 3 inf 20": {"bbox": [*CAT, [2.0, 3.0, float("inf"), 20.0]], "category": ["cat"] * 2},
    "area: box 0: 0 17 pixels wide and high": {"bbox": [[2.0, 3.0, 2.0, 20.0]], "category": ["cat"]},
    "area: box 0: -8 17 pixels wide and high": {"bbox": [[10.0, 3.0, 2.0, 20.0]], "category": ["cat"]},
    "inside: box 0: from 61 3 to 70 20": {"bbox": [[61.0, 3.0, 70.0, 20.0]], "category": ["cat"]},
    "inside: box 0: from 55 3 to 70 20": {"bbox": [[55.0, 3.0, 70.0, 20.0]], "category": ["cat"]},
    "class: object 0: 'cow'": {"bbox": CAT, "category": ["cow"]},
    "form: category: 1, no list": {"bbox": [2, 3, 10, 20], "category": 1},
    "form: iscrowd: 1, no list": {"bbox": CAT, "category": ["cat"], "iscrowd": 1},
    "form: object 0: 'no' where 0 or 1 says whether it is a crowd": {
        "bbox": CAT, "category": ["cat"], "difficult": ["no"],
    },
    "form: boxes that are no numbers": {"bbox": [[[1, 2], [3, 4], [5, 6], [7, 8]]], "category": ["cat"]},
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_objects_that_cannot_be_go_to_the_quarantine_with_what_was_found(fault: str) -> None:
    assert faults(read([BAD[fault]], max_boxes=3)) == [fault]


def test_a_picture_without_objects_is_labelled_and_one_nobody_looked_at_is_not() -> None:
    column = read([{"bbox": CAT, "category": ["cat"]}, {"bbox": [], "category": []}, None])
    assert [row and len(row["box"]) for row in stored(column)] == [1, 0, None]
    assert np.isnan(column.facts["given"]).tolist() == [False, False, True]
    values = column.take(np.ones(3, bool))
    label = contract().columns["objects"]
    assert isinstance(label, Boxes)
    ids = label.ids(values)
    assert ids[2] == -1 and ids[0] != ids[1]
    members, each = label.members(values, ids)
    assert members.tolist() == [0] and each.tolist() == [1, 0, 0]


def test_classes_may_be_numbers_that_the_contract_names() -> None:
    column = read([{"objects": 1, "bbox": CAT * 2, "category": [0, 1]}], map={0: "cat", 1: "dog"})
    assert stored(column)[0]["class"] == ["cat", "dog"]


def masks_of(value: Any, **rules: Any) -> ColumnBatch:
    given = {"bbox": CAT, "category": ["cat"], "segmentation": [json.dumps(value)]}
    return read([given], form="xywh", masks=True, **rules)


def test_masks_are_those_of_the_reference() -> None:
    polygons = [[2.5, 3.0, 12.0, 3.0, 12.0, 23.0, 4.0, 20.0], [30.0, 30.0, 40.0, 31.0, 35.0, 38.0]]
    wanted = coco.decode(coco.merge(coco.frPyObjects(polygons, 40, 60)))
    lengths = [0, *np.diff(np.flatnonzero(np.diff(np.r_[0, wanted.T.ravel(), 2]))).tolist()]
    lengths[0] = int(np.argmax(wanted.T.ravel()))
    lengths[-1] = 40 * 60 - sum(lengths[:-1])
    counts = coco.encode(np.asfortranarray(wanted))["counts"].decode()
    for value in (polygons, {"size": [40, 60], "counts": counts}, {"size": [40, 60], "counts": lengths}):
        column = masks_of(value)
        assert faults(column) == [""]
        (row,) = stored(column)
        assert row["mask"] == [counts]
        assert np.array_equal(rle.decode(row["mask"][0], 40, 60), wanted)
    assert rle.lengths_of(counts) == lengths


def test_every_mask_comes_back() -> None:
    rng, masks = np.random.default_rng(0), []
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = (rng.random((37, 53)) < share).astype(np.uint8)
        masks.append(mask)
        text = rle.encode(mask)
        assert np.array_equal(rle.decode(text, 37, 53), mask)
        assert np.array_equal(coco.decode({"size": [37, 53], "counts": text.encode()}), mask)
    texts = [rle.encode(mask) for mask in masks]
    for _ in range(2):  # read, then remembered
        assert np.array_equal(rle.decode_all(texts, 37, 53), np.stack(masks))
    assert rle.decode_all([], 37, 53).shape == (0, 37, 53)
    with pytest.raises(rle.BadMaskError, match="runs of 1961 pixels, and a picture of 37 x 54"):
        rle.decode_all([*texts, texts[0]], 37, 54)
    with pytest.raises(rle.BadMaskError, match="length that no picture has"):
        rle.decode_all(["O" * 3], 37, 53)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "no polygon and no run-length encoding"),
        ([], "no polygon and no run-length encoding"),
        ([[1.0, 2.0, 3.0, 4.0]], "a polygon that is no list of three points or more, x and y by turns"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]], "a polygon with a coordinate that is no number"),
        ({"size": [40, 61], "counts": "x"}, "a mask of size [40, 61], and a picture of [40, 60]"),
        ({"size": 64, "counts": "x"}, "a mask of size 64, and a picture of [40, 60]"),
        ([[1, 2, 3, 4, 5, 10**400]], "a polygon that is no list of three points or more, x and y by turns"),
        ({"size": [40, 60], "counts": [3, 4]}, "runs of 7 pixels, and a picture of 40 x 60"),
        ({"size": [40, 60], "counts": [-3, 2403]}, "runs of no list of whole numbers pixels"),
        ({"size": [40, 60], "counts": "\u00ff"}, "a run-length encoding that is damaged"),
        ({"size": [40, 60], "counts": "o" * 20}, "a run-length encoding that is damaged"),
        ({"size": [40, 60], "counts": "o"}, "a run-length encoding that ends too early"),
        ({"size": [40, 60], "counts": "h0"}, "runs of 24 pixels"),
    ],
)
def test_masks_that_cannot_be_go_to_the_quarantine(value: Any, fault: str) -> None:
    (found,) = faults(masks_of(value))
    assert found.startswith(f"mask: object 0: {fault[:60]}")


def test_a_polygon_of_a_picture_that_becomes_far_too_wide_is_refused() -> None:
    given = {"bbox": [[0.0, 0.0, 1.0, 9000.0]], "category": ["cat"], "segmentation": ["[[0, 0, 1, 9000, 1, 0]]"]}
    column = read([given], [picture(1, 9000)], masks=True, image={"shape": [64, 64], "resize": "crop"})
    assert faults(column)[0].startswith("mask: object 0: a polygon with a coordinate beyond")


def test_polygons_whose_edges_take_much_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rle, "_LONGEST", 60_000)
    zigzag = [n for _ in range(600) for n in (0, 0, 1000, 1)]
    assert faults(masks_of([zigzag])) == ["mask: object 0: polygons of 72000 pixels of edges, more than 60000"]


def test_objects_in_memory_are_taken_shared_and_equal() -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "box": rng.random((n, 4)).astype(np.float32).tolist(), "class": ["dog"] * n, "crowd": [False] * n,
            "mask": [rle.encode(rng.random((5, 6)) < 0.5) for _ in range(n)],
        }
        for n in (2, 0, 3)
    ]  # fmt: skip
    kind = contract(masks=True).columns["objects"].arrow_type()
    objects = BoxLabel("objects", ("cat", "dog")).values(pa.chunked_array([pa.array(rows, kind)]))
    assert len(objects) == 3 and objects.offsets.tolist() == [0, 2, 2, 5] and set(objects.classes) == {1}
    again = Objects.from_arrays(objects.arrays())
    taken = again.take([2, 1, 0, 2])
    assert taken.offsets.tolist() == [0, 3, 3, 5, 8]
    assert taken.boxes[3:5].tolist() == rows[0]["box"] and taken.boxes[5:].tolist() == rows[2]["box"]
    assert [taken.masks(place) for place in range(4)] == [rows[n]["mask"] for n in (2, 1, 0, 2)]
    assert len(objects.take(slice(1, 2)).boxes) == 0 and objects.take([]).offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"of": "other"}, "'other' is not the one column with the role feature, an image"),
        ({"classes": []}, "at least one class is needed"),
        ({"classes": ["cat", "cat"]}, "at least one class is needed, each once"),
        ({"map": {0: "cow"}}, "'cow' is none of the classes"),
        ({"role": "metadata"}, "exactly one column with 'role: label' is needed"),
        ({"form": "yxyx"}, "Input should be 'xyxy', 'xywh' or 'cxcywh'"),
    ],
)
def test_a_contract_that_cannot_be_is_refused(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        contract(**rules)


def test_a_column_of_another_type_is_refused_with_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="objects with bbox and category, lists of equal length"):
        read(["a cat"])
    (tmp_path / "expectations.yaml").write_text(
        "columns:\n  image: {type: image, shape: [8, 8]}\n"
        "  objects: {type: boxes, of: image, form: xywh, classes: [yes, no]}\n"
    )
    with pytest.raises(InputError, match="YAML reads a word here as True"):
        load_contract(tmp_path / "expectations.yaml")
