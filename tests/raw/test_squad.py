"""SQuAD's JSON: the paper's format by rows, and files that are not as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftline.errors import InputError
from graftline.raw import squad
from graftline.raw.batches import RawBatch
from graftline.raw.files import look, raw_files, read_batches
from graftline.raw.reader import Asked

NAMES = ["id", "title", "question", "context", "answers"]
PARAGRAPH = "The Normans gave their name to Normandy, a region in France."


def document() -> dict[str, Any]:
    """Version 2.0 as its authors publish it: an answer twice, none with a plausible one, and one that nobody gave."""
    asked = [
        {"question": "Where is Normandy?", "id": "a1", "is_impossible": False,
         "answers": [{"text": "France", "answer_start": 53}, {"text": "in France", "answer_start": 50}]},
        {"question": "Who gave it to Rollo?", "id": "a2", "is_impossible": True, "answers": [],
         "plausible_answers": [{"text": "The Normans", "answer_start": 0}]},
        {"question": "Who gave it its name?", "id": "a3"},
    ]  # fmt: skip
    return {"version": "v2.0", "data": [{"title": "Normans", "paragraphs": [{"qas": asked, "context": PARAGRAPH}]}]}


def write(folder: Path, found: Any) -> Path:
    path = folder / "train.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found), encoding="utf-8")
    return path


def rows(folder: Path, **asked: Any) -> list[RawBatch]:
    return list(read_batches(raw_files(folder), Asked(**{"columns": NAMES, **asked})))


def test_a_question_is_a_row(tmp_path: Path) -> None:
    write(tmp_path, document())
    (batch,) = rows(tmp_path)
    assert batch.columns["question"].to_pylist()[1:] == ["Who gave it to Rollo?", "Who gave it its name?"]
    assert batch.columns["id"].to_pylist() == ["a1", "a2", "a3"]
    assert set(batch.columns["context"].to_pylist()) == {PARAGRAPH} and set(batch.columns["title"].to_pylist()) == {
        "Normans"
    }
    assert batch.columns["answers"].to_pylist() == [
        {"text": ["France", "in France"], "answer_start": [53, 50]}, {"text": [], "answer_start": []}, None,
    ]  # fmt: skip


def test_columns_have_other_names_and_others_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, document())
    (batch,) = rows(tmp_path, columns=["asked"], found_as={"asked": "question"}, others="drop")
    assert batch.columns["asked"].to_pylist()[0] == "Where is Normandy?"
    assert batch.dropped == ("id", "title", "context", "answers")
    with pytest.raises(InputError, match="unknown column 'id'"):
        rows(tmp_path, columns=["question"])


def test_many_questions_come_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squad.limits, "TEXT_BYTES", 100)
    write(tmp_path, document())
    batches = rows(tmp_path)
    assert [(batch.first_row, batch.rows) for batch in batches] == [(0, 2), (2, 1)]


def test_it_is_looked_at_as_it_is_read(tmp_path: Path) -> None:
    found = look(write(tmp_path, document()))
    assert (found.format, found.rows, found.exact) == ("squad", 3, True)
    assert found.schema.names == NAMES


def test_a_fault_is_told_alike_in_a_folder_with_a_bracket(tmp_path: Path) -> None:
    (folder := tmp_path / "raw [1]").mkdir()
    write(folder, {"data": {"paragraphs": 1}})
    with pytest.raises(InputError, match=r"train\.json: data: \{.paragraphs.: 1\}; expected a list"):
        rows(folder)


def paragraph(found: dict[str, Any]) -> dict[str, Any]:
    inside: dict[str, Any] = found["data"][0]["paragraphs"][0]
    return inside


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(data={"paragraphs": 1}), r'train\.json: data: {"paragraphs": 1}; expected a list'),
        (lambda found: found["data"].append(7), r"data\[1\]\.paragraphs: nothing"),
        (lambda found: paragraph(found).pop("qas"), r"data\[0\]\.paragraphs\[0\]\.qas: nothing; expected a list"),
        (lambda found: paragraph(found).update(context=3), r"paragraphs\[0\]\.context: 3; expected a text"),
        (lambda found: paragraph(found)["qas"][1].update(question=None), r"qas\[1\]\.question: nothing"),
        (lambda found: paragraph(found)["qas"][0].update(answers=["x"]), r"answers\[0\]\.text: nothing"),
        (
            lambda found: paragraph(found)["qas"][0]["answers"][1].update(answer_start="50"),
            r'qas\[0\]\.answers\[1\]\.answer_start: "50"; expected a whole number',
        ),
    ],
)
def test_a_file_that_is_not_so_is_refused_with_the_place(change: Any, message: str, tmp_path: Path) -> None:
    found = document()
    change(found)
    write(tmp_path, found)
    with pytest.raises(InputError, match=message):
        rows(tmp_path)


@pytest.mark.parametrize("key", ["context", "question", "text"])
def test_half_of_a_surrogate_pair_is_refused_with_the_place(key: str, tmp_path: Path) -> None:
    found = document()
    inside = paragraph(found)
    asked = inside["qas"][0]
    {"context": inside, "question": asked, "text": asked["answers"][0]}[key][key] = "a \ud83d b"
    assert "\\ud83d" in write(tmp_path, found).read_text()
    with pytest.raises(InputError, match=rf"paragraphs\[0\].*\.{key}: half of a surrogate pair; expected characters"):
        rows(tmp_path)


def test_other_json_is_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path, [{"question": "x"}])
    with pytest.raises(InputError, match=r"unknown file type '\.json'.*convert it to JSON lines"):
        rows(tmp_path)
    write(tmp_path, json.dumps(document())[:-9])
    with pytest.raises(InputError, match="not JSON"):
        rows(tmp_path)


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squad, "MOST_BYTES", 10)
    write(tmp_path, document())
    with pytest.raises(InputError, match="expected at most 10; divide it by its articles"):
        rows(tmp_path)
