"""Folders of pictures with objects in them: COCO's JSON and Pascal VOC's XML, and files that are not as they say."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Picture

from graftline.errors import InputError
from graftline.raw import coco, voc
from graftline.raw.batches import RawBatch
from graftline.raw.files import look, raw_files, read_batches
from graftline.raw.reader import Asked, Source
from graftline.values.columns import read_columns
from graftline.values.contract import Contract
from graftline.values.guesses import Sampled, boxes_in, names

COLUMNS = ["image", "path", "objects"]


def picture(path: Path, width: int = 60, height: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.zeros((height, width), np.uint8)).save(path)


def rows(folder: Path, source: Source | None = None, **asked: Any) -> list[RawBatch]:
    asked = {"columns": COLUMNS, "others": "drop", **asked}
    return list(read_batches(raw_files(folder, source), Asked(source=source or Source(), **asked)))


def read(batch: RawBatch, form: str, classes: tuple[str, ...], **more: Any) -> tuple[list[Any], list[str]]:
    """Return the stored objects of rows, and what is wrong with them."""
    objects = {"type": "boxes", "of": "image", "classes": classes, "form": form, "nullable": True, **more}
    columns = {"image": {"type": "image", "shape": [40, 60]}, "path": {"type": "string"}, "objects": objects}
    contract = Contract.model_validate({"columns": columns})
    column = read_columns(batch, contract)["objects"]
    broken = [
        next((str(facts[place]) for name, facts in column.facts.items() if name != "given" and facts[place]), "")
        for place in range(batch.rows)
    ]
    return column.take(np.ones(batch.rows, bool)).to_pylist(), broken


def document() -> dict[str, Any]:
    """As COCO publishes it: a category whose id is not its place, a crowd, a picture without objects."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 7, "file_name": "a.png", "width": 60, "height": 40},
            {"id": 3, "file_name": "b.png", "width": 60, "height": 40},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [2.5, 3, 10, 20], "iscrowd": 0, "area": 100,
             "segmentation": [[2.5, 3, 12.5, 3, 12.5, 23]]},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1,
             "segmentation": {"size": [40, 60], "counts": [0, 2400]}},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog", "supercategory": "animal"}],
    }  # fmt: skip


def write_coco(
    folder: Path, found: Any, name: str = "annotations.json", pictures: tuple[str, ...] = ("a", "b")
) -> Path:
    for one in pictures:
        picture(folder / f"{one}.png")
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(found if isinstance(found, str) else json.dumps(found), encoding="utf-8")
    return path


def test_a_picture_of_cocos_json_is_a_row_with_its_objects(tmp_path: Path) -> None:
    write_coco(tmp_path, document())
    picture(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("x")
    (batch,) = rows(tmp_path)
    assert batch.columns["path"].to_pylist() == ["a.png", "b.png"] and batch.dropped == ("id",)
    assert {one.name: one.why for one in batch.left_out} == dict.fromkeys(
        ("c.png", "notes.txt"), "not in annotations.json"
    )
    found, broken = read(batch, "xywh", ("dog", "person"), masks=True)
    assert broken == ["", ""]
    assert found[0]["box"] == [[2.5, 3, 12.5, 23], [0, 0, 60, 40]]
    assert found[0]["class"] == ["dog", "person"] and found[0]["crowd"] == [False, True]
    assert found[1] == {"box": [], "class": [], "crowd": [], "mask": []}


def test_pictures_lie_beside_the_json_or_in_a_folder_and_manifest_says_which_json(tmp_path: Path) -> None:
    for split, name in (("train2017", "a"), ("val2017", "b")):
        write_coco(tmp_path, {**document(), "images": [{"id": 7, "file_name": f"{name}.png"}]},
                   f"annotations/instances_{split}.json", pictures=(f"{split}/{name}",))  # fmt: skip
    with pytest.raises(InputError, match=r"annotations/instances_train2017.json, annotations/instances_val2017.json"):
        rows(tmp_path)
    (batch,) = rows(tmp_path, Source(format="coco", manifest="annotations/instances_val2017.json"))
    assert batch.columns["path"].to_pylist() == ["val2017/b.png"]
    assert batch.columns["image"].to_pylist()[0]["bytes"].startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no such file"):
        rows(tmp_path, Source(format="coco", manifest="../other.json"))


def test_of_splits_that_use_the_same_names_the_json_is_called_by_one(tmp_path: Path) -> None:
    pictures = ("train/a", "train/b", "val/a", "val/b")
    write_coco(tmp_path, document(), "annotations/val.json", pictures)
    assert rows(tmp_path)[0].columns["path"].to_pylist() == ["val/a.png", "val/b.png"]
    (tmp_path / "annotations/val.json").rename(tmp_path / "annotations/interval.json")
    with pytest.raises(InputError, match=r"pictures that are in several folders: train/, val/"):
        rows(tmp_path)


def test_a_picture_that_is_missing_does_not_take_the_others_along(tmp_path: Path) -> None:
    write_coco(tmp_path, document(), pictures=("images/b", "other/c"))
    (batch,) = rows(tmp_path)
    assert [one["bytes"] is None for one in batch.columns["image"].to_pylist()] == [True, False]
    assert batch.columns["path"].to_pylist() == ["images/a.png", "images/b.png"]


def test_without_annotations_nobody_looked_at_the_pictures(tmp_path: Path) -> None:
    write_coco(tmp_path, {"images": document()["images"], "categories": []})
    (batch,) = rows(tmp_path)
    assert batch.columns["objects"].to_pylist() == [None, None]


def broken_coco(**changes: Any) -> dict[str, Any]:
    """Return the document with an annotation or another part changed."""
    found = document()
    for key, value in changes.items():
        if key in found:
            found[key] = value
        else:
            found["annotations"][0][key] = value
    return found


def test_an_annotation_that_cannot_be_takes_its_picture_to_the_quarantine(tmp_path: Path) -> None:
    for changes, fault in (
        ({"bbox": [1, 2, 3]}, "object 0: box [1.0, 2.0, 3.0], class dog"),
        ({"bbox": "2 3 10 20"}, "object 0: box None, class dog"),
        ({"bbox": [1, 2, float("nan"), 4]}, "box 0: 1 2 nan 4"),
        ({"bbox": [1, 2, 10**400, 4]}, "box 0: 1 2 inf 4"),
        ({"bbox": [1, 2, 0, 4]}, "box 0: 0 4 pixels wide and high"),
        ({"bbox": [70, 2, 9, 4]}, "box 0: from 70 2 to 79 6"),
        ({"category_id": 99}, "object 0: 'category_id 99'"),
        ({"category_id": None}, "object 0: box [2.5, 3.0, 10.0, 20.0], class None"),
        ({"images": [{"id": 7, "file_name": "a.png", "width": 61, "height": 40}]},
         "objects of a picture of 40 x 61, and a picture of 40 x 60"),
    ):  # fmt: skip
        write_coco(tmp_path, broken_coco(**changes))
        (batch,) = rows(tmp_path)
        assert read(batch, "xywh", ("dog", "person"))[1][0] == fault


def test_an_annotation_of_no_picture_is_passed_over_and_said(tmp_path: Path) -> None:
    write_coco(tmp_path, broken_coco(image_id=99))
    (batch,) = rows(tmp_path)
    assert [(one.name, one.why) for one in batch.left_out] == [("annotation 1", "of a picture that is not listed")]
    assert batch.columns["objects"].to_pylist()[0]["category"] == ["person"]


def test_a_picture_that_is_not_there_is_a_row_without_one(tmp_path: Path) -> None:
    write_coco(tmp_path, document(), pictures=("a",))
    (batch,) = rows(tmp_path)
    assert batch.columns["image"].to_pylist()[1] == {"bytes": None, "path": "b.png"}
    outside = broken_coco(images=[{"id": 7, "file_name": "../secret.png"}])
    picture(tmp_path.parent / "secret.png")
    write_coco(tmp_path, outside)
    assert rows(tmp_path)[0].columns["image"].to_pylist()[0]["bytes"] is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ('{"images": [], "annotations": [', "not JSON"),
        ("[" * 100_000 + '"images", "annotations"', "not JSON"),
        (broken_coco(images=[]), "images: .* expected at least one picture"),
        (broken_coco(images={}), "images: {}"),
        (broken_coco(images=[{"id": 7}]), r"images\[0\]: .* expected an object with id and file_name"),
        (broken_coco(images=[{"id": n, "file_name": "a.png"} for n in (7, "7")]), r"images\[1\].id: 7 a second time"),
        (broken_coco(categories=[{"id": 1, "name": n} for n in "ab"]), r"categories\[1\].id: 1 a second time"),
        (broken_coco(categories=None), "categories: nothing; expected a list"),
        (broken_coco(annotations=[[1]]), r"annotations\[0\].image_id"),
        (broken_coco(iscrowd="no"), r"annotations\[0\].iscrowd: \"no\"; expected 0 or 1"),
        (broken_coco(categories=[{"id": 18, "name": "\ud800"}]), "half of a surrogate pair"),
        (broken_coco(images=[{"id": 7, "file_name": "\udc80.png"}]), "half of a surrogate pair"),
        (broken_coco(image_id=None), r"annotations\[0\].image_id"),
    ],
)
def test_a_file_that_is_not_cocos_json_is_refused_with_a_line(tmp_path: Path, found: Any, said: str) -> None:
    path = write_coco(tmp_path, found)
    with pytest.raises(InputError, match=said) as error:
        rows(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "MOST_BYTES", 100)
    write_coco(tmp_path, document())
    with pytest.raises(InputError, match="expected at most 100"):
        rows(tmp_path)


XML = """<annotation><folder>x</folder><filename>{name}</filename><size><width>60</width><height>40</height></size>
<object><name>dog</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin><ymin>4</ymin><xmax>12</xmax>
<ymax>23</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object></annotation>"""


def write_voc(folder: Path, name: str = "a.png", xml: str = "a.xml", difficult: int = 0, xmin: Any = 3) -> Path:
    path = folder / xml
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(XML.format(name=name, difficult=difficult, xmin=xmin))
    return path


def test_an_xml_file_of_pascal_voc_is_a_row_and_its_pixels_become_edges(tmp_path: Path) -> None:
    for name in ("JPEGImages/a.png", "JPEGImages/c.png", "SegmentationClass/a.png"):
        picture(tmp_path / name)
    write_voc(tmp_path, xml="Annotations/a.xml", difficult=1)
    write_voc(tmp_path, name="b.png", xml="Annotations/b.xml")
    (batch,) = rows(tmp_path)
    assert batch.columns["path"].to_pylist() == ["JPEGImages/a.png", "Annotations/b.png", "JPEGImages/c.png"]
    found, broken = read(batch, "xyxy", ("dog",))
    assert broken == ["", "", ""]
    assert found[0] == {"box": [[2, 3, 12, 23]], "class": ["dog"], "crowd": [True]}
    assert found[2] is None, "a picture without an XML file"
    assert [(one.name, one.why) for one in batch.left_out] == [("SegmentationClass/a.png", "a mask")]


def test_side_by_side_the_names_tell_what_belongs_together(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write_voc(tmp_path, name="C:\\pictures\\renamed.png")
    (batch,) = rows(tmp_path)
    assert batch.columns["path"].to_pylist() == ["a.png"]
    write_voc(tmp_path, xml="b.xml", name="a.png")
    with pytest.raises(InputError, match=r"a second file about a\.png"):
        rows(tmp_path)


def test_a_coordinate_that_is_no_number_goes_to_the_quarantine(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write_voc(tmp_path, xmin="three")
    (batch,) = rows(tmp_path)
    assert read(batch, "xyxy", ("dog",))[1] == ["box 0: nan 3 12 23"]
    assert read(batch, "xyxy", ("cat",))[1] == ["object 0: 'dog'"]


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]><annotation>&y;</annotation>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "line 1: a DOCTYPE with declarations of its own"),
        ("<annotation>&y;</annotation>", "line 1: not XML"),
        ("<annotation><object></annotation>", r"line 1: not XML \(mismatched tag\)"),
        ("<annotation>\n", r"line 2: not XML \(no element found\)"),
    ],
)
def test_xml_that_is_damaged_or_declares_entities_is_refused(tmp_path: Path, content: str, said: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(InputError, match=said):
        rows(tmp_path)


def test_an_xml_file_that_is_too_large_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voc, "MOST_BYTES", 100)
    picture(tmp_path / "a.png")
    write_voc(tmp_path)
    with pytest.raises(InputError, match="more than 100 bytes"):
        rows(tmp_path)


def test_both_are_recognised_and_their_boxes_form_is_told_from_the_pictures(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", document())
    picture(tmp_path / "voc/a.png")
    write_voc(tmp_path / "voc")
    for name, form, classes in (("coco", "xywh", ["dog", "person"]), ("voc", "xyxy", ["dog"])):
        found = look(tmp_path / name)
        assert (found.format, found.exact) == (name, True)
        assert "objects" in list(names(found.schema)), "as a whole, not field by field"
        columns = {key: Sampled(key, found.sample[key].combine_chunks(), False) for key in ("image", "objects")}
        guess = boxes_in(columns["image"], columns["objects"])
        assert guess is not None
        assert guess.rules["form"] == form and guess.rules["classes"] == classes
        assert guess.rules.get("masks", False) == (name == "coco")


def test_shares_of_the_picture_are_told_from_pixels() -> None:
    file = io.BytesIO()
    Picture.fromarray(np.zeros((40, 60), np.uint8)).save(file, "PNG")
    raw = [{"boxes": [[0.9, 0.5, 0.2, 0.4], [0.5, 0.8, 0.3, 0.4]], "class": [0, 1]}]
    columns = Sampled("image", pa.array([file.getvalue()]), False), Sampled("objects", pa.array(raw), False)
    guess = boxes_in(*columns)
    assert guess is not None
    assert guess.rules == {
        "type": "boxes", "of": "image", "classes": ["0", "1"], "form": "cxcywh", "normalised": True,
    }  # fmt: skip


def test_objects_that_are_no_lists_of_boxes_are_no_reason_to_guess() -> None:
    file = io.BytesIO()
    Picture.fromarray(np.zeros((40, 60), np.uint8)).save(file, "PNG")
    for raw in ({"bbox": [2, 3, 10, 20], "category": 1}, {"bbox": [["2", "3", "10", "20"]], "category": ["cat"]}):
        columns = Sampled("image", pa.array([file.getvalue()]), False), Sampled("objects", pa.array([raw]), False)
        assert boxes_in(*columns) is None


def test_a_file_whose_name_is_not_utf_8_is_left_out_and_said(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write_voc(tmp_path)
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes((tmp_path / "a.png").read_bytes())
    (batch,) = rows(tmp_path)
    assert batch.columns["path"].to_pylist() == ["a.png"]
    assert [(one.name, one.why) for one in batch.left_out] == [("\ufffd.png", "a name that is not UTF-8")]


def test_many_pictures_are_looked_up_and_not_compared_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    monkeypatch.setattr(voc, "walk", lambda path, left_out: [Name(f"{number}.png") for number in range(200)])
    (batch,) = voc.Voc().batches(tmp_path, Asked(source=Source(), columns=COLUMNS, others="drop"), 0)
    assert batch.rows == 200 and compared < 200
