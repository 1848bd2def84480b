"""The importers of pictures with objects, on what they shipped, without a network."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import mnist, scenes, trees
from graftline.values import rle

DIGITS, SCENES, TREES = (
    ROOT / "data" / task / "raw" / name
    for task, name in (("mnist", mnist.IMAGES), ("scenes", scenes.SCENES), ("trees", trees.TREES))
)


def shipped(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `dvc pull`")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(DIGITS)
    pixels = table["image"].combine_chunks().flatten().to_numpy()
    return pixels.reshape(-1, 28, 28), table["label"].to_numpy()


@pytest.fixture(scope="module")
def composed() -> list[dict[str, Any]]:
    return shipped(SCENES)


def pixels_of(row: dict[str, Any]) -> np.ndarray:
    with Picture.open(io.BytesIO(row["image"]["bytes"])) as picture:
        return np.asarray(picture)


def test_the_first_scenes_of_each_part_are_made_again_bit_for_bit(
    digits: tuple[np.ndarray, np.ndarray], composed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = dict(zip(scenes.COUNTS, np.cumsum([0, *scenes.COUNTS.values()]), strict=False))
    monkeypatch.setattr(scenes, "COUNTS", dict.fromkeys(scenes.COUNTS, 3))
    table = scenes.as_table(scenes.scenes(*digits)).to_pylist()
    for place, part in enumerate(scenes.COUNTS):
        for number in range(3):
            made, kept = table[3 * place + number], composed[int(starts[part]) + number]
            assert np.array_equal(pixels_of(made), pixels_of(kept))
            assert made["objects"] == kept["objects"] and made["split"] == kept["split"]
            assert (made["objects"] is None) == (part == "unlabelled")


def test_no_digit_is_in_two_splits(digits: tuple[np.ndarray, np.ndarray], composed: list[dict[str, Any]]) -> None:
    parts = scenes.parts(len(digits[0]))
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(5000))
    for row in composed:
        if row["objects"] is not None:
            assert set(row["objects"]["digit"]) <= set(parts[row["split"]].tolist())


def test_a_box_is_what_its_mask_is_in_and_shows_its_digit(
    digits: tuple[np.ndarray, np.ndarray], composed: list[dict[str, Any]]
) -> None:
    _, labels = digits
    for row in composed[:1700:100]:
        objects, pixels = row["objects"], pixels_of(row)
        assert 1 <= len(objects["bbox"]) <= 5
        for (x, y, width, height), name, text, digit in zip(
            *(objects[key] for key in ("bbox", "category", "segmentation", "digit")), strict=True
        ):
            mask = rle.decode(json.loads(text)["counts"], scenes.SIDE, scenes.SIDE)
            rows, columns = np.nonzero(mask)
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [x, y, x + width, y + height]
            assert str(labels[digit]) == name
            assert pixels[mask == 1].min() >= 0.2 * 255, "ink"


@pytest.fixture(scope="module")
def tiles() -> list[dict[str, Any]]:
    return shipped(TREES)


def test_a_picture_of_trees_is_in_one_split(tiles: list[dict[str, Any]]) -> None:
    assert {(row["picture"], row["split"]) for row in tiles} == set(trees.SPLITS.items())
    looked = {row["picture"] for row in tiles if row["objects"] is not None}
    assert looked == set(trees.SPLITS) - {"SOAP_031"}
    assert any(row["objects"] == {"bbox": [], "category": [], "iscrowd": []} for row in tiles), "a meadow"


def test_tiles_hold_the_crowns_that_lie_in_them_cut_at_the_border() -> None:
    crowns = np.array([[10, 20, 50, 60], [180, 100, 240, 140], [150, 0, 230, 40], [400, 400, 440, 440]], float)
    boxes, crowd = trees.inside(crowns, 0, 0)
    assert boxes == [[4.8, 9.6, 19.2, 19.2], [86.4, 48.0, 9.6, 19.2], [72.0, 0.0, 24.0, 19.2]]
    assert crowd == [False, True, False], "a third of the second one is in the tile"
    assert trees.inside(crowns, 200, 0)[0][0] == [0.0, 48.0, 19.2, 19.2]


def test_the_wheel_is_cut_into_the_same_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture.fromarray(np.random.default_rng(0).integers(0, 255, (410, 300, 3), np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>60</ymax></bndbox>"
    xml = f"<annotation><filename>x</filename><object><name>Tree</name>{box}</object></annotation>".encode()
    members = {"a.png": file.getvalue(), "a.xml": xml, "b.png": file.getvalue()}
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in members.items():
            archive.writestr(trees.FOLDER + name, data)
    monkeypatch.setattr(trees, "SHA256", {name: sha256_bytes(data) for name, data in members.items()})
    monkeypatch.setattr(trees, "SPLITS", {"a": "test", "b": "train"})
    path = trees.write(tmp_path / "out", wheel)
    before, found = path.read_bytes(), pq.read_table(path).to_pylist()
    assert [row["image"]["path"] for row in found][:3] == ["a/0000_0000.jpg", "a/0200_0000.jpg", "b/0000_0000.jpg"]
    assert [row["objects"] and row["objects"]["bbox"] for row in found][:3] == [[[4.8, 9.6, 19.2, 19.2]], [], None]
    assert len(found) == 2 + 2 * 3, "tiles of train overlap"
    assert trees.write(tmp_path / "out", wheel).read_bytes() == before
    monkeypatch.setattr(trees, "SHA256", {**trees.SHA256, "a.png": "0" * 64})
    with pytest.raises(InputError, match=r"a\.png"):
        trees.write(tmp_path / "out", wheel)
