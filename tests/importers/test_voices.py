"""The importer of voices without its program, and what the datasheet says of the shipped rows."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from graftline.environment import ROOT
from graftline.importers import voices
from graftline.importers.voices import EACH, PITCHES, SPEEDS, TEXTS, VOICES, Spoken

RAW = ROOT / "data" / "voices" / "raw" / "voices.parquet"


def tone(one: Spoken) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(22_050) * one.pitch / 900), 22_050, format="WAV")
    return file.getvalue()


def test_short_plain_definitions_are_spoken_by_several_voices() -> None:
    glosses = [
        "a kind act",
        'small plant lice; "x"',
        "the 3rd of them",
        "x" * 60,
        "Capital letters here",
        "small plant lice",
    ]
    found = voices.planned(glosses)
    assert {one.text for one in found} == {"small plant lice"}
    assert len({one.voice for one in found}) == len(found) == EACH
    assert found == voices.planned(list(reversed(glosses)))


def test_equal_clips_are_equal_bytes() -> None:
    """libsndfile draws a number for each Ogg stream."""
    found = voices.planned(["small plant lice"])
    tables = [voices.as_table(found, tone).to_pylist() for _ in range(2)]
    assert tables[0] == tables[1]
    values, rate = soundfile.read(io.BytesIO(tables[0][0]["audio"]["bytes"]))
    assert rate == voices.RATE and len(values) == voices.RATE


def test_a_stream_with_another_number_is_the_same_sound() -> None:
    made = voices.small(tone(Spoken("x", "m1", 40, 150)), 1)
    other = voices.with_serial(made, 77)
    assert other != made and voices.with_serial(other, 1) == made
    assert (soundfile.read(io.BytesIO(other))[0] == soundfile.read(io.BytesIO(made))[0]).all()


@pytest.fixture(scope="module")
def shipped() -> list[dict[str, Any]]:
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    rows: list[dict[str, Any]] = pq.read_table(RAW).to_pylist()
    return rows


def test_the_shipped_rows_are_as_the_datasheet_says(shipped: list[dict[str, Any]]) -> None:
    datasheet = (ROOT / "data/voices/README.md").read_text()
    assert len(shipped) == TEXTS * EACH and f"{len(shipped):,}" in datasheet
    assert Counter(row["voice"] for row in shipped) == dict.fromkeys(VOICES, TEXTS * EACH // len(VOICES))
    assert all(PITCHES[0] <= row["pitch"] <= PITCHES[1] and SPEEDS[0] <= row["speed"] <= SPEEDS[1] for row in shipped)
    seconds = [soundfile.info(io.BytesIO(row["audio"]["bytes"])).duration for row in shipped]
    for number in (min(seconds), max(seconds)):
        assert f"{number:.2f}" in datasheet
    assert f"{sum(seconds) / 60:.0f} minutes" in datasheet
    assert "synthetic" in datasheet and "GPL" in datasheet
