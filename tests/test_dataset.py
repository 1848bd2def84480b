"""What the later components read of a dataset, and what they are told when it is not what they need."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.dataset import SCHEMA, Schema, read_schema
from graftline.errors import InputError
from graftline.values.image import ImageColumn
from graftline.values.splits import read_images, read_tagged, read_texts
from graftline.values.text import TextColumn
from graftline.values.words import TokensColumn

SCHEMAS = [
    Schema(ImageColumn("image", (28, 20), 255.0), "digit", (0, 1, 2)),
    Schema(TextColumn("text"), "label", ("a", "b")),
    Schema(TokensColumn("words"), "tags", ("NOUN", "VERB")),
    Schema(TextColumn("text"), None, (), weight="votes", group="speaker"),
    Schema(ImageColumn("image", (2, 3), 255.0, channels=3), "kind", ("a", "b")),
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_schema_is_read_as_it_was_written(schema: Schema, tmp_path: Path) -> None:
    (tmp_path / SCHEMA).write_text(json.dumps(schema.as_dict()))
    assert read_schema(tmp_path) == schema


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"name": "image", "shape": [28, 28], "maximum": 255}, "label": "label", "classes": [0, 1]},
        {"feature": {"type": "sound", "name": "x"}, "label": None, "classes": []},
        {"feature": {"type": "text", "name": "x"}, "label": 3, "classes": []},
        {"feature": "text", "label": None, "classes": []},
        [],
    ],
)
def test_what_is_no_schema_is_refused(values: object, tmp_path: Path) -> None:
    (tmp_path / SCHEMA).write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"schema\.json"):
        read_schema(tmp_path)


def write(folder: Path, schema: Schema, **columns: object) -> Path:
    (folder / SCHEMA).write_text(json.dumps(schema.as_dict()))
    pq.write_table(pa.table(columns), folder / "train.parquet")
    pq.write_table(pa.table(columns), folder / "unlabelled.parquet")
    return folder


@pytest.mark.parametrize("schema", SCHEMAS)
def test_only_images_in_colour_say_their_channels(schema: Schema) -> None:
    assert ("channels" in schema.as_dict()["feature"]) == (getattr(schema.feature, "channels", 1) > 1)


def test_images_in_colour_have_their_channels_first(tmp_path: Path) -> None:
    red, green, blue = range(6), range(10, 16), range(200, 206)
    pixels = [number for pixel in zip(red, green, blue, strict=True) for number in pixel]
    stored = pa.FixedSizeListArray.from_arrays(pa.array(pixels, pa.uint8()), 18)
    write(tmp_path, SCHEMAS[4], row=[0], image=stored, kind=["b"])
    images = read_images(tmp_path, "train").pixels.numpy()
    assert images.shape == (1, 3, 2, 3) and images.dtype == "float32"
    assert (images[0] * 255).round().reshape(3, 6).tolist() == [list(red), list(green), list(blue)]
    asked = SCHEMAS[4].feature.question("a row", pixels)
    assert (asked == images[0]).all(), "a question is read as a row is"


def test_texts_come_in_the_order_of_their_rows_with_class_indices(tmp_path: Path) -> None:
    write(tmp_path, SCHEMAS[1], row=[9, 2], text=["later", "first"], label=["a", "b"])
    read = read_texts(tmp_path, "train")
    assert read.texts == ["first", "later"] and read.rows.tolist() == [2, 9]
    assert read.labels is not None and read.labels.tolist() == [1, 0] and read.labels.dtype == "int64"
    assert read_texts(tmp_path, "unlabelled").labels is None


def test_texts_of_a_task_without_labels_have_none(tmp_path: Path) -> None:
    write(tmp_path, SCHEMAS[3], row=[0], text=["only"])
    assert read_texts(tmp_path, "train").labels is None


def test_tagged_words_come_in_the_order_of_their_rows_with_class_indices(tmp_path: Path) -> None:
    write(tmp_path, SCHEMAS[2], row=[5, 1], words=[["x"], ["she", "runs"]], tags=[["NOUN"], ["NOUN", "VERB"]])
    read = read_tagged(tmp_path, "train")
    assert read.words == [["she", "runs"], ["x"]] and read.rows.tolist() == [1, 5]
    assert read.tags is not None and [tags.tolist() for tags in read.tags] == [[0, 1], [0]]
    assert read_tagged(tmp_path, "unlabelled").tags is None


def test_tags_that_do_not_match_the_words_are_refused(tmp_path: Path) -> None:
    write(tmp_path, SCHEMAS[2], row=[7], words=[["she", "runs"]], tags=[["NOUN"]])
    with pytest.raises(InputError, match="row 7 has 2 words, 1 tags"):
        read_tagged(tmp_path, "train")


def test_a_label_outside_the_classes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SCHEMAS[1], row=[0], text=["x"], label=["c"])
    with pytest.raises(InputError, match=r"train\.parquet: not as schema\.json says"):
        read_texts(tmp_path, "train")


def test_a_dataset_of_another_type_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SCHEMAS[1], row=[0], text=["x"], label=["a"])
    with pytest.raises(InputError, match="the feature is of type text; expected image"):
        read_images(tmp_path, "train")
    with pytest.raises(InputError, match="the feature is of type text; expected tokens"):
        read_tagged(tmp_path, "train")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SCHEMAS[3], row=pa.array([], pa.int64()), text=pa.array([], pa.string()))
    with pytest.raises(InputError, match="no rows"):
        read_texts(tmp_path, "train")
