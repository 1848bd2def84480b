"""Transcripts: what is read, what is refused, and what they are in a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.values.contract import load_contract
from graftline.values.facts import ColumnBatch
from graftline.values.transcript import Transcript, TranscriptLabel


def read(
    values: list[Any], seconds: list[float] | None = None, **rules: Any
) -> tuple[list[str], list[Any], dict[str, int]]:
    """Return the rules that each row breaks, the stored values, and what was changed."""
    column = Transcript.model_validate(rules)
    batch = RawBatch(Path("x"), 0, {"said": pa.array(values, pa.string())}, False, np.full(len(values), 2))
    found = column.read(batch, "said")
    length = np.array(seconds or [10.0] * len(values))
    clips = ColumnBatch({"seconds": length}, str, lambda mask: pa.array([]))
    facts = found.facts | column.facts_beside("said", {"said": found, "audio": clips}, ["audio"])
    broken = [
        " ".join(
            rule.name
            for rule in column.rules("said")
            if not rule.arguments.get("min_value", -np.inf)
            <= np.nan_to_num(facts[rule.column.removeprefix("said.")][place])
            <= rule.arguments.get("max_value", np.inf)
        )
        for place in range(len(values))
    ]
    return broken, found.take(np.ones(len(values), bool)).to_pylist(), dict(found.changes)


def test_white_space_is_made_single_and_counted() -> None:
    broken, stored, changes = read(["Please  hold. ", "Yes.", None, "one\ntwo"])
    assert broken == [""] * 4 and stored == ["Please hold.", "Yes.", None, "one two"]
    assert changes == {"spaced": 2}


def test_an_empty_transcript_is_bad_unless_a_word_says_that_nothing_is_said() -> None:
    broken, _, _ = read(["", "  ", "<silence>"])
    assert broken == ["said.empty", "said.empty", ""]
    broken, stored, changes = read(["", "<silence>", "said"], silence="<silence>")
    assert broken == ["said.empty", "", ""] and stored == ["", "", "said"] and changes == {"silent": 1}


def test_what_nobody_can_say_in_that_time_is_bad() -> None:
    broken, _, _ = read(["a" * 41, "a" * 39, None, "a\x07"], [1.0, 1.0, 0.0, 1.0])
    assert broken == ["said.max_rate", "", "", "said.characters"]
    broken, _, _ = read(["a" * 11, "a" * 9], [1.0, 1.0], max_rate=10, max_length=8)
    assert broken == ["said.max_length said.max_rate", "said.max_length"]


def test_in_a_dataset_it_is_text_and_the_empty_one_is_silence() -> None:
    label = TranscriptLabel("said")
    assert label.values(pa.chunked_array([["a b", ""]])) == ["a b", ""]
    with pytest.raises(ValueError, match="lacks a transcript"):
        label.values(pa.chunked_array([["a", None]]))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("said: {type: transcript}\n  words: {type: text}", "a transcript is the label of one column of type audio"),
        ("said: {type: transcript, role: metadata}\n  clip: {type: audio}", "a transcript is the label of one column"),
        ("said: {type: transcript, max_rate: 0}\n  clip: {type: audio}", "max_rate"),
    ],
)
def test_contracts_that_cannot_be_are_refused(columns: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "expectations.yaml"
    path.write_text(f"columns:\n  {columns}\n")
    with pytest.raises(InputError, match=says):
        load_contract(path)
