"""The shipped task in colour: what validate makes of it, by its own contract and parameters."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from graftline.environment import ROOT
from graftline.values.splits import read_images
from graftline.yamlfile import load_yaml

sys.path.insert(0, str(ROOT / "tests" / "learning"))

import small

TASK = ROOT / "data" / "emoji"


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("emoji")
    document = load_yaml(TASK / "params.yaml")
    inputs = {"in_raw": TASK / "raw", "in_expectations": TASK / "expectations.yaml"}
    small.make("validate", document, **inputs, out_dataset=out / "dataset", store=out / "store")
    return out / "dataset"


def test_all_pictures_are_taken_in_colour(emoji: Path) -> None:
    counts = {name: len(read_images(emoji, name).rows) for name in ("train", "val", "test")}
    assert sum(counts.values()) >= 5000
    assert pq.read_metadata(emoji / "quarantine.parquet").num_rows == 0
    images = read_images(emoji, "test").pixels
    pixels = images[np.arange(len(images))]
    assert pixels.shape[1:] == (3, 32, 32)
    assert (pixels.std(axis=1) > 0.1).any(), "channels differ"
    assert np.median(pixels[:, :, 0, 0]) == 1, "on white"


def test_no_emoji_is_in_two_splits_by_whomever_it_was_drawn(emoji: Path) -> None:
    bases = [set(pq.read_table(emoji / f"{name}.parquet")["base"].to_pylist()) for name in ("train", "val", "test")]
    assert all(bases)
    assert len(set.union(*bases)) == sum(len(found) for found in bases)
