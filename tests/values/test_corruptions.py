"""Spoiled values: a pure function of seed and row, harder by severity, and still of the column's kind."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.environment import ROOT
from graftline.values.column import StoredFeature
from graftline.values.corruption import SEVERITIES, Corruption
from graftline.values.corruptions.pictures import WAYS
from graftline.values.corruptions.texts import spoil_text, typo
from graftline.values.image import ImageColumn
from graftline.values.items import ItemsColumn
from graftline.values.text import TextColumn
from graftline.values.words import TokensColumn

COUNT = 24
GREY, COLOUR = ImageColumn("image", (28, 28), 255), ImageColumn("image", (32, 32), 255, 3)
TEXTS = ["a small wooden chair that is used by children in school", "any of various herbs of the genus Senecio"]
HERE = Path(__file__).parent


def digits() -> pa.ChunkedArray:
    table = pq.read_table(ROOT / "data/mnist/raw/images.parquet", columns=["image"])
    flat = table["image"].slice(0, COUNT).combine_chunks().flatten().cast(pa.uint8())
    return pa.chunked_array([pa.FixedSizeListArray.from_arrays(flat, 784)])


def colours() -> pa.ChunkedArray:
    """Smooth pictures with edges, of three different channels."""
    y, x = np.mgrid[:32, :32] / 32
    draw = np.random.default_rng(0)
    waves = [np.sin(draw.uniform(2, 12) * x + draw.uniform(2, 12) * y + draw.uniform(0, 6)) for _ in range(3 * COUNT)]
    pictures = np.stack(waves).reshape(COUNT, 3, 32, 32).transpose(0, 2, 3, 1) > 0.3
    flat = (60 + 150 * pictures).astype(np.uint8).reshape(-1)
    return pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(flat), 3072)])


def spoiled(
    feature: StoredFeature, column: pa.ChunkedArray, by: Corruption, rows: np.ndarray | None = None
) -> pa.Array:
    found, array = feature.corrupted(column, Path(), np.arange(len(column)) if rows is None else rows, by)
    assert (found, array.type) == (feature, column.type)
    return array


def numbers(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return whole.flatten().to_numpy().reshape(len(whole), -1).astype(np.float64)


@pytest.mark.parametrize("name", ImageColumn.corruptions)
def test_a_harder_corruption_is_further_from_the_clean_picture(name: str) -> None:
    for feature, clean in ((GREY, digits()), (COLOUR, colours())):
        away = [
            np.sqrt(((numbers(spoiled(feature, clean, Corruption(name, severity, 0))) - numbers(clean)) ** 2).mean())
            for severity in SEVERITIES
        ]
        assert away[0] > 0.5 and np.diff(away).min() > 0, f"{feature.shape}: {away}"


def test_there_are_the_15_ways_of_the_paper() -> None:
    assert ImageColumn.corruptions == tuple(WAYS) and len(WAYS) == 15
    assert not ItemsColumn.corruptions


def everything() -> str:
    sha = sha256()
    for feature, column in ((GREY, digits()), (TextColumn("text"), pa.chunked_array([TEXTS]))):
        for name in feature.corruptions:
            sha.update(str(spoiled(feature, column, Corruption(name, 3, 7)).to_pylist()).encode())
    return sha.hexdigest()


def test_another_process_spoils_alike() -> None:
    """Python's own hashes differ from process to process."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import test_corruptions as t; print(t.everything())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == everything()


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        (GREY, digits()),
        (TextColumn("text"), pa.chunked_array([TEXTS * 12])),
        (TokensColumn("words"), pa.chunked_array([[text.split() for text in TEXTS * 12]])),
    ],
)
def test_what_becomes_of_a_row_depends_on_seed_and_row_alone(feature: StoredFeature, column: pa.ChunkedArray) -> None:
    rows = np.arange(100, 100 + COUNT)
    for name in feature.corruptions:
        by = Corruption(name, 4, 1)
        all_, some = spoiled(feature, column, by, rows), spoiled(feature, column.slice(5, 3), by, rows[5:8])
        assert some.to_pylist() == all_.slice(5, 3).to_pylist()
        if name in ("gaussian_noise", "typos"):
            assert spoiled(feature, column, Corruption(name, 4, 2), rows).to_pylist() != all_.to_pylist()


def test_a_harder_severity_hits_the_same_words_and_more() -> None:
    text, feature = " ".join(TEXTS * 20), TextColumn("text")
    for name in ("typos", "case", "ocr"):
        hit: set[int] = set()
        for severity in SEVERITIES:
            (found,) = spoiled(feature, pa.chunked_array([[text]]), Corruption(name, severity, 0)).to_pylist()
            pairs = zip(text.split(), found.split(), strict=True)
            now = {place for place, (one, other) in enumerate(pairs) if one != other}
            assert hit < now
            hit = now
        assert 0.25 < len(hit) / len(text.split()) < 0.6


def test_words_are_dropped_swapped_and_misspelt_as_named() -> None:
    draw = np.random.default_rng
    text = "one two  three\tfour five six seven eight"
    dropped = spoil_text("dropped_words", text, draw(1), 4).split()
    assert len(dropped) < 8 and [word for word in text.split() if word in dropped] == dropped
    swapped = spoil_text("swapped_words", text, draw(1), 4)
    assert sorted(swapped.split()) == sorted(text.split()) and swapped.split() != text.split()
    assert spoil_text("dropped_words", "word", draw(0), 4) == "word", "an empty text is no text"
    assert {typo("g", draw(seed)) for seed in range(60)} == set("tyfhvb")
    assert typo("ğı", draw(0)) == "ığ"
    assert spoil_text("case", text, draw(1), 0).lower() == text, "white space stays"
