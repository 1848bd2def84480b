"""Validate on real glosses and tagged sentences: what it keeps, what it quarantines, when it stops."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.records.folder import read_execution, read_record
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store
from graftline.values.contract import load_contract
from graftline.values.splits import read_tagged, read_texts
from graftline.values.text import TextColumn
from graftline.values.words import TokensColumn

CLASSES = ["noun.animal", "noun.artifact"]
TAGS = ["ADJ", "ADP", "ADV", "CONJ", "DET", "NOUN", "NUM", "PRON", "PRT", "PUNCT", "VERB", "X"]
SPLITS = ("train", "val", "test")
TEXT = {
    "columns": {
        "text": {"type": "text"},
        "label": {"type": "string", "role": "label", "nullable": True, "classes": CLASSES},
        "synset": {"type": "string"},
    }
}
TAGGED = {
    "columns": {"words": {"type": "tokens"}, "tags": {"type": "tags", "classes": TAGS}, "sentence": {"type": "string"}}
}
PLAIN = {"columns": {"text": {"type": "text"}}}
HOSTILE = [
    "\u0634\u062c\u0631\u0629 \u05e2\u05e5 mixed",  # right to left, in two scripts
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f4\U000e0067\U000e0062",  # emoji joined from several characters
    "e\u0301 \u00e9 \ufb01 \u2126",  # not normalised: two spellings of one letter, a ligature, the ohm sign
    "tab\there\nand\r\nlines ",  # white space at the ends stays
    "\u202eoverride\u202c \ufeff \u200b \ufffd \U0010fffd",
    "'; DROP TABLE x; -- <script>alert(1)</script> {{ 7 * 7 }} %s \\",
]


def test_glosses_are_split_and_read_back(validate: Callable, write_table: Callable, glosses: pa.Table) -> None:
    run = validate(write_table(glosses), TEXT)
    assert run.code == 0, run.error
    schema = read_schema(run.out)
    assert (schema.feature, schema.label, schema.classes) == (TextColumn("text"), "label", tuple(CLASSES))
    texts, labels = glosses["text"].to_pylist(), glosses["label"].to_pylist()
    rows = {}
    for split in SPLITS:
        read = read_texts(run.out, split)
        assert read.texts == [texts[row] for row in read.rows]
        assert read.labels is not None
        assert [CLASSES[label] for label in read.labels] == [labels[row] for row in read.rows]
        rows[split] = set(read.rows.tolist())
    assert set.union(*rows.values()) == {row for row, label in enumerate(labels) if label is not None}
    pool = read_texts(run.out, "unlabelled")
    assert pool.labels is None and set(pool.rows.tolist()) == set(range(1500)) - rows["test"]


def test_sentences_are_split_and_read_back(validate: Callable, write_table: Callable, sentences: pa.Table) -> None:
    run = validate(write_table(sentences), TAGGED)
    assert run.code == 0, run.error
    schema = read_schema(run.out)
    assert (schema.feature, schema.label, schema.classes) == (TokensColumn("words"), "tags", tuple(TAGS))
    read = {split: read_tagged(run.out, split) for split in (*SPLITS, "unlabelled")}
    for split in SPLITS:
        for row, words, tags in zip(read[split].rows, read[split].words, read[split].tags or [], strict=True):
            assert words == sentences["words"][int(row)].as_py()
            assert [TAGS[tag] for tag in tags] == sentences["tags"][int(row)].as_py()
    assert read["unlabelled"].tags is None
    assert sum(len(read[split].words) for split in SPLITS) == 800
    counts = json.loads((run.out / "profile.json").read_text())["histograms"]["tags"]["counts"]
    assert sum(counts) == sum(map(len, sentences["tags"].to_pylist()))


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_other_formats_of_the_same_glosses_give_the_same_dataset(
    validate: Callable, write_table: Callable, glosses: pa.Table, tmp_path: Path, form: str
) -> None:
    (tmp_path / "other").mkdir()
    path = tmp_path / "other" / f"part.{form}"
    with path.open("w", encoding="utf-8", newline="") as file:
        if form == "jsonl":
            for row in glosses.to_pylist():
                given = {name: value for name, value in row.items() if value is not None}
                file.write(json.dumps(given, ensure_ascii=len(row["text"]) % 2 == 0) + "\n")
        else:
            writer = csv.DictWriter(file, glosses.column_names)
            writer.writeheader()
            writer.writerows(glosses.to_pylist())
    first, other = (validate(write_table(glosses), TEXT, out="first"), validate(tmp_path / "other", TEXT, out="second"))
    assert other.code == 0, other.error
    assert first.digest() == other.digest()


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_other_formats_of_the_same_sentences_give_the_same_dataset(
    validate: Callable, write_table: Callable, sentences: pa.Table, tmp_path: Path, form: str
) -> None:
    (tmp_path / "other").mkdir()
    rows = sentences.to_pylist()
    if form == "jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / "other" / "part.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    else:
        with (tmp_path / "other" / "part.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "tags", "words"])
            writer.writerows([r["sentence"], " ".join(r["tags"]), " ".join(r["words"])] for r in rows)
    first = validate(write_table(sentences), TAGGED, out="first")
    other = validate(tmp_path / "other", TAGGED, out="second")
    assert other.code == 0, other.error
    assert first.digest() == other.digest()


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_any_script_and_any_character_but_controls_goes_through_unharmed(
    validate: Callable, write_table: Callable, glosses: pa.Table, tmp_path: Path, form: str
) -> None:
    texts = glosses["text"].to_pylist()[:300] + HOSTILE
    raw = write_table({"text": texts})
    if form == "jsonl":
        (raw / "part.parquet").unlink()
        (raw / "part.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run = validate(raw, PLAIN)
    assert run.code == 0, run.error
    read = [read_texts(run.out, split) for split in SPLITS]
    back = {int(row): text for part in read for row, text in zip(part.rows, part.texts, strict=True)}
    assert [back[row].encode() for row in range(len(texts))] == [text.encode() for text in texts]
    page = (run.out / "report.html").read_text()
    assert "<script" not in page


def test_bad_documents_go_to_the_quarantine_with_rule_and_value(
    validate: Callable, write_table: Callable, glosses: pa.Table
) -> None:
    texts = glosses["text"].to_pylist()[:1000]
    planted = {
        3: ("", "min_length", "0"),
        4: (" \n\t\u3000", "min_length", "0"),
        5: (None, "not_null", "null"),
        6: ("a\0b", "characters", "a\\x00b"),
        7: ("\x1b[31mred", "characters", "\\x1b[31mred"),
        8: ("one\x85two", "characters", "one\\x85two"),
        9: ("x" * 701, "max_length", "701"),
        10: ("\x7f", "characters", "\\x7f"),
    }
    for row, (text, _, _) in planted.items():
        texts[row] = text
    rules = {"columns": {"text": {"type": "text", "max_length": 700}}}
    run = validate(write_table({"text": texts}), rules)
    assert run.code == 0, run.error
    found = [tuple(line.values()) for line in run.table("quarantine").to_pylist()]
    assert found == [(row, f"text.{rule}", value) for row, (_, rule, value) in planted.items()]


def test_bad_sentences_go_to_the_quarantine_with_rule_and_value(
    validate: Callable, write_table: Callable, sentences: pa.Table
) -> None:
    words, tags = sentences["words"].to_pylist(), sentences["tags"].to_pylist()
    words[0], tags[0] = [], []
    words[1] = words[1][:-1]
    tags[2] = [*tags[2], "X"]
    tags[3] = ["QX", *tags[3][1:]]
    words[4] = [" ", *words[4][1:]]
    words[5] = [None, *words[5][1:]]
    words[6] = ["a\nb", *words[6][1:]]
    tags[7] = None
    tags[8] = [None, *tags[8][1:]]
    changed = {"words": words, "tags": pa.array(tags), "sentence": sentences["sentence"]}
    run = validate(write_table(changed), TAGGED, params={"max_bad_fraction": 0.1})
    assert run.code == 0, run.error
    found = [(line["row"], line["rule"]) for line in run.table("quarantine").to_pylist()]
    assert found == [
        (0, "words.min_length"),
        (1, "tags.length"),
        (2, "tags.length"),
        (3, "tags.classes"),
        (4, "words.empty_words"),
        (5, "words.empty_words"),
        (6, "words.characters"),
        (7, "tags.not_null"),
        (8, "tags.classes"),
    ]


def test_a_sentence_without_tags_goes_to_the_pool_only(
    validate: Callable, write_table: Callable, sentences: pa.Table
) -> None:
    tags = [None if row % 2 else value for row, value in enumerate(sentences["tags"].to_pylist())]
    table = {"words": sentences["words"], "tags": pa.array(tags), "sentence": sentences["sentence"]}
    rules = {"columns": {**TAGGED["columns"], "tags": {"type": "tags", "classes": TAGS, "nullable": True}}}
    run = validate(write_table(table), rules)
    assert run.code == 0, run.error
    splits = np.array(run.table("rows")["split"].to_pylist())
    assert (splits[1::2] == "unlabelled").all() and "unlabelled" not in splits[::2]


def test_text_without_labels_is_split_too(validate: Callable, write_table: Callable, glosses: pa.Table) -> None:
    run = validate(write_table({"text": glosses["text"]}), PLAIN)
    assert run.code == 0, run.error
    schema = read_schema(run.out)
    assert schema.label is None and schema.classes == ()
    read = {split: read_texts(run.out, split) for split in (*SPLITS, "unlabelled")}
    assert all(part.labels is None for part in read.values())
    assert sum(len(read[split].texts) for split in SPLITS) == 1500
    assert len(read["unlabelled"].texts) == 1500 - len(read["test"].texts)
    assert 200 < len(read["test"].texts) < 400


def test_equal_sentences_with_other_tags_are_a_warning(
    validate: Callable, write_table: Callable, sentences: pa.Table
) -> None:
    again = sentences.slice(0, 1)
    other = pa.array([["X"] * len(again["words"][0])], sentences.schema.field("tags").type)
    table = pa.concat_tables([sentences, again.set_column(1, "tags", other)])
    run = validate(write_table(table), TAGGED)
    assert run.code == 0, run.error
    assert "1 sets of rows with equal features have different labels, such as rows 0 and 800" in run.error


def test_a_near_copy_across_splits_is_a_leak(validate: Callable, write_table: Callable, glosses: pa.Table) -> None:
    rules = {**TEXT, "near_duplicates": {"min_jaccard": 0.9}}
    clean = validate(write_table(glosses), rules, out="clean")
    assert clean.code == 0, clean.error
    long = max(range(300), key=lambda row: len(glosses["text"][row].as_py()))
    text = glosses["text"][long].as_py()
    copies = [f"{text} {letter * 3}" for letter in "abcdefghijkl"]  # most of them fall into other splits
    more = pa.table(
        {"text": copies, "label": [glosses["label"][long].as_py()] * 12, "synset": ["x"] * 12}, schema=glosses.schema
    )
    run = validate(write_table(pa.concat_tables([glosses, more])), rules)
    assert run.code == 2
    assert "near-duplicate texts in two splits" in run.error and "jaccard 0.9" in run.error


def test_a_shift_in_words_or_length_against_the_champion_is_a_warning(
    validate: Callable, write_table: Callable, glosses: pa.Table, tmp_path: Path
) -> None:
    before = validate(write_table(glosses), TEXT, out="before")
    draft = ReleaseDraft("digits", {"profile.json": before.out / "profile.json"}, {})
    publish(open_store(str(tmp_path / "store")), draft, Publication("0" * 32, fresh=True))
    again = validate(write_table(glosses), TEXT, out="again")
    assert again.code == 0 and "shifted" not in again.error
    assert set(read_execution(again.out)["drift"]["index"].values()) == {0}
    assert read_record(again.out).sha256 == read_record(before.out).sha256
    texts = [" ".join(text.upper().split()[:3]) + " zzz qqq" for text in glosses["text"].to_pylist()]
    run = validate(write_table(glosses.set_column(0, "text", [texts])), TEXT)
    assert run.code == 0, run.error
    drift = read_execution(run.out)["drift"]["index"]
    assert drift["text.frequent"] > 0.2 and drift["text.words"] > 0.2 and drift["label"] == 0
    assert "'text.frequent' has shifted against digits@1" in run.error


def test_the_report_shows_samples_and_words_and_escapes_them(
    validate: Callable, write_table: Callable, glosses: pa.Table, sentences: pa.Table
) -> None:
    hostile = "<img src=x> hostile"
    texts = pa.array([hostile + str(row) for row in range(60)] + glosses["text"].to_pylist()[60:])
    run = validate(write_table(glosses.set_column(0, "text", texts)), TEXT)
    page = (run.out / "report.html").read_text()
    assert "<img" not in page and "&lt;img src=x&gt; hostile" in page
    assert "Most frequent words" in page and "text.words" in page
    run = validate(write_table(sentences, "tagged"), TAGGED, out="tagged_dataset")
    page = (run.out / "report.html").read_text()
    assert f"<span>{sentences['words'][1][0]}<i>{sentences['tags'][1][0]}</i></span>" in page


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"words": {"type": "tokens"}, "tags": {"type": "string", "role": "label", "classes": ["a", "b"]}},
            "the label of a column of type tokens is of type tags",
        ),
        (
            {"text": {"type": "text"}, "tags": {"type": "tags", "classes": ["a", "b"]}},
            "tags are the label of a column of type tokens",
        ),
        ({"text": {"type": "string"}}, "a model sees a column of type image, text, tokens"),
        ({"text": {"type": "string", "role": "feature"}}, "columns.text: a feature is of type image, text, tokens"),
        ({"text": {"type": "text", "nullable": True}}, "it has the role feature and is not nullable"),
        ({"text": {"type": "text", "min_lenght": 2}}, "unknown key; did you mean 'min_length'?"),
        ({"words": {"type": "tokens"}, "tags": {"type": "tags", "classes": ["a", "a"]}}, "a class stands twice"),
    ],
)
def test_a_wrong_contract_is_refused(
    validate: Callable, write_table: Callable, glosses: pa.Table, columns: dict[str, object], message: str
) -> None:
    run = validate(write_table(glosses), {"columns": columns})
    assert run.code == 2 and message in run.error and "\n" not in run.error.strip()


def test_a_measure_for_images_does_not_fit_text(validate: Callable, write_table: Callable, glosses: pa.Table) -> None:
    run = validate(write_table(glosses), {**TEXT, "near_duplicates": {"min_cosine": 0.99}})
    assert run.code == 2 and "near_duplicates: give min_jaccard for a column of type text" in run.error


def test_a_column_of_another_type_is_refused(
    validate: Callable, write_table: Callable, glosses: pa.Table, sentences: pa.Table
) -> None:
    run = validate(write_table({"text": list(range(10))}), PLAIN)
    assert run.code == 2 and "column 'text': type int64; expected text (string)" in run.error
    run = validate(write_table(sentences.set_column(0, "words", sentences["sentence"])), TAGGED)
    assert run.code == 2 and "column 'words': type string; expected a list of words (list<string>)" in run.error


def test_documents_of_a_large_file_are_read_in_bounded_batches(
    tmp_path: Path, glosses: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftline.raw import limits
    from graftline.raw.files import raw_files, read_batches
    from graftline.raw.reader import Asked

    monkeypatch.setattr(limits, "TEXT_BYTES", 1 << 20)
    monkeypatch.setattr(limits, "BATCH_BYTES", 1 << 20)
    text = " ".join(glosses["text"].to_pylist())[:12_500]
    with (tmp_path / "large.jsonl").open("w") as file:
        for number in range(400):
            file.write(json.dumps({"text": f"{number} {text}"}) + "\n")
    batches = list(read_batches(raw_files(tmp_path / "large.jsonl"), Asked(["text"])))
    assert sum(batch.rows for batch in batches) == 400 and len(batches) >= 4
    assert max(batch.columns["text"].nbytes for batch in batches) < 2 * limits.TEXT_BYTES
    pq.write_table(pa.table({"text": [f"{number} {text}" for number in range(400)]}), tmp_path / "large.parquet")
    sizes = [b.columns["text"].nbytes for b in read_batches(raw_files(tmp_path / "large.parquet"), Asked(["text"]))]
    assert max(sizes) < 2 * limits.BATCH_BYTES


@pytest.mark.parametrize(
    ("classes", "found"),
    [("yes, no", "True (bool), False (bool)"), ("yes, null", "True (bool), None"), ("007, no1", "7 (int)")],
)
def test_a_class_that_yaml_reads_as_something_else_is_named_with_quotes_as_the_way_out(
    tmp_path: Path, classes: str, found: str
) -> None:
    path = tmp_path / "expectations.yaml"
    path.write_text(f"columns:\n  text: {{type: text}}\n  label: {{type: string, role: label, classes: [{classes}]}}\n")
    with pytest.raises(InputError, match=rf"label\.classes: YAML reads a word here as {re.escape(found)}.*in quotes"):
        load_contract(path)
