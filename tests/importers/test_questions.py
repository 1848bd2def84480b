"""The importer of questions on lines of WordNet's format, and what the datasheet says of the shipped rows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import questions

RAW = ROOT / "data" / "questions" / "raw" / "questions.parquet"
HEAD = "  1 This software and database is being provided to you, the LICENSEE, by"
NOUNS = (
    "00000001 13 n 01 cream 0 000 | the part of milk containing fat",
    "00000002 13 n 02 light_cream 0 coffee_cream 0 001 @ 00000001 n 0000 "
    '| cream that has at least 18% butterfat; "he took cream"',
    "00000003 18 n 02 Milton 0 John_Milton 0 002 @i 00000004 n 0000 ;c 00000001 n 0000 "
    "| English poet; wrote odes (1608-1674)",
    "00000004 18 n 01 poet 0 000 | a writer of poems (the term is usually kept for writers of good poetry and verse)",
    "00000005 18 n 01 poetess 0 001 @ 00000004 n 0000 | a poet who is a woman, and not another poet",
)
VERBS = (
    "00000006 38 v 01 capsize 0 001 @ 00000007 v 0000 01 + 02 00 | overturn accidentally",
    "00000007 38 v 01 overturn 0 000 00 | turn",
)


LINES = {"data.noun": (HEAD, *NOUNS), "data.verb": (HEAD, *VERBS), "data.adj": (), "data.adv": ()}
FILES = {name: "\n".join(lines).encode() for name, lines in LINES.items()}


def entries() -> dict[str, questions.Entry]:
    found = questions.entries(FILES)
    return {entry.headword: entry for entry in found}


def test_a_pointer_is_a_question_if_its_word_stands_once_in_the_definition() -> None:
    found = entries()
    assert found["light cream"].text == "light cream: cream that has at least 18% butterfat"
    assert found["light cream"].answers == {"kind": ("cream", 0)}
    assert found["Milton"].answers == {"identity": ("poet", 8), "born": ("1608", 26), "died": ("1674", 31)}
    assert found["poetess"].answers == {}, "two places"
    assert found["capsize"].answers == {"doing": ("overturn", 0)}
    assert "poet" not in found and "overturn" not in found, "too long, and too short"


def test_a_line_that_is_no_synset_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.noun: line 1: 'no bar'"):
        questions.entries({**dict.fromkeys(("data.verb", "data.adj", "data.adv"), b""), "data.noun": b"no bar"})


@pytest.fixture(scope="module")
def shipped() -> list[dict[str, Any]]:
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    rows: list[dict[str, Any]] = pq.read_table(RAW).to_pylist()
    return rows


def headword(row: dict[str, Any]) -> tuple[str, int]:
    """Return what is asked about, and in which of the kind's wordings."""
    for number, frame in enumerate(questions.WORDINGS[row["kind"]]):
        before, after = frame.split("{}")
        if row["question"].startswith(before) and row["question"].endswith(after):
            return row["question"].removeprefix(before).removesuffix(after), number
    raise AssertionError(row["question"])


def test_every_answer_stands_where_it_says_and_in_the_entry_asked_about(shipped: list[dict[str, Any]]) -> None:
    for row in shipped:
        for text, start in zip(row["answer"]["text"], row["answer"]["start"], strict=True):
            assert row["context"][start : start + len(text)] == text
            assert row["context"].startswith(f"{headword(row)[0]}: ") and start > len(headword(row)[0])


def test_the_splits_share_no_entry_and_no_wording(shipped: list[dict[str, Any]]) -> None:
    parts: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    wordings: dict[str, set[str]] = {name: set() for name in parts}
    for row in shipped:
        parts[row["split"]].add(row["context"].partition(": ")[2].casefold())
        wordings[row["split"]].add(f"{row['kind']} {headword(row)[1]}")
    assert not parts["train"] & parts["test"] and not parts["train"] & parts["val"] and not parts["val"] & parts["test"]
    assert wordings["test"] == {f"{kind} 2" for kind in questions.WORDINGS}
    assert wordings["train"] == wordings["val"] == {f"{kind} {form}" for kind in questions.WORDINGS for form in (0, 1)}


def test_a_fifth_has_no_answer_for_the_entry_does_not_say_it_or_is_another_words(shipped: list[dict[str, Any]]) -> None:
    empty: Counter[str] = Counter()
    for row in shipped:
        if not row["answer"]["text"]:
            empty[row["kind"]] += 1
            sign = questions.SIGNS.get(row["kind"])
            other = not row["context"].startswith(f"{headword(row)[0]}: ")
            assert other if sign is None else not re.search(sign, row["context"].partition(": ")[2])
    assert 0.15 < empty.total() / len(shipped) < 0.25 and len(empty) == len(questions.WORDINGS)


def test_the_notice_that_the_licence_asks_for_ships_with_the_data() -> None:
    assert "WordNet 3.0 Copyright 2006 by Princeton University." in (RAW.parents[1] / "LICENSE").read_text()


def test_equal_bytes_come_of_equal_files_and_each_row_is_a_question_about_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "fetch", lambda source: FILES)
    path = questions.write(tmp_path / "one")
    rows = pq.read_table(path).to_pylist()
    texts = {entry.text: entry for entry in entries().values()}
    assert rows and {row["context"] for row in rows} <= set(texts)
    for row in rows:
        of = texts[row["context"]]
        assert row["split"] == of.split
        if row["answer"]["text"]:
            word, place = of.answers[row["kind"]]  # in the definition, which stands behind the headword
            assert row["answer"] == {"text": [word], "start": [len(f"{of.headword}: ") + place]}
    monkeypatch.setattr(questions, "fetch", lambda source: dict(reversed(FILES.items())))
    assert questions.write(tmp_path / "two").read_bytes() == path.read_bytes()
