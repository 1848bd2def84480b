"""Real digits and glosses in groups, by time, with weights: which split a row falls into, and what is refused."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.dataset import read_schema
from graftline.records.folder import read_record
from graftline.values.identity import group_digests, split_by_digest

Digits = tuple[np.ndarray, np.ndarray]
LABEL = {"type": "string", "role": "label", "nullable": True, "classes": ["noun.animal", "noun.artifact"]}
TEXT = {"text": {"type": "text"}, "label": LABEL, "synset": {"type": "string"}}
DIGITS = {
    "image": {"type": "image", "shape": [28, 28]},
    "label": {"type": "integer", "role": "label", "classes": list(range(10)), "nullable": True},
}
SPLITS = ("train", "val", "test", "unlabelled")


def places(run: Any) -> dict[int, str]:
    """Return the split of each row by its number."""
    index = run.table("rows")
    return dict(zip(index["row"].to_pylist(), index["split"].to_pylist(), strict=True))


def left_out(run: Any) -> dict[int, tuple[str, str]]:
    return {line["row"]: (line["rule"], line["value"]) for line in run.table("quarantine").to_pylist()}


def families(glosses: pa.Table) -> list[str]:
    """Return a group of each gloss: WordNet's neighbours, by the first digits of their synsets' numbers."""
    return [f"family {synset[:5]}" for synset in glosses["synset"].to_pylist()]


@pytest.fixture
def grouped(glosses: pa.Table, write_table: Callable[..., Path]) -> Path:
    return write_table(glosses.append_column("family", pa.array(families(glosses))))


def with_family(**more: Any) -> dict[str, Any]:
    return {"columns": {**TEXT, "family": {"type": "string", "role": "group"}}, **more}


def test_a_group_falls_into_one_split_by_its_own_digest(
    validate: Callable[..., Any], grouped: Path, glosses: pa.Table
) -> None:
    run = validate(grouped, with_family())
    assert run.code == 0, run.error
    found, groups = places(run), pa.array(families(glosses))
    right = [SPLITS[split] for split in split_by_digest(group_digests(groups), 0.2, 0.1)]
    labelled = [row for row in range(1500) if glosses["label"][row].as_py() is not None]
    assert {row: found[row] for row in labelled} == {row: right[row] for row in labelled}
    assert {"train", "val", "test"} <= set(found.values()) and 5 < len(set(groups.to_pylist())) < 500
    alone = validate(grouped, {"columns": {**TEXT, "family": {"type": "string"}}}, out="alone")
    assert places(alone) != found


def test_unlabelled_rows_of_a_test_group_are_in_no_pool(
    validate: Callable[..., Any], grouped: Path, glosses: pa.Table
) -> None:
    run, groups = validate(grouped, with_family()), families(glosses)
    of_test = {groups[row] for row in run.table("test")["row"].to_pylist()}
    pool = {groups[row] for row in run.table("unlabelled")["row"].to_pylist()}
    assert of_test and not of_test & pool
    out = left_out(run)
    assert out and {rule for rule, _ in out.values()} == {"unlabelled_in_test"}
    metrics = read_record(run.out).metrics
    assert (metrics["rows_left_out"], metrics["rows_quarantined"]) == (len(out), 0)
    assert len(out) + len(places(run)) == 1500


def test_a_split_without_val_draws_it_from_train_if_the_contract_says_so(
    validate: Callable[..., Any], write_table: Callable[..., Path], glosses: pa.Table
) -> None:
    kept = glosses.filter(pa.compute.is_valid(glosses["label"]))
    own = ["test" if row % 5 == 0 else "train" for row in range(len(kept))]
    table = write_table(kept.append_column("part", pa.array(own)))
    run = validate(table, {"columns": TEXT | {"part": {"type": "string", "role": "split"}}})
    assert run.code == 2 and "has no row in val" in run.error
    split = {"type": "string", "role": "split", "classes": ["train", "test"]}
    run = validate(table, {"columns": TEXT | {"part": split}}, out="drawn")
    assert run.code == 0, run.error
    found = places(run)
    assert {row for row, name in found.items() if name == "test"} == {row for row in found if own[row] == "test"}
    drawn = sum(name == "val" for name in found.values())
    assert 0.06 < drawn / own.count("train") < 0.14
    wrong = {"columns": TEXT | {"part": split | {"classes": ["train", "dev"]}}}
    assert "a split is of train and test" in validate(table, wrong, out="wrong").error


def test_a_split_that_divides_groups_is_refused_with_their_names(
    validate: Callable[..., Any], write_table: Callable[..., Path], glosses: pa.Table
) -> None:
    kept = glosses.filter(pa.compute.is_valid(glosses["label"]))
    groups = families(kept)
    order = sorted(set(groups))
    whole = [SPLITS[order.index(group) % 3] for group in groups]
    split = {"type": "string", "role": "split"}
    rules = with_family()["columns"] | {"part": split}
    table = kept.append_column("family", pa.array(groups))
    assert validate(write_table(table.append_column("part", pa.array(whole))), {"columns": rules}).code == 0
    divided = [row for row in range(len(kept)) if groups[row] == groups[0]]
    assert len(divided) > 1
    whole[divided[1]] = SPLITS[(SPLITS.index(whole[divided[1]]) + 1) % 3]
    run = validate(write_table(table.append_column("part", pa.array(whole))), {"columns": rules}, out="divided")
    assert run.code == 2 and not run.out.exists()
    assert f"'part' puts 1 groups of 'family' into two splits: {groups[0]}: row {divided[0]} (" in run.error
    assert f"row {divided[1]} (" in run.error


def test_persons_as_groups_are_named_nowhere(
    validate: Callable[..., Any], write_raw: Callable[..., Path], digits: Digits, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    ids = [f"patient-{row // 10 * 7 % 100:03}" for row in range(1000)]
    columns = {**DIGITS, "person": {"type": "string", "role": "group"}}
    for action in ("stop", "together"):
        rules = {"columns": columns, "subject": "person", "near_duplicates": {"min_cosine": 0.99, "action": action}}
        run = validate(write_raw(*digits, person=ids), rules, out=action)
        assert run.code == 0, run.error
        index = run.table("rows")
        assert len(set(index["subject"].to_pylist())) == 100
        of_person: dict[str, set[str]] = {}
        for row, split in places(run).items():
            of_person.setdefault(ids[row], set()).add(split)
        assert all(len(splits) == 1 for splits in of_person.values())
        assert "person" not in run.table("train").column_names
        assert all(b"patient-" not in path.read_bytes() for path in run.out.iterdir())
        assert not list(run.out.parent.glob(".*.work/*"))
    part = ["test" if row % 10 == 3 and row > 500 else "val" if row % 100 < 10 else "train" for row in range(1000)]
    own = {"columns": {**columns, "part": {"type": "string", "role": "split"}}, "subject": "person"}
    run = validate(write_raw(*digits, person=ids, part=part), own, out="divided")
    assert run.code == 2 and "groups of 'person' into two splits: row " in run.error and "patient-" not in run.error


def test_the_latest_rows_are_test_and_rows_of_one_time_stay_together(
    validate: Callable[..., Any], write_raw: Callable[..., Path], digits: Digits
) -> None:
    days = np.random.default_rng(0).integers(0, 100, 1000)
    stamps = pa.array(np.datetime64("2024-01-01") + days.astype("timedelta64[D]"))
    labels = [None if row % 9 == 0 else int(label) for row, label in enumerate(digits[1])]
    columns = {**DIGITS, "taken": {"type": "timestamp", "role": "time"}}
    written = [str(day) for day in stamps.to_pylist()]
    for taken in (stamps, written):
        run = validate(write_raw(digits[0], pa.array(labels), taken=taken), {"columns": columns}, out=str(type(taken)))
        assert run.code == 0, run.error
        found = places(run)
        in_test, in_val, in_train = (
            [days[row] for row, split in found.items() if split == name] for name in ("test", "val", "train")
        )
        assert max(in_train) < min(in_val) <= max(in_val) < min(in_test)
        labelled = len([label for label in labels if label is not None])
        assert 0.2 * labelled <= len(in_test) < 0.22 * labelled  # a day more at most
        val, test = (str(np.datetime64("2024-01-01") + int(min(of))) for of in (in_val, in_test))
        for told in (run.error, (run.out / "report.html").read_text()):
            assert "val from " + val in told and "test from " + test in told
        out = left_out(run)  # what lies in the time of test and has no label would teach the trunk what is to come
        late = {row for row in range(0, 1000, 9) if days[row] >= min(in_test)}
        assert set(out) == late and not late & set(run.table("unlabelled")["row"].to_pylist())
    assert run.table("train").schema.field("taken").type == pa.timestamp("us", "UTC")


def test_a_time_in_whole_numbers_and_times_that_are_none(
    validate: Callable[..., Any], write_raw: Callable[..., Path], digits: Digits
) -> None:
    raw = write_raw(*digits, year=np.repeat(np.arange(1900, 2000), 10))
    run = validate(raw, {"columns": {**DIGITS, "year": {"type": "integer", "role": "time"}}})
    assert run.code == 0 and "val from 1970 on, test from 1980 on" in run.error
    assert run.table("test")["row"].to_pylist() == list(range(800, 1000))
    years = {"columns": {**DIGITS, "year": {"type": "integer", "role": "time"}}}
    run = validate(write_raw(*digits, year=[7] * 1000, name="ties"), years, out="tied")
    assert run.code == 2 and "columns.year: no row is before 7, where val would begin" in run.error
    stamps = ["2024-02-30", "31/05/2024", *["2024-05-31T10:00:00+02:00"] * 998]
    columns = {**DIGITS, "taken": {"type": "timestamp"}}
    run = validate(write_raw(*digits, taken=stamps), {"columns": columns}, out="stamps")
    assert left_out(run) == {0: ("taken.type", "2024-02-30"), 1: ("taken.type", "31/05/2024")}
    assert run.table("val")["taken"][0].as_py().isoformat() == "2024-05-31T08:00:00+00:00"
    both = {**columns, "year": {"type": "integer", "role": "group"}}
    both["taken"] = {"type": "timestamp", "role": "time"}
    run = validate(raw, {"columns": both}, out="both")
    assert run.code == 2 and "the split goes by the role time or by the role group" in run.error


def test_a_weight_is_above_zero_and_named_in_the_schema(
    validate: Callable[..., Any], write_raw: Callable[..., Path], digits: Digits
) -> None:
    weights = np.linspace(0.5, 2, 1000)
    weights[[4, 7]] = 0, -1
    raw = write_raw(*digits, counts=weights)
    run = validate(raw, {"columns": {**DIGITS, "counts": {"type": "float", "role": "weight"}}})
    assert run.code == 0 and read_schema(run.out).weight == "counts"
    assert left_out(run) == {4: ("counts.positive", "0.0"), 7: ("counts.positive", "-1.0")}
    run = validate(raw, {"columns": {**DIGITS, "counts": {"type": "float"}}}, out="plain")
    assert read_schema(run.out).weight is None and not left_out(run)


def with_copies(glosses: pa.Table, of: list[int]) -> pa.Table:
    """Return the glosses, and 12 near copies of each of some, most of which fall into other splits."""
    texts = [glosses["text"][row].as_py() + f" {letter * 3}" for row in of for letter in "abcdefghijkl"]
    more = {"text": texts, **{name: [glosses[name][row].as_py() for row in of for _ in range(12)] for name in TEXT
                              if name != "text"}}  # fmt: skip
    return pa.concat_tables([glosses, pa.table(more, schema=glosses.schema)])


def near(action: str, **more: Any) -> dict[str, Any]:
    return {"columns": TEXT, "near_duplicates": {"min_jaccard": 0.9, "action": action}, **more}


def longest(glosses: pa.Table, label: str | None, count: int) -> list[int]:
    rows = [row for row, found in enumerate(glosses["label"].to_pylist()) if found == label]
    return sorted(rows, key=lambda row: -len(glosses["text"][row].as_py()))[:count]


def test_stop_writes_every_pair_beside_the_refused_dataset(
    validate: Callable[..., Any], write_table: Callable[..., Path], glosses: pa.Table
) -> None:
    rows = longest(glosses, "noun.animal", 3)
    run = validate(write_table(with_copies(glosses, rows)), near("stop"))
    assert run.code == 2 and not run.out.exists()
    beside = run.out.parent / "near_duplicates.csv"
    with beside.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert f"near-duplicate texts in two splits, {len(lines)} pairs" in run.error and str(beside) in run.error
    assert "near_duplicates.action to quarantine or together" in run.error
    copies = {row: [row, *range(1500 + 12 * n, 1512 + 12 * n)] for n, row in enumerate(rows)}
    apart = validate(write_table(with_copies(glosses, rows)), {"columns": TEXT}, out="unchecked")
    split = places(apart)
    expected = {
        tuple(sorted((a, b))) for all_ in copies.values() for a in all_ for b in all_ if split[a] != split[b]
    }  # fmt: skip
    found = {(int(line["first"]), int(line["second"])) for line in lines}
    assert expected <= found and len(found) == len(lines)
    write_table({"text": ["a"] * 9, "label": ["no class"] * 9, "synset": ["x"] * 9}, "bad")
    bad = validate(beside.with_name("bad"), near("stop"), out="bad-rows")
    assert bad.code == 2 and "rows break the contract" in bad.error
    assert not beside.exists(), "what an earlier run stopped for would be taken for what this one did"
    assert validate(write_table(glosses), near("stop"), out="clean").code == 0


def test_quarantine_keeps_the_labelled_one_then_the_first(
    validate: Callable[..., Any], write_table: Callable[..., Path], glosses: pa.Table
) -> None:
    labelled, plain = longest(glosses, "noun.animal", 1), longest(glosses, None, 1)
    table = with_copies(glosses, labelled + plain)
    labels = table["label"].to_pylist()
    labels[1515] = "noun.artifact"  # a labelled copy of a row without a label, which comes before it
    table = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    apart = places(validate(write_table(table), {"columns": TEXT}, out="unchecked"))
    run = validate(write_table(table), near("quarantine"))
    assert run.code == 0, run.error
    out, found = left_out(run), places(run)
    copies = {row for row in range(1500, 1512) if apart[row] != apart[labelled[0]]}
    assert set(out) >= copies and len(copies) > 3 and labelled[0] not in out
    assert all(rule == "near_duplicate" and f"row {labelled[0]} (" in value and "jaccard 0.9" in value
               for rule, value in (out[row] for row in copies))  # fmt: skip
    assert 1515 in found and (apart[1515] != "test" or plain[0] in out)
    assert {row: found[row] for row in found} == {row: split for row, split in apart.items() if row not in out}
    assert "rows are left out: each is nearly equal" in run.error
    assert read_record(run.out).metrics["rows_left_out"] == len(out)
    with (run.out / "near_duplicates.csv").open(encoding="utf-8") as file:
        pairs = list(csv.DictReader(file))
    page = (run.out / "report.html").read_text()
    assert len(pairs) == read_record(run.out).metrics["near_pairs"] and f"{len(pairs)} of {len(pairs)} pairs" in page
    again = validate(
        write_table(table.take([row for row in range(len(table)) if row not in out])), near("stop"), out="2"
    )
    assert again.code == 0, again.error


def test_together_puts_chains_of_near_rows_where_the_first_is(
    validate: Callable[..., Any], write_table: Callable[..., Path], glosses: pa.Table
) -> None:
    (row,) = longest(glosses, "noun.animal", 1)
    words = glosses["text"][row].as_py().split()
    chain = [" ".join(words[: len(words) - n]) for n in range(1, len(words) // 2)]  # each near the next, not the last
    more = pa.table({"text": chain, "label": ["noun.animal"] * len(chain), "synset": ["x"] * len(chain)})
    table = pa.concat_tables([glosses, more.cast(glosses.schema)])
    run = validate(
        write_table(table), {**near("together"), "near_duplicates": {"min_jaccard": 0.85, "action": "together"}}
    )
    assert run.code == 0, run.error
    found = places(run)
    apart = places(validate(write_table(table), {"columns": TEXT}, out="unchecked"))
    copies = range(1500, len(table))
    assert {apart[copy] for copy in copies} == {"train", "val", "test"}
    assert {found[copy] for copy in copies} == {found[row]} == {apart[row]}
    assert not left_out(run) and "sets of near-duplicates" in run.error
    fractions = [sum(split == name for split in found.values()) for name in SPLITS]
    assert sum(fractions) == len(table)
    bare = json.loads((run.out / "schema.json").read_text())
    assert bare == json.loads((run.out.parent / "unchecked/schema.json").read_text())


def test_an_unlabelled_copy_of_a_test_row_is_left_out_when_put_together(
    validate: Callable[..., Any], write_raw: Callable[..., Path], digits: Digits
) -> None:
    plain = validate(write_raw(*digits), {"columns": DIGITS}, out="plain")
    row = plain.table("test")["row"][0].as_py()
    copy = digits[0][[row]].copy()
    copy[0, 0] = 9
    raw = write_raw(np.concatenate([digits[0], copy]), pa.array([*map(int, digits[1]), None], pa.int64()))
    rules = {"columns": DIGITS, "near_duplicates": {"min_cosine": 0.99, "action": "together"}}
    run = validate(raw, rules)
    assert run.code == 0, run.error
    assert left_out(run) == {1000: ("unlabelled_in_test", "")} and 1000 not in places(run)


@pytest.mark.parametrize("action", ["quarantine", "together"])
def test_equal_rows_that_an_own_split_divides_go_the_same_way(
    action: str, validate: Callable[..., Any], write_raw: Callable[..., Path], digits: Digits
) -> None:
    part = ["test" if row // 10 % 4 == 0 else "val" if row // 10 % 4 == 1 else "train" for row in range(1000)]
    pixels = digits[0].copy()
    pixels[[622, 623]] = pixels[8]
    columns = {**DIGITS, "part": {"type": "string", "role": "split"}}
    rules = {"columns": columns, "near_duplicates": {"min_cosine": 0.99, "action": action}}
    run = validate(write_raw(pixels, digits[1], part=part), rules)
    assert run.code == 0, run.error
    found, out = places(run), left_out(run)
    if action == "quarantine":
        assert out == dict.fromkeys((622, 623), ("near_duplicate", "row 8 (test, equal)"))
    else:
        assert not out and [found[row] for row in (8, 622, 623)] == ["test"] * 3
    undone = validate(write_raw(pixels, digits[1], part=part), {"columns": columns}, out="undone")
    assert undone.code == 2 and "action: quarantine" in undone.error
    assert (undone.out.parent / "near_duplicates.csv").read_text().count("equal") == 1


def test_texts_in_two_unicode_forms_or_with_more_blanks_are_one_text(
    validate: Callable[..., Any], write_table: Callable[..., Path], glosses: pa.Table
) -> None:
    texts = [text.replace("e", "é") for text in glosses["text"].to_pylist()]
    other = [" " + unicodedata.normalize("NFD", text).replace(" ", "  ") for text in texts]
    assert texts[0] != other[0]
    table = pa.table({"text": texts + other, "label": glosses["label"].to_pylist() * 2, "synset": ["x"] * 3000})
    run = validate(write_table(table), {"columns": TEXT})
    assert run.code == 0, run.error
    found = places(run)
    assert all(found[row] == found[row + 1500] for row in range(1500))
    assert run.table("rows")["digest"].to_pylist()[0] != run.table("rows")["digest"].to_pylist()[1500]
    assert "rows have the same features as an earlier row" in run.error
    unique = {"columns": {**TEXT, "text": {"type": "text", "unique": True}}}
    kept = validate(write_table(table), unique, {"max_bad_fraction": 0.6}, out="unique")
    assert set(left_out(kept)) == set(range(1500, 3000))


def test_texts_that_differ_in_case_only_are_told_of(
    validate: Callable[..., Any], write_table: Callable[..., Path], glosses: pa.Table
) -> None:
    assert "only in case" not in validate(write_table(glosses), {"columns": TEXT}, out="plain").error
    rows = range(0, 60, 3)
    upper = [glosses["text"][row].as_py().upper() for row in rows]
    labels = ["noun.artifact" if place == 0 else glosses["label"][row].as_py() for place, row in enumerate(rows)]
    more = pa.table({"text": upper, "label": labels, "synset": ["x"] * 20}).cast(glosses.schema)
    run = validate(write_table(pa.concat_tables([glosses, more])), {"columns": TEXT})
    assert run.code == 0, run.error
    found = places(run)
    apart = sum(found[row] != found[1500 + place] for place, row in enumerate(rows))
    assert apart > 3
    assert f"{apart} sets of rows in two splits differ only in case" in run.error
    assert "1 sets of rows that differ only so have different labels, such as rows 0 and 1500" in run.error


def test_without_these_keys_nothing_is_held(
    validate: Callable[..., Any], write_raw: Callable[..., Path], digits: Digits
) -> None:
    raw = write_raw(*digits)
    plain = validate(raw, {"columns": DIGITS}, out="plain")
    searched = validate(raw, {"columns": DIGITS, "near_duplicates": {"min_cosine": 0.999, "action": "together"}})
    for name in (*SPLITS, "rows", "quarantine"):
        assert pq.read_table(plain.out / f"{name}.parquet").equals(searched.table(name)), name
