"""The files of a new task: they read back as meant, each guess says from what, and a run can do what they ask."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import owned
import pytest

from graftline.errors import InputError
from graftline.intake.datasheet import datasheet
from graftline.intake.draft import Draft, draft
from graftline.intake.look import look
from graftline.intake.roles import Wishes, propose
from graftline.label_counts import asked
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.values.contract import load_contract
from graftline.yamlfile import parse_yaml
from graftline.yamlnotes import Said, plain, write_yaml


def drafted(tmp_path: Path, rows: Sequence[dict[str, Any]], licence: str = "CC0-1.0") -> Draft:
    found = look(owned.write_jsonl(tmp_path / "x.jsonl", rows))
    return draft("letters", found, propose(found, Wishes(guessing=True)), licence)


def params(made: Draft) -> dict[str, Any]:
    document: dict[str, Any] = parse_yaml(made.params, where="params.yaml")
    return document


def test_every_guess_in_the_contract_says_from_what(tmp_path: Path) -> None:
    rows = owned.labelled(120, patient=["a", "b"], product_id=[f"p{n}" for n in range(30)], count_=[1, 2], nested=[{}])
    made = drafted(tmp_path, rows)
    lines = made.expectations.splitlines()
    for name in ("text", "label", "patient", "product_id", "count_", "min_rows"):
        (line,) = (line for line in lines if re.match(rf" *'?{name}'?:", line))
        assert re.search(r"  # \w", line), line


def test_names_that_yaml_reads_as_something_else_stay_names(tmp_path: Path) -> None:
    names = ["yes", "1", "null", "a: b", "# no", " x", "naïve ✓", "- y", "2024-01-01", "'", "*a", "[", "{}", "x\ny"]
    rows = [{"text": row["text"], "label": row["label"], **dict.fromkeys(names, "v")} for row in owned.labelled(60)]
    for row, value in zip(rows, ["no", "on", "007", "1e5", "~"] * 12, strict=True):
        row["label"] = value
    made = drafted(tmp_path, rows)
    (tmp_path / "expectations.yaml").write_text(made.expectations, encoding="utf-8")
    contract = load_contract(tmp_path / "expectations.yaml")
    assert set(contract.columns) == {"text", "label", *names}
    assert contract.classes == ("007", "1e5", "no", "on", "~")
    assert made.trial.bad == 0


def test_yaml_with_notes_reads_back_equal() -> None:
    document = {
        "a": Said({"b": Said(1, "why\nnot # this"), "c": ["yes", "1e5", "\u2028", "", " x"]}, "x"),
        "long": {"classes": [f"class {number}" for number in range(40)]},
        "null": None, "1": 1.5, "t": True, "empty": {},
    }  # fmt: skip
    assert parse_yaml(write_yaml(document), where="it") == plain(document)


def test_the_split_is_such_that_every_class_is_in_every_part(tmp_path: Path) -> None:
    """By the usual shares some class of a dozen rows would be missing from val."""
    rows = [row | {"label": f"c{number % 12:02}"} for number, row in enumerate(owned.labelled(150))]
    made = drafted(tmp_path, rows)
    test, val = made.fractions
    assert (made.trial.splits(test, val, 12) > 0).all()
    assert not (made.trial.splits(0.2, 0.1, 12) > 0).all()
    assert params(made)["validate"]["test_fraction"] == test


@pytest.mark.parametrize(
    ("persons", "with_spam", "fractions", "warned"),
    [(100, 100, (0.2, 0.1), False), (22, 22, (0.25, 0.2), False), (30, 8, (0.3, 0.3), True)],
)
def test_the_fewer_the_persons_the_larger_test_and_val(
    tmp_path: Path, persons: int, with_spam: int, fractions: tuple[float, float], warned: bool
) -> None:
    """Which of them fall into val is the store's key's to say: by the usual shares it is none of 22 one time in ten."""
    rows = owned.labelled(400, user=[f"u{number}" for number in range(persons)])
    rows = [row for row in rows if row["label"] == "ham" or int(row["user"][1:]) < with_spam]
    made = drafted(tmp_path, rows)
    assert made.contract.group == "user"
    assert made.fractions == fractions
    assert any("few persons" in warning for warning in made.warnings) == warned


def test_a_class_that_is_too_rare_is_left_out_and_named(tmp_path: Path) -> None:
    rows = owned.labelled(200)
    rows[0]["label"] = "scam"
    made = drafted(tmp_path, rows)
    assert made.contract.classes == ("ham", "spam")
    assert made.left_out == {"scam": 1}
    assert any("scam (1)" in warning and "role: split" in warning for warning in made.warnings)
    assert made.trial.bad == 1
    assert params(made)["validate"]["max_bad_fraction"] == 0.01


def test_rows_that_break_a_rule_are_allowed_for_and_named(tmp_path: Path) -> None:
    rows = owned.labelled(200)
    for row in rows[:10]:
        row["text"] = "  "
    made = drafted(tmp_path, rows)
    assert made.trial.by_rule == {"text.min_length": 10}
    assert params(made)["validate"]["max_bad_fraction"] == 0.08
    assert any("10 of 200 rows break a rule" in warning for warning in made.warnings)


@pytest.mark.parametrize("rows", [40, 200, 2000])
def test_no_more_labels_are_asked_for_than_there_are(tmp_path: Path, rows: int) -> None:
    made = drafted(tmp_path, owned.labelled(rows))
    document = params(made)
    finetune, evaluate = FinetuneParams(**document["finetune"]), EvaluateParams(**document["evaluate"])
    rarest = made.trial.splits(*made.fractions, 2)[:, 0].min()
    assert max(asked(finetune, evaluate).values()) <= rarest
    assert evaluate.gate.floors == {} and evaluate.gate.min_lift == {}


def test_equal_texts_with_and_without_a_label_do_not_stop_the_run(tmp_path: Path) -> None:
    rows = owned.labelled(100)
    made = drafted(tmp_path, [*rows, *(row | {"label": None} for row in rows[:20])])
    assert made.contract.columns["text"].unique
    assert not drafted(tmp_path, [*rows, *rows[:20]]).contract.columns["text"].unique


def test_longer_texts_get_longer_inputs_and_more_text_fewer_epochs(tmp_path: Path) -> None:
    rows = owned.labelled(60)
    short = params(drafted(tmp_path, rows))
    long = params(drafted(tmp_path, [row | {"text": " ".join([row["text"]] * 20)} for row in rows]))
    assert short["finetune"]["head"]["max_tokens"] == 64
    assert long["finetune"]["head"]["max_tokens"] == 512
    assert long["pretrain"]["trunk"]["max_length"] == 512
    many = params(drafted(tmp_path, [row | {"text": f"{n} {row['text']}"} for n, row in enumerate(rows * 300)]))
    assert many["pretrain"]["epochs"] < short["pretrain"]["epochs"] == 20


def test_a_licence_that_is_not_known_is_said_not_to_be(tmp_path: Path) -> None:
    made = drafted(tmp_path, owned.labelled(60), "unspecified")
    assert params(made)["publish"]["licence"] == "unspecified"
    assert re.search(r"licence: unspecified  # not known", made.params)
    page = datasheet(made, "x.jsonl")
    assert "| Licence | not known |" in page
    assert "- OPEN: What is the licence of the data?" in page
    assert "| Licence | CC0-1.0 |" in datasheet(drafted(tmp_path, owned.labelled(60)), "x.jsonl")


def test_the_datasheet_has_the_facts_and_marks_what_is_open(tmp_path: Path) -> None:
    rows = owned.labelled(100, **{"a|b": ["`x`"]})
    page = datasheet(drafted(tmp_path, rows), "x.jsonl")
    assert page.startswith("# letters: 100 rows\n")
    assert "| `text` | `text` | feature |" in page
    assert "| `a\\|b` | `string` | metadata |" in page
    counts = {mark: sum(row["label"] == mark for row in rows) for mark in ("ham", "spam")}
    assert f"| `ham` | {counts['ham']} |" in page
    assert page.count("- OPEN: ") >= 5


def test_a_contract_that_is_refused_is_told_of_the_persons_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = owned.write_jsonl(tmp_path / "x.jsonl", owned.labelled(60))
    found = look(path)
    made = propose(found, Wishes(guessing=True))
    made.columns["label"].rules["classes"] = ["ham", 7]
    with pytest.raises(InputError) as refused:
        draft("letters", found, made, "CC0-1.0")
    assert str(refused.value).startswith(f"{path}: columns.label.classes: ")
