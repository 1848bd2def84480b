"""Persons' ids: stored as keyed hashes, in clear nowhere; what was erased does not come back."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from graftline.audit.raw_row import good_rows
from graftline.components.validate.scan import WITHHELD
from graftline.errors import InputError
from graftline.raw.files import raw_files, read_batches
from graftline.rows.blocklist import block
from graftline.rows.subjects import check_value, hash_subject, key_path, load_key
from graftline.store.opening import open_store
from graftline.values.columns import fact_frame, read_columns
from graftline.values.contract import load_contract
from graftline.values.suite import Judge, row_rules

CONTRACT: dict[str, Any] = {
    "columns": {
        "image": {"type": "image", "shape": [28, 28]},
        "label": {"type": "integer", "role": "label", "classes": list(range(10))},
        "person": {"type": "string", "nullable": True, "max_length": 15},
    },
    "subject": "person",
}
IDS = [f"patient-{number:03}" for number in range(50)]


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))


@pytest.fixture
def run(
    digits: tuple[np.ndarray, np.ndarray], write_raw: Callable[..., Path], validate: Callable[..., Any]
) -> Callable[..., Any]:
    """Validate 200 digits of 50 persons; row 3 has a bad label, row 4 too long an id, row 5 none."""

    def go(contract: dict[str, Any] | None = None, out: str = "dataset", **more: Any) -> Any:
        pixels, labels = digits[0][:200], digits[1][:200].copy()
        labels[3] = 77
        ids: list[str | None] = [IDS[row % 50] for row in range(200)]
        ids[4], ids[5] = "patient-with-a-very-long-name", None
        raw = write_raw(pixels, labels, person=pa.array(ids))
        given = copy.deepcopy(contract or CONTRACT)
        return validate(raw, given | more, {"max_bad_fraction": 0.2}, out)

    return go


def everything(out: Path) -> str:
    """Return all that the output's files hold, tables as text."""
    tables = [str(pq.read_table(path).drop_columns(_images(path)).to_pylist()) for path in out.glob("*.parquet")]
    others = [p.read_text() for p in out.iterdir() if p.suffix not in (".parquet", ".npy") and p.is_file()]
    return "\n".join(tables + others)


def _images(path: Path) -> list[str]:
    return [name for name in pq.read_schema(path).names if name == "image"]


def test_a_subject_is_in_the_row_index_as_a_keyed_hash_and_in_no_output_in_clear(run: Callable[..., Any]) -> None:
    done = run()
    assert done.code == 0, done.error
    index = done.table("rows").to_pylist()
    key = load_key(create=False)
    by_row = {line["row"]: line["subject"] for line in index}
    assert by_row[0] == hash_subject("patient-000", key)
    assert by_row[50] == by_row[0] != by_row[1]
    assert by_row[5] is None
    assert "patient-" not in everything(done.out) + done.error
    assert key.hex() not in everything(done.out)
    assert "person" not in done.table("train").column_names
    lines = {(line["row"], line["rule"]): line["value"] for line in done.table("quarantine").to_pylist()}
    assert lines[3, "label.classes"] == "77"
    assert "withheld" in lines[4, "person.max_length"]


def test_the_rows_digest_does_not_depend_on_the_subject(run: Callable[..., Any]) -> None:
    with_subject = run().table("rows").select(["row", "digest"])
    contract = copy.deepcopy(CONTRACT)
    del contract["columns"]["person"]["max_length"]
    assert with_subject.to_pylist()[0] == run(contract, "other").table("rows").select(["row", "digest"]).to_pylist()[0]
    contract["subject"] = None
    plain = run(contract, "plain").table("rows").select(["row", "digest"]).to_pylist()
    assert with_subject.to_pylist()[0] != plain[0]


def test_a_persons_id_in_the_path_of_a_picture_is_withheld_too(
    tmp_path: Path, validate: Callable[..., Any], digits: tuple[np.ndarray, np.ndarray]
) -> None:
    """Folders called as persons are, with a table, damaged files, and one that the table does not name."""
    raw, lines = tmp_path / "raw", []
    for number in range(60):
        person = f"Patient {number % 6}"
        path = raw / person.lower().replace(" ", "_") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits[0][number].reshape(28, 28).astype(np.uint8)).save(path)
        if number % 20 == 7:
            path.write_bytes(path.read_bytes()[:90])
        lines.append({"file_name": str(path.relative_to(raw)), "label": "ab"[number // 6 % 2], "person": person})
    (raw / "patient_1/of_patient_1.png").write_bytes(b"")
    (raw / "about.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    contract = copy.deepcopy(CONTRACT)
    contract["columns"]["label"] = {"type": "string", "role": "label", "classes": ["a", "b"]}
    done = validate(raw, contract | {"min_rows": 1}, {"max_bad_fraction": 0.2, "test_fraction": 0.4})
    assert done.code == 0, done.error
    found = done.table("quarantine").to_pylist()
    assert [line["value"] for line in found] == [f"truncated: {WITHHELD}/{number}.png" for number in (7, 27, 47)]
    for path in done.out.glob("record*"):  # names the files of raw data, as it must
        path.unlink()
    assert not re.findall(".{,90}patient.{,30}", (everything(done.out) + done.error).lower())
    assert "left out, not in about.jsonl: 1" in done.error


def test_rows_of_an_erased_person_go_to_the_quarantine_without_values_bad_ones_too(run: Callable[..., Any]) -> None:
    hashed = hash_subject("patient-003", load_key(create=True)).hex()
    done = run(erased={"subjects": [hashed]})
    assert done.code == 0, done.error
    lines = [line for line in done.table("quarantine").to_pylist() if line["row"] % 50 == 3]
    assert lines == [{"row": row, "rule": "erased", "value": ""} for row in range(3, 200, 50)]
    assert not [line for line in done.table("rows").to_pylist() if line["row"] % 50 == 3]


@pytest.mark.parametrize("key", ["none", "another"])
@pytest.mark.parametrize("where", ["contract", "store"])
def test_an_erased_person_does_not_come_back_by_a_new_key(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, key: str
) -> None:
    erased_with = load_key(create=True)
    hashed = hash_subject("patient-003", erased_with).hex()
    block(open_store(str(tmp_path / "store")), "digits", [], [hashed], key=erased_with)
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "another"))
    if key == "another":
        load_key(create=True)
    erased = {"subjects": [hashed], "key": check_value(erased_with)}
    if where == "contract":
        open_store(str(tmp_path / "store")).delete("erased/digits.json")
    done = run(**({"erased": erased} if where == "contract" else {}))
    assert done.code == 2
    assert ("no key for subjects" if key == "none" else "another key for subjects") in done.error
    assert key_path().exists() == (key == "another")


@pytest.mark.parametrize("where", ["contract", "store"])
def test_an_erased_row_does_not_come_back(run: Callable[..., Any], tmp_path: Path, where: str) -> None:
    digest = next(line["digest"] for line in run().table("rows").to_pylist() if line["row"] == 17).hex()
    if where == "store":
        block(open_store(str(tmp_path / "store")), "digits", [digest], [])
    done = run(out="again", **({"erased": {"rows": [digest]}} if where == "contract" else {}))
    assert done.code == 0, done.error
    assert {"row": 17, "rule": "erased", "value": ""} in done.table("quarantine").to_pylist()
    assert 17 not in done.table("rows")["row"].to_pylist()
    assert 17 not in done.table("unlabelled")["row"].to_pylist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subject": "persn"}, "did you mean 'person'"),
        ({"subject": "label"}, "role metadata"),
        ({"erased": {"rows": ["ff"]}}, "erased"),
    ],
)
def test_a_wrong_subject_or_list_is_refused(run: Callable[..., Any], change: dict[str, Any], said: str) -> None:
    done = run(**change)
    assert done.code == 2
    assert said in done.error


def test_a_damaged_list_of_erased_rows_stops_the_run(run: Callable[..., Any], tmp_path: Path) -> None:
    open_store(str(tmp_path / "store")).put_if_absent("erased/digits.json", b"{}")
    done = run()
    assert done.code == 2
    assert "erased/digits.json" in done.error


def test_a_question_about_a_row_judges_as_validate_does(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "image": {"type": "image", "shape": [1, 2], "max": 9},
        "label": {"type": "integer", "role": "label", "classes": [0, 1], "nullable": True},
        "size": {"type": "float", "min": 0, "max": 2},
        "name": {"type": "string", "max_length": 3},
        "part": {"type": "string", "role": "split"},
    }
    good = {"image": [1, 2], "label": 1, "size": 0.5, "name": "abc", "part": "train"}
    bad: list[dict[str, Any]] = [
        {}, {"image": [1]}, {"image": [1, 10]}, {"image": [-1, 1]}, {"image": [1.5, 1]}, {"image": None},
        {"label": 2}, {"label": None}, {"label": 1.5}, {"size": -1}, {"size": 3}, {"size": None}, {"name": "abcd"},
        {"name": None}, {"part": "other"}, {"part": None},
    ]  # fmt: skip
    (tmp_path / "contract.yaml").write_text(json.dumps({"columns": columns}))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(good | change) + "\n" for change in bad))
    contract = load_contract(tmp_path / "contract.yaml")
    (batch,) = read_batches(raw_files(tmp_path / "rows.jsonl"), contract.asked)
    read = read_columns(batch, contract)
    failures = {failure.index for failure in Judge(row_rules(contract)).judge(fact_frame(batch, read, contract))}
    expected = [row not in failures for row in range(len(bad))]
    assert good_rows(batch, read, contract).tolist() == expected
    assert expected == [change in ({}, {"label": None}) for change in bad]


def test_a_contract_names_no_ids_by_a_map_but_may_say_what_is_none(tmp_path: Path) -> None:
    def of(words: dict[str, str | None]) -> Path:
        contract = copy.deepcopy(CONTRACT)
        contract["columns"]["person"]["map"] = words
        (tmp_path / "contract").write_text(json.dumps(contract))
        return tmp_path / "contract"

    with pytest.raises(InputError, match="no map: they would tell of ids"):
        load_contract(of({IDS[0]: "somebody"}))
    assert load_contract(of({"unknown": None})).subject == "person"
