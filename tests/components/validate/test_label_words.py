"""Labels under the words of the raw data: mapped, trimmed, counted; and columns that the contract does not name."""

from __future__ import annotations

import decimal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from graftline.errors import InputError
from graftline.values.contract import load_contract

TEXTS = [f"document number {number} of many" for number in range(120)]
WORDS = ["NA", "null", "True", "1e5", "007"]


def contract(**label: Any) -> dict[str, Any]:
    return {"columns": {"text": {"type": "text"}, "label": {"role": "label", **label}}}


def labels(run: Any) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for split in ("train", "val", "test"):
        found.update(run.table(split)["label"].to_pylist())
    return found


def test_words_are_mapped_trimmed_and_counted(tmp_path: Path, validate: Callable[..., Any]) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    table = pd.DataFrame({"text": TEXTS, "label": [" ham", "spam", "SPAM ", "-"] * 30})
    table.to_csv(raw / "x.csv")
    rules = contract(type="integer", classes=[0, 1], map={"ham": 0, "spam": 1, "SPAM": 1, "-": None}, trim=True)
    rules["columns"]["label"]["nullable"] = True
    run = validate(raw, rules | {"others": "drop"})
    assert run.code == 0, run.error
    assert labels(run) == {0: 30, 1: 60}
    assert len(run.table("unlabelled")) >= 30
    page = (run.out / "report.html").read_text()
    for said in (
        "trimmed",
        "mapped: &#39;ham&#39; to 0",
        "mapped: &#39;SPAM&#39; to 1",
        "mapped: &#39;-&#39; to missing",
    ):
        assert f"<td>{said}</td>" in page
    assert "columns dropped, as the contract says: <code>(no name)</code>" in page
    assert "label: 60 times: trimmed" in run.error and "1 columns are dropped, as the contract says: ''" in run.error
    record = (run.out / "record.json").read_text()
    for metric in ('"columns_dropped":1', '"label.mapped":120', '"label.trimmed":60'):
        assert metric in record


def test_words_that_yaml_or_pandas_would_read_as_something_else_are_classes(
    tmp_path: Path, validate: Callable[..., Any]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    texts = [f"{text}, {number}" for text in TEXTS for number in range(5)]
    table = pd.DataFrame({"text": texts, "label": WORDS * 120})
    table[:300].to_csv(raw / "a.csv", index=False)
    table[300:].to_json(raw / "b.jsonl", orient="records", lines=True)
    run = validate(raw, contract(type="string", classes=WORDS))
    assert run.code == 0, run.error
    assert labels(run) == dict.fromkeys(WORDS, 120)


@pytest.mark.parametrize(
    ("values", "rules", "expected"),
    [
        ([True, False], {"type": "integer", "classes": [0, 1]}, [1, 0]),
        ([True, False], {"type": "string", "classes": ["true", "false"]}, ["true", "false"]),
        ([True, False], {"type": "string", "classes": ["y", "n"], "map": {"true": "y", "false": "n"}}, ["y", "n"]),
        ([1.0, 2.0], {"type": "integer", "classes": [1, 2]}, [1, 2]),
        (
            [0.5, 1.0],
            {"type": "string", "classes": ["half", "whole"], "map": {0.5: "half", 1: "whole"}},
            ["half", "whole"],
        ),
        ([3, 4], {"type": "string", "classes": ["three", "four"], "map": {3: "three", "4": "four"}}, ["three", "four"]),
        ([decimal.Decimal("1"), decimal.Decimal("2")], {"type": "integer", "classes": [1, 2]}, [1, 2]),
    ],
)
def test_booleans_floats_and_decimals_are_labels(
    write_table: Callable[..., Path], validate: Callable[..., Any], values: Any, rules: Any, expected: Any
) -> None:
    run = validate(write_table(pa.table({"text": TEXTS, "label": values * 60})), contract(**rules))
    assert run.code == 0, run.error
    assert labels(run) == dict.fromkeys(expected, 60)


def test_a_word_that_is_not_mapped_stays_and_is_judged(
    write_table: Callable[..., Path], validate: Callable[..., Any]
) -> None:
    raw = write_table(pa.table({"text": TEXTS, "label": ["ham", "spam", "eggs"] * 40}))
    run = validate(raw, contract(type="integer", classes=[0, 1], map={"ham": 0, "spam": 1}), {"max_bad_fraction": 0.5})
    assert run.code == 0, run.error
    assert labels(run) == {0: 40, 1: 40}
    assert set(run.table("quarantine")["value"].to_pylist()) == {"eggs"}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("{ham: 2}", "columns.label.map: 2 is none of the classes"),
        ("{yes: 1}", "columns.label.map: YAML reads a word here as True .*quotes"),
        ("{null: 1}", "columns.label.map: YAML reads a word here as None"),
        ("{ham: x}", "columns.label.map.ham"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(tmp_path: Path, mapping: str, message: str) -> None:
    path = tmp_path / "contract.yaml"
    label = f"{{type: integer, role: label, classes: [0, 1], map: {mapping}}}"
    path.write_text(f"columns:\n  text: {{type: text}}\n  label: {label}\n")
    with pytest.raises(InputError, match=message):
        load_contract(path)
