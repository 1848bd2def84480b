"""Objects in pictures through validate: real scenes, what is wrong with some, and what the dataset then holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.canonical import read_json
from graftline.dataset import read_schema, read_split
from graftline.environment import ROOT
from graftline.values import rle
from graftline.values.boxes import BoxLabel, Objects
from graftline.values.image import ImageColumn
from graftline.yamlfile import load_yaml

SCENES = ROOT / "data" / "scenes"


@pytest.fixture
def scenes() -> list[dict[str, Any]]:
    """30 labelled scenes of each split, and 10 without labels."""
    path = SCENES / "raw" / "scenes.parquet"
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `dvc pull`")
    table = pq.read_table(path)
    chosen = [*range(30), *range(900, 930), *range(1150, 1180), *range(1750, 1760)]
    rows: list[dict[str, Any]] = table.take(chosen).to_pylist()
    return rows


def contract(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = load_yaml(SCENES / "expectations.yaml")
    found["columns"]["objects"] |= {"balance": {}, **changes}
    return {**found, "min_rows": 1}


def test_scenes_become_boxes_and_masks_in_pixels_of_the_stored_image(
    scenes: list[dict[str, Any]], write_table: Callable[..., Any], validate: Callable[..., Any]
) -> None:
    run = validate(write_table(pa.Table.from_pylist(scenes)), contract())
    assert run.code == 0, run.error
    label = read_schema(run.out).label_column
    assert isinstance(label, BoxLabel) and label.classes == tuple("0123456789")
    for split, start in (("train", 0), ("val", 30), ("test", 60)):
        objects = read_split(run.out, split, [ImageColumn]).label
        assert isinstance(objects, Objects) and len(objects) == 30
        for place, row in enumerate(scenes[start : start + 30]):
            inside = slice(*objects.offsets[place : place + 2])
            x, y, width, height = np.array(row["objects"]["bbox"]).T
            assert np.array_equal(objects.boxes[inside], np.stack([x, y, x + width, y + height], axis=1))
            assert [str(one) for one in objects.classes[inside]] == row["objects"]["category"]
            for box, text in zip(objects.boxes[inside].astype(int), objects.masks(place), strict=True):
                rows, columns = np.nonzero(rle.decode(text, 64, 64))
                assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box.tolist()
    assert run.table("unlabelled").num_rows == 30 + 30 + 10
    counts = read_json(run.out / "profile.json")["histograms"]
    assert sum(counts["objects"]["counts"]) == sum(len(row["objects"]["bbox"]) for row in scenes[:90])
    assert sum(counts["objects.objects"]["counts"]) == 90
    report = (run.out / "report.html").read_text()
    titles = re.findall(
        r'<img style="width:auto;height:auto" src="data:image/png;base64,[^"]+" title="([^"]+)">', report
    )
    assert titles[:2] == [", ".join(row["objects"]["category"]) for row in scenes[:2]], "pictures with outlines"


def test_bad_objects_go_to_the_quarantine_with_row_and_value_and_cut_ones_are_counted(
    scenes: list[dict[str, Any]], write_table: Callable[..., Any], validate: Callable[..., Any]
) -> None:
    for row, box in ((0, [60, 2, 20, 20]), (1, [4, 4, 0, 9]), (2, [50, 4, 16, 9])):
        scenes[row]["objects"]["bbox"][0] = box
    scenes[3]["objects"]["category"][0] = "ten"
    scenes[4]["objects"]["segmentation"][0] = '{"size": [64, 64], "counts": [1, 2]}'
    run = validate(write_table(pa.Table.from_pylist(scenes)), contract(), {"max_bad_fraction": 0.1})
    assert run.code == 0, run.error
    lines = {row["row"]: (row["rule"], row["value"]) for row in run.table("quarantine").to_pylist()}
    assert lines == {
        0: ("objects.inside", "box 0: from 60 2 to 80 22"),
        1: ("objects.area", "box 0: 0 9 pixels wide and high"),
        3: ("objects.class", "object 0: 'ten'"),
        4: ("objects.mask", "object 0: runs of 3 pixels, and a picture of 64 x 64"),
    }
    record = read_json(run.out / "record.json")["predicate"]["runDetails"]["byproducts"]
    (metrics,) = (part["annotations"] for part in record if part["name"] == "metrics")
    assert metrics["objects.cut"] == 1 and "1 times: boxes reached over the picture's border" in run.error
    stored = run.table("train").to_pylist()
    assert stored[0]["row"] == 2 and stored[0]["objects"]["box"][0] == [50, 4, 64, 13]


def test_a_row_is_another_one_if_its_boxes_are_others(
    scenes: list[dict[str, Any]], write_table: Callable[..., Any], validate: Callable[..., Any]
) -> None:
    first = validate(write_table(pa.Table.from_pylist(scenes)), contract())
    before = first.table("rows").to_pylist()
    scenes[5]["objects"]["bbox"][0][2] += 1
    again = validate(write_table(pa.Table.from_pylist(scenes)), contract(), out="again")
    changed = [row["row"] for row, other in zip(before, again.table("rows").to_pylist(), strict=True) if row != other]
    assert changed == [5]
