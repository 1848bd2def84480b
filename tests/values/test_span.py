"""Answers that stand in a text: what is read, what is refused and in which words, and what they are in a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.values.contract import load_contract
from graftline.values.guesses import Sampled, span_of
from graftline.values.span import ARROW, Answer, Span, SpanLabel

TEXT = "A kite is a bird; a kite flies. \u00dcber \U0001f41f."
FULL = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int64()))])
RULES = ("form", "text", "inside", "place", "found")


def read(
    values: list[Any], kind: pa.DataType, *, is_text: bool = False, **rules: Any
) -> tuple[list[str], list[Any], dict[str, int]]:
    """Return the fault of each row ("" without one), the stored values, and what was changed."""
    columns = {"answer": pa.array(values, kind), "context": pa.array([TEXT] * len(values))}
    batch = RawBatch(Path("x"), 0, columns, is_text, np.full(len(values), 2))
    found = Span(of="context", **rules).read(batch, "answer")
    faults = []
    for place in range(len(values)):
        broken = [f"{rule}: {found.facts[rule][place]}" for rule in RULES if found.facts[rule][place] is not None]
        assert len(broken) < 2
        faults.append("".join(broken))
    return faults, found.take(np.ones(len(values), bool)).to_pylist(), dict(found.changes)


def answer(*pairs: tuple[Any, Any]) -> dict[str, list[Any]]:
    return {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}


def test_answers_are_stretches_of_the_text_several_of_them_or_none() -> None:
    at = TEXT.index("\U0001f41f")
    given = [answer(("bird", 12)), answer(("kite", 2), ("kite", 20)), answer(), None, answer(("\U0001f41f", at))]
    faults, stored, changes = read(given, FULL)
    assert faults == [""] * 5 and not changes
    assert stored[0] == {"text": ["bird"], "start": [12]} and stored[2] == {"text": [], "start": []}
    assert stored[1]["start"] == [2, 20] and stored[3] is None
    label = SpanLabel("answer").values(pa.chunked_array([pa.array([stored[1], stored[2]], ARROW)]))
    assert label == [[Answer("kite", 2), Answer("kite", 20)], []]


def test_what_is_wrong_is_said_with_what_stands_there() -> None:
    given = [
        answer(("", 3)), answer(("  ", 1)), answer(("kite", 11)), answer(("bird", len(TEXT) - 2)), answer(("bird", -1)),
        {"text": ["bird", "kite"], "answer_start": [12]}, answer(("bird", 12), ("a kite", 19)), answer((None, 3)),
    ]  # fmt: skip
    faults, _, _ = read(given, FULL)
    length = len(TEXT)
    assert faults == [
        "text: ''",
        "text: '  '",
        "place: at 11 stands ' bir', not 'kite'",
        f"inside: characters {length - 2} to {length + 2} of {length}",
        f"inside: characters -1 to 3 of {length}",
        "form: 2 texts, starts [12]",
        "place: at 19 stands ' kite ', not 'a kite'",
        "form: 1 texts, starts [3]",
    ]


def test_an_answer_without_a_start_is_looked_for_and_counted() -> None:
    faults, stored, changes = read(["bird", "kite", "dog", "-", ""], pa.string(), absent="-")
    assert faults == ["", "found: 'kite' stands in it 2 times", "found: 'dog' does not stand in it", "", "text: ''"]
    assert stored[0] == {"text": ["bird"], "start": [12]} and stored[3] == {"text": [], "start": []}
    assert changes == {"located": 1}
    faults, stored, changes = read(["kite"], pa.string(), locate="first")
    assert faults == [""] and stored[0]["start"] == [2] and changes == {"located": 1, "first_of_several": 1}
    faults, stored, _ = read([["bird", "flies"], []], pa.list_(pa.string()))
    assert faults == ["", ""] and stored == [{"text": ["bird", "flies"], "start": [12, 25]}, {"text": [], "start": []}]


def test_a_missing_word_in_a_list_is_no_answer_only_where_a_word_says_so() -> None:
    faults, stored, _ = read([[None], ["-"]], pa.list_(pa.string()), absent="-")
    assert faults == ["text: None", ""] and stored[1] == {"text": [], "start": []}
    faults, _, _ = read([[None]], pa.list_(pa.string()))
    assert faults == ["text: None"]


def test_a_column_that_holds_no_answers_is_refused() -> None:
    for values, kind in (([1], pa.int64()), ([{"start": 1}], pa.struct([("start", pa.int64())]))):
        with pytest.raises(InputError, match=r"column 'answer': type .*expected objects with text and start, or text"):
            read(values, kind)


def test_one_answer_is_one_identity_wherever_it_stands_another() -> None:
    span = Span(of="context")
    values = pa.array([answer(("a", 0)), answer(("a", 1)), answer(), None, answer(("a", 0))], FULL)
    stored = pa.array(
        [None if v is None else {"text": v["text"], "start": v["answer_start"]} for v in values.to_pylist()], ARROW
    )
    ids = span.ids(stored)
    assert ids[0] == ids[4] and len(set(ids.tolist())) == 4 and ids[3] == -1 and (ids[[0, 1, 2]] >= 0).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            "{question: {type: text}, context: {type: text}, a: {type: span, of: question}}",
            "'question' is not the last",
        ),
        ("{context: {type: text}, a: {type: span, of: context}}", "is not the last of two columns of type text"),
        ("{question: {type: text}, context: {type: text}, a: {type: span, of: text}}", "'text' is not the last"),
        ("{q: {type: text}, c: {type: text}, a: {type: span, of: c, role: metadata}}", "a span is the label"),
    ],
)
def test_a_contract_says_which_text_answers_stand_in(columns: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "expectations.yaml").write_text(f"columns: {columns}")
    with pytest.raises((InputError, ValidationError), match=message):
        load_contract(tmp_path / "expectations.yaml")


def test_answers_are_recognised_by_standing_in_the_text() -> None:
    texts = Sampled("context", pa.array([TEXT, TEXT]), False)
    full = Sampled("answers", pa.array([answer(("bird", 12)), answer()], FULL), False)
    guess = span_of(texts, full)
    assert guess is not None and guess.rules == {"type": "span", "of": "context"}
    guess = span_of(texts, Sampled("answer", pa.array(["kite", "bird"]), True))
    assert guess is not None and guess.rules["locate"] == "first" and "1 several times" in guess.why
    assert span_of(texts, Sampled("answer", pa.array(["dog", "yes"]), True)) is None
