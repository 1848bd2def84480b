"""Labels that are no class, and two columns that a model sees: what validate makes of them, and who may learn it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.dataset import Schema, read_schema, read_split
from graftline.errors import InputError
from graftline.problems.registry import PARAMETERS, make_problem
from graftline.values.labels import Labels
from graftline.values.questions import read_rows
from graftline.values.text import TextColumn

TEXT = {"type": "text"}


def label_of(glosses: pa.Table, kind: dict[str, Any], values: Callable[[int, str], Any]) -> tuple[Any, Any]:
    texts = glosses["text"].to_pylist()[:300]
    contract = {"columns": {"text": TEXT, "label": {**kind, "role": "label"}}}
    return contract, {"text": texts, "label": [values(row, text) for row, text in enumerate(texts)]}


def test_numbers_are_a_label(validate: Callable, write_table: Callable, glosses: pa.Table) -> None:
    contract, table = label_of(
        glosses,
        {"type": "float", "min": 0, "max": 2000, "nullable": True},
        lambda row, text: None if row % 10 == 0 else len(text) / 2,
    )
    run = validate(write_table(table), contract)
    assert run.code == 0, run.error
    schema = read_schema(run.out)
    assert (schema.label, schema.classes, schema.label_type) == ("label", (), "number")
    assert Schema.from_dict(json.loads(json.dumps(schema.as_dict()))) == schema
    train = read_split(run.out, "train", [TextColumn])
    assert train.label.tolist() == [len(text) / 2 for text in train.features[0]]
    profile = json.loads((run.out / "profile.json").read_text())["histograms"]
    assert sum(profile["label"]["counts"]) == 270
    assert run.table("unlabelled").num_rows == 300 - run.table("test").num_rows


def test_several_numbers_are_a_label(
    validate: Callable, write_table: Callable, glosses: pa.Table, tmp_path: Path
) -> None:
    contract, table = label_of(
        glosses, {"type": "numbers", "names": ["length", "row"], "min": -1, "max": 2000, "nullable": True},
        lambda row, text: None if row % 10 == 0 else [len(text) / 2, row - 0.5],
    )  # fmt: skip
    run = validate(write_table(table), contract)
    assert run.code == 0, run.error
    schema = read_schema(run.out)
    assert (schema.classes, schema.label_type) == (("length", "row"), "numbers")
    train = read_split(run.out, "train", [TextColumn])
    assert train.label.tolist() == [
        [len(text) / 2, row - 0.5] for row, text in zip(train.rows, train.features[0], strict=True)
    ]
    assert schema.label_column.croissant()["arrayShape"] == "2"
    profile = json.loads((run.out / "profile.json").read_text())["histograms"]
    assert sum(profile["label"]["counts"]) == 2 * 270
    folder = tmp_path / "csv"
    folder.mkdir()
    lines = [
        '"a dog","1.5 -0.5"',
        '"a cat","2 3"',
        '"a cow","2"',
        '"an ox","2 x"',
        '"a pig","2 inf"',
        '"a bee","2 2001"',
    ]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines * 1]) + "\n")
    wrong = validate(folder, contract, {"max_bad_fraction": 0}, out="wrong")
    assert wrong.code == 2
    for rule, row in (("length", 2), ("finite", 3), ("finite", 4), ("max", 5)):
        assert f"label.{rule} in" in wrong.error and str(row) in wrong.error


def test_sets_of_classes_are_a_label(validate: Callable, write_table: Callable, glosses: pa.Table) -> None:
    def found(row: int, text: str) -> list[str]:
        return [name for name in ("long", "of") if (name == "long" and len(text) > 60) or name in text.split()]

    contract, table = label_of(glosses, {"type": "labels", "classes": ["long", "of"]}, found)
    run = validate(write_table(table), contract)
    assert run.code == 0, run.error
    assert read_schema(run.out).label_type == "labels"
    train = read_split(run.out, "train", [TextColumn])
    assert train.label.dtype == bool
    assert [[name for name, has in zip(("long", "of"), row, strict=True) if has] for row in train.label] == [
        found(0, text) for text in train.features[0]
    ]
    table["label"][0] = ["short"]
    wrong = validate(write_table(table), contract, {"max_bad_fraction": 0}, out="wrong")
    assert wrong.code == 2 and "label.classes in 1 (rows 0)" in wrong.error


def test_the_order_of_a_set_does_not_count() -> None:
    column = Labels(classes=("long", "of", "cat"))
    one, other = (pa.array([names, [], None]) for names in (["long", "of"], ["of", "long", "of"]))
    assert column.cells(one) == column.cells(other)
    assert len(set(column.cells(one))) == 3
    assert column.ids(one).tolist() == column.ids(other).tolist()
    members, each = column.members(other, column.ids(other))
    assert (sorted(members.tolist()), each.tolist()) == ([0, 1], [2, 0, 0])


def test_answers_are_a_label_and_what_stands_in_their_place_is_said(validate: Callable, write_table: Callable) -> None:
    answers: list[dict[str, list[Any]] | None] = [
        {"text": [], "start": []} if n % 5 == 0 else {"text": [f"w{n}"], "start": [12]} for n in range(60)
    ]
    rows: dict[str, list[Any]] = {
        "question": [f"which word has the number {n}?" for n in range(60)],
        "context": [f"the word is w{n}, I say" for n in range(60)],
        "answer": [None, *answers[1:]],
    }
    contract = {
        "columns": {"question": TEXT, "context": TEXT, "answer": {"type": "span", "of": "context", "nullable": True}}
    }
    run = validate(write_table(rows), contract)
    assert run.code == 0, run.error
    schema = read_schema(run.out)
    assert schema.label_type == "span" and [feature.name for feature in schema.features] == ["question", "context"]
    train = read_split(run.out, "train", [TextColumn, TextColumn])
    for row, found in zip(train.rows, train.label, strict=True):
        assert found == ([] if row % 5 == 0 else [(f"w{row}", 12)])
    profile = json.loads((run.out / "profile.json").read_text())["histograms"]["answer.characters"]
    assert sum(profile["counts"]) == 59 and profile["counts"][0] == 11
    assert 0 in pq.read_table(run.out / "unlabelled.parquet")["row"].to_pylist(), "nobody answered it"
    rows["answer"][1:5] = [
        {"text": ["w1"], "start": [11]}, {"text": ["w2"], "start": [90]}, {"text": [""], "start": [3]},
        {"text": ["w4", "w4"], "start": [12]},
    ]  # fmt: skip
    wrong = validate(write_table(rows), contract, {"max_bad_fraction": 0.2}, out="wrong")
    assert wrong.code == 0, wrong.error
    lines = pq.read_table(wrong.out / "quarantine.parquet").to_pylist()
    assert [(line["row"], line["rule"], line["value"]) for line in lines] == [
        (1, "answer.place", "at 11 stands ' w', not 'w1'"),
        (2, "answer.inside", "characters 90 to 92 of 21"),
        (3, "answer.text", "''"),
        (4, "answer.form", "2 texts, starts [12]"),
    ]


def test_a_head_that_learns_from_labels_refuses_a_dataset_without_any() -> None:
    schema = Schema(TextColumn("text"), None, ())
    for name in ("text_regression", "sequence_classification"):
        with pytest.raises(InputError, match=r"no column is a label; expected"):
            make_problem(PARAMETERS[name](), schema).check(schema, "dataset")
    make_problem(PARAMETERS["text_generation"](), schema).check(schema, "dataset")


@pytest.fixture
def pairs(validate: Callable, write_table: Callable, glosses: pa.Table) -> Any:
    texts = glosses["text"].to_pylist()[:400]
    rows = {"second": texts[1::2], "first": texts[::2], "label": ["same" if row % 2 else "other" for row in range(200)]}
    label = {"type": "string", "role": "label", "classes": ["same", "other"]}
    return validate(write_table(rows), {"columns": {"first": TEXT, "second": TEXT, "label": label}})


def test_a_model_may_see_two_columns(pairs: Any) -> None:
    assert pairs.code == 0, pairs.error
    schema = read_schema(pairs.out)
    assert [feature.name for feature in schema.features] == ["first", "second"]
    train = read_split(pairs.out, "train", [TextColumn, TextColumn])
    table = pairs.table("train").sort_by("row")
    assert list(train.features) == [table["first"].to_pylist(), table["second"].to_pylist()]
    with pytest.raises(InputError, match="of type text and text; expected text;"):
        read_split(pairs.out, "train", [TextColumn])


def test_a_question_about_two_columns_is_a_row_of_a_file(pairs: Any, tmp_path: Path) -> None:
    features = read_schema(pairs.out).features
    (tmp_path / "asked").mkdir()
    asked = tmp_path / "asked" / "rows.jsonl"
    asked.write_text('{"first": "a", "second": "b", "more": 1}\n\n{"second": "d", "first": "c"}\n')
    assert [question.value for question in read_rows([asked.parent], features)] == [("a", "b"), ("c", "d")]
    asked.write_text('{"first": "a"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:1: 'None' is no text"):
        read_rows([asked], features)


def test_a_pair_turned_round_in_another_split_is_a_near_duplicate_and_a_shared_text_is_not(
    validate: Callable, write_table: Callable, glosses: pa.Table
) -> None:
    texts = [text for text in glosses["text"].to_pylist() if 60 < len(text) < 90][:43]
    (one, two, other), rest = texts[:3], texts[3:]
    contract = {
        "columns": {"first": TEXT, "second": TEXT, "part": {"type": "string", "role": "split"}},
        "near_duplicates": {"min_jaccard": 0.8},
    }

    def found(first: str, second: str, name: str) -> Any:
        rows = {"first": [one, first, *rest[::2]], "second": [two, second, *rest[1::2]]}
        parts = ["train", "test", *["train"] * 16, "val", "val", "test", "test"]
        return validate(write_table({**rows, "part": parts}, name), contract, out=f"{name}_out")

    shared = found(one, other, "shared")
    assert shared.code == 0, shared.error
    turned = found(two.upper(), f"{one} x", "turned")
    assert turned.code == 2
    assert "near-duplicate texts in two splits" in turned.error
    assert "row 0 (train) and row 1 (test, jaccard 0.9" in turned.error


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_problem_says_which_columns_it_needs(pairs: Any, name: str) -> None:
    schema = read_schema(pairs.out)
    if name == "pair_classification":
        problem = make_problem(PARAMETERS[name](), schema)
        problem.check(schema, "schema.json")
        with pytest.raises(InputError, match="the feature is of type text; expected text and text"):
            problem.check(Schema(schema.feature, "label", ("a", "b")), "schema.json")
        return
    if name == "sequence_to_sequence":  # it reads one of two texts and writes the other, whatever label there is
        make_problem(PARAMETERS[name](), schema).check(schema, "schema.json")
        return
    two = {"question_answering": "the label is of type category; expected span"}
    with pytest.raises(InputError, match=two.get(name, "the feature is of type text and text")):
        make_problem(PARAMETERS[name](), schema).check(schema, "schema.json")
    labels = [(("a", "b"), "category"), ((), "number"), (("a", "b"), "labels")]
    known = [Schema(schema.feature, "label", classes, (), kind) for classes, kind in labels]
    problem = make_problem(PARAMETERS[name](), known[0])
    if name in two or set(problem.roles) != {"text", "label"}:
        return
    wanted = problem.roles["label"].type
    for one in known:
        if one.label_type == wanted:
            problem.check(one, "schema.json")
        else:
            with pytest.raises(InputError, match=f"the label is of type {one.label_type}; expected {wanted}"):
                problem.check(one, "schema.json")
