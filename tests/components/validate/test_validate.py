"""Validate on real digits: what it keeps, what it quarantines, when it stops."""

from __future__ import annotations

import copy
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.dataset import read_schema
from graftline.raw import limits
from graftline.raw.files import raw_files, read_batches
from graftline.raw.reader import Asked
from graftline.records.folder import read_execution, read_record
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store
from graftline.values.rules import Rule
from graftline.values.splits import read_images
from graftline.values.suite import Judge

CONTRACT = {
    "columns": {
        "image": {"type": "image", "shape": [28, 28]},
        "label": {"type": "integer", "role": "label", "classes": list(range(10))},
    }
}
IMAGE = {"type": "image", "shape": [28, 28]}
Digits = tuple[np.ndarray, np.ndarray]


def contract(**label: object) -> dict[str, object]:
    changed = copy.deepcopy(CONTRACT)
    changed["columns"]["label"] |= label  # type: ignore[operator]
    return changed


def test_good_rows_are_split_indexed_and_readable(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    run = validate(write_raw(*digits))
    assert run.code == 0, run.error
    images = {split: read_images(run.out, split) for split in ("train", "val", "test", "unlabelled")}
    rows = {split: set(found.rows.tolist()) for split, found in images.items()}
    assert rows["train"] | rows["val"] | rows["test"] == set(range(1000))
    assert rows["unlabelled"] == rows["train"] | rows["val"]
    assert images["unlabelled"].labels is None
    assert 120 < len(rows["test"]) < 280 and 50 < len(rows["val"]) < 150
    assert (images["train"].labels == digits[1][images["train"].rows]).all()
    assert np.allclose(images["test"].pixels.numpy().reshape(-1, 784) * 255, digits[0][images["test"].rows])
    schema = read_schema(run.out)
    assert (schema.feature.shape, schema.feature.maximum, schema.label, schema.classes) == (
        (28, 28),
        255,
        "label",
        tuple(range(10)),
    )
    index = run.table("rows").to_pydict()
    assert len(set(index["digest"])) == 1000 and {len(digest) for digest in index["digest"]} == {32}
    assert [row for row, split in zip(index["row"], index["split"], strict=True) if split == "val"] == sorted(
        rows["val"]
    )
    assert read_record(run.out).metrics["rows_test"] == len(rows["test"])


def test_two_runs_give_the_same_digest(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    raw = write_raw(*digits)
    first, second = validate(raw, out="first"), validate(raw, out="second")
    assert first.code == second.code == 0
    assert first.digest() == second.digest()


def test_every_failing_row_is_found_with_every_rule_and_value(
    validate: Callable, write_raw: Callable, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than 200 failures of a rule in one batch, and failures in later batches."""
    monkeypatch.setattr(limits, "MAX_ROWS", 400)
    rows: list[list[float | None] | None] = [list(map(float, image)) for image in digits[0]]
    labels: list[int | None] = [int(label) for label in digits[1]]
    planted = []
    for row in range(0, 300):
        labels[row] = 10 + row
        planted.append((row, "label.classes", str(10 + row)))
    rows[5] = None
    rows[450] = rows[450][:783]  # type: ignore[index]
    rows[501][0] = float("nan")  # type: ignore[index]
    rows[502][1:3] = [float("inf"), float("-inf")]  # type: ignore[index]
    rows[503][7] = None  # type: ignore[index]
    rows[504][7] = 256.0  # type: ignore[index]
    rows[505][7] = -1.0  # type: ignore[index]
    rows[506][7] = 0.5  # type: ignore[index]
    rows[507][0:2] = [-3.5, 300.25]  # type: ignore[index]
    labels[507] = -1
    labels[999] = None
    planted += [
        (5, "image.not_null", "null"), (450, "image.length", "783"), (501, "image.finite", "1"),
        (502, "image.finite", "2"), (503, "image.pixel_nulls", "1"), (504, "image.max", "256"),
        (505, "image.min", "-1"), (506, "image.whole", "1"), (507, "image.max", "300.25"),
        (507, "image.min", "-3.5"), (507, "image.whole", "2"), (507, "label.classes", "-1"),
        (999, "label.not_null", "null"),
    ]  # fmt: skip
    run = validate(write_raw(pa.array(rows), pa.array(labels)), params={"max_bad_fraction": 0.5})
    assert run.code == 0, run.error
    found = [tuple(line.values()) for line in run.table("quarantine").to_pylist()]
    assert found == sorted(planted)
    bad = {row for row, _, _ in planted}
    assert set(run.table("rows")["row"].to_pylist()) == set(range(1000)) - bad
    assert read_record(run.out).metrics["rows_quarantined"] == len(bad)


def test_too_many_bad_rows_stop_the_run_and_leave_nothing(
    validate: Callable, write_raw: Callable, digits: Digits, tmp_path: Path
) -> None:
    labels = digits[1].copy()
    labels[[3, 50, 700]] = 77
    raw = write_raw(digits[0], labels)
    assert validate(raw, params={"max_bad_fraction": 0.003}, out="passes").code == 0
    run = validate(raw, params={"max_bad_fraction": 0.0029})
    assert run.code == 2
    assert "3 of 1000 rows break the contract: label.classes in 3 (rows 3, 50, 700)" in run.error
    assert len(run.error.splitlines()) == 1
    assert not run.out.exists()
    assert not [path for path in tmp_path.glob(".dataset*") if path.is_dir()]


def test_a_run_without_one_good_row_stops_even_if_all_may_be_bad(
    validate: Callable, write_raw: Callable, digits: Digits
) -> None:
    run = validate(write_raw(digits[0], digits[1] + 100), params={"max_bad_fraction": 1.0})
    assert run.code == 2 and "1000 of 1000 rows" in run.error


def test_added_rows_move_no_old_row(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    few = validate(write_raw(digits[0][300:], digits[1][300:], name="few_raw"), out="few").table("rows").to_pydict()
    all_ = validate(write_raw(*digits, name="all_raw"), out="all").table("rows").to_pydict()
    split = dict(zip(all_["digest"], all_["split"], strict=True))
    assert len(few["row"]) == 700
    assert [split[digest] for digest in few["digest"]] == few["split"]


def test_equal_images_stay_in_one_split_whatever_their_labels(
    validate: Callable, write_raw: Callable, digits: Digits
) -> None:
    pixels, labels = (
        np.concatenate([digits[0], digits[0][:40]]),
        np.concatenate([digits[1], (digits[1][:40] + 1) % 10]),
    )
    run = validate(write_raw(pixels, labels))
    assert run.code == 0, run.error
    splits = run.table("rows")["split"].to_pylist()
    assert splits[1000:] == splits[:40]
    assert "40 rows have the same features" in run.error
    assert "40 sets of rows with equal features have different labels, such as rows 0 and 1000" in run.error


def test_csv_and_parquet_of_the_same_rows_give_the_same_dataset(
    validate: Callable, write_raw: Callable, digits: Digits, tmp_path: Path
) -> None:
    (tmp_path / "csv").mkdir()
    lines = ["label,image"] + [f'{label},"{" ".join(map(str, image))}"' for image, label in zip(*digits, strict=True)]
    (tmp_path / "csv" / "a.csv").write_text("\n".join(lines[:401]) + "\n")
    (tmp_path / "csv" / "b.csv").write_text("\r\n".join([lines[0], *lines[401:]]))
    of_csv, of_parquet = validate(tmp_path / "csv", out="one"), validate(write_raw(*digits), out="two")
    assert of_csv.code == 0, of_csv.error
    assert of_csv.digest() == of_parquet.digest()


def test_bad_cells_of_a_csv_file_go_to_the_quarantine(validate: Callable, digits: Digits, tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    lines = ["label,image"] + [f"{label},{' '.join(map(str, image))}" for image, label in zip(*digits, strict=True)]
    good = " ".join(map(str, digits[0][0]))
    lines += [f"x,{good}", "1,a b", "1", f"1.5,{good}", f"{2**70},{good}", "3,", f"3,{'0 ' * 783}1_0"]
    (tmp_path / "csv" / "a.csv").write_text("\n".join(lines))
    run = validate(tmp_path / "csv", params={"max_bad_fraction": 0.1})
    assert run.code == 0, run.error
    found = [(line["row"] - 1000, line["rule"], line["value"][:5]) for line in run.table("quarantine").to_pylist()]
    assert found == [
        (0, "label.type", "x"),
        (1, "image.type", "a b"),
        (2, "row.cells", "1"),
        (3, "label.type", "1.5"),
        (4, "label.type", str(2**70)[:5]),
        (5, "image.not_null", "null"),
        (6, "image.type", "0 0 0"),
    ]


def test_rows_without_a_label_go_to_the_pool_only(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    labels = pa.array(
        [None if row % 2 else int(label) for row, label in enumerate(np.repeat(digits[1][:500], 2))], pa.int64()
    )
    run = validate(write_raw(digits[0], labels), contract(nullable=True, max_null_share=0.5))
    assert run.code == 0, run.error
    splits = np.array(run.table("rows")["split"].to_pylist())
    assert (splits[1::2] == "unlabelled").all() and "unlabelled" not in splits[::2]
    assert set(range(1, 1000, 2)) <= set(read_images(run.out, "unlabelled").rows.tolist())
    run = validate(write_raw(digits[0], labels), contract(nullable=True, max_null_share=0.49))
    assert run.code == 2 and "50.00% of 'label' is missing" in run.error


def test_later_rows_with_a_unique_value_are_quarantined(
    validate: Callable, write_raw: Callable, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ROWS", 300)
    names = [f"scan-{number}" for number in range(1000)]
    names[2], names[900] = names[1], names[100]
    rules = {**CONTRACT["columns"], "scan": {"type": "string", "role": "metadata", "unique": True}}
    run = validate(write_raw(*digits, scan=names), {"columns": rules})
    assert run.code == 0, run.error
    found = [tuple(line.values()) for line in run.table("quarantine").to_pylist()]
    assert found == [(2, "scan.unique", "scan-1"), (900, "scan.unique", "scan-100")]
    assert run.table("train").column_names == ["row", "image", "label", "scan"]


def test_a_class_missing_from_a_split_stops_the_run(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    few = np.r_[0:700, np.flatnonzero(digits[1][700:] != 9) + 700]
    names = np.where(np.arange(len(few)) % 5 == 0, "test", np.where(np.arange(len(few)) % 5 == 1, "val", "train"))
    names[(digits[1][few] == 9)] = "train"
    rules = {"columns": {**CONTRACT["columns"], "part": {"type": "string", "role": "split"}}}
    run = validate(write_raw(digits[0][few], digits[1][few], part=names.tolist()), rules)
    assert run.code == 2
    assert "class 9 has no row in test (70 rows in all)" in run.error
    run = validate(write_raw(digits[0][digits[1] == 3], digits[1][digits[1] == 3]))
    assert run.code == 2 and "class 0 has no row in train (0 rows in all)" in run.error


def test_an_unbalanced_class_stops_the_run(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    kept = (digits[1] != 4) | (np.arange(1000) < 150)
    raw = write_raw(digits[0][kept], digits[1][kept])
    assert validate(raw, contract(balance={"min_share": 0.015})).code == 0
    run = validate(raw, contract(balance={"min_share": 0.05}))
    assert run.code == 2 and "class 4 has 1.64% of the labelled rows" in run.error


def test_a_test_row_planted_in_train_is_a_leak(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    """Only data that bring their own split can hold one."""
    names = ["test" if row // 10 % 4 == 0 else "val" if row // 10 % 4 == 1 else "train" for row in range(1000)]
    rules = {"columns": {**CONTRACT["columns"], "part": {"type": "string", "role": "split"}}}
    assert validate(write_raw(*digits, part=names), rules, out="clean").code == 0
    planted = digits[0].copy()
    planted[622] = planted[8]
    run = validate(write_raw(planted, digits[1], part=names), rules)
    assert run.code == 2
    assert "equal features in two splits, 1 times; such as row 8 (test) and row 622 (train" in run.error


def test_a_test_image_among_the_unlabelled_is_a_leak(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    run = validate(write_raw(*digits), out="clean")
    row = run.table("test")["row"][0].as_py()
    pixels = np.concatenate([digits[0], digits[0][[row]]])
    labels = pa.array([*map(int, digits[1]), None], pa.int64())
    run = validate(write_raw(pixels, labels), contract(nullable=True))
    assert run.code == 2 and f"row {row} (test) and row 1000 (unlabelled" in run.error


def test_a_near_copy_across_splits_is_a_leak(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    rules = {**CONTRACT, "near_duplicates": {"min_cosine": 0.99}}
    clean = validate(write_raw(*digits), rules, out="clean")
    assert clean.code == 0, clean.error
    row = clean.table("test")["row"][3].as_py()
    copies = np.repeat(digits[0][[row]], 12, axis=0)  # one changed pixel each: most of them fall into other splits
    copies[np.arange(12), np.arange(12)] = 40
    raw = write_raw(np.concatenate([digits[0], copies]), np.r_[digits[1], np.repeat(digits[1][row], 12)])
    assert validate(raw, out="unchecked").code == 0
    run = validate(raw, rules)
    assert run.code == 2
    assert (
        "near-duplicate images in two splits" in run.error
        and "cosine 0.99" in run.error
        and f"row {row} (test)" in run.error
    )


def test_a_shift_against_the_champion_is_a_warning_with_numbers(
    validate: Callable, write_raw: Callable, digits: Digits, tmp_path: Path
) -> None:
    before = validate(write_raw(*digits), out="before")
    draft = ReleaseDraft("digits", {"profile.json": before.out / "profile.json"}, {})
    store = open_store(str(tmp_path / "store"))
    publish(store, draft, Publication("0" * 32, fresh=True))
    again = validate(write_raw(*digits), out="again")
    assert again.code == 0 and "shifted" not in again.error
    assert read_execution(again.out)["drift"]["index"]["image.mean"] == 0
    assert read_record(again.out).sha256 == read_record(before.out).sha256, "the same rows, the same dataset"
    brighter = np.minimum(digits[0].astype(int) * 2 + 60, 255).astype(np.uint8)
    run = validate(write_raw(brighter, digits[1]))
    assert run.code == 0
    assert "'image.mean' has shifted against digits@1: population stability index" in run.error
    drift = read_execution(run.out)["drift"]
    assert drift["champion"] == "digits@1"
    assert drift["index"]["image.mean"] > 1 and drift["index"]["label"] == 0


def test_the_report_escapes_what_the_data_say_and_fetches_nothing(
    validate: Callable, write_raw: Callable, digits: Digits
) -> None:
    hostile = "<script>alert(1)</script>"
    labels = [f"class {label}" for label in digits[1]]
    labels[0] = hostile
    rules = contract(type="string", classes=[f"class {label}" for label in range(10)])
    run = validate(write_raw(digits[0], labels), rules)
    assert run.code == 0, run.error
    page = (run.out / "report.html").read_text()
    assert hostile not in page and "&lt;script&gt;" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": IMAGE | {"maks": 1}}, "columns.image.maks: unknown key; did you mean 'max'?"),
        ({"image": IMAGE | {"type": "imgae"}}, "unknown type 'imgae'; did you mean 'image'?"),
        ({"image": IMAGE | {"max": 300}}, "uint8 pixels lie between 0 and 255"),
        ({"image": IMAGE, "label": {"type": "integer"}}, "exactly one column with 'role: label'"),
        ({"label": {"type": "integer"}}, "no column with the role feature"),
    ],
)
def test_a_wrong_contract_is_refused(
    validate: Callable, write_raw: Callable, digits: Digits, columns: dict[str, object], message: str
) -> None:
    run = validate(write_raw(*digits), {"columns": columns})
    assert run.code == 2 and message in run.error and "\n" not in run.error.strip()


def test_a_column_of_another_type_is_refused(validate: Callable, write_raw: Callable, digits: Digits) -> None:
    run = validate(write_raw(digits[0], [str(label) for label in digits[1]]))
    assert run.code == 2 and "column 'label': type string; expected integer (int64)" in run.error
    run = validate(write_raw(["x"] * 1000, digits[1]))
    assert run.code == 2 and "column 'image': type string; expected pictures (bytes of JPEG" in run.error
    assert "or a list of 784 numbers" in run.error
    assert validate(write_raw(digits[0], digits[1].astype(np.float64))).code == 0


def test_a_rule_that_cannot_be_evaluated_is_an_error_not_a_pass() -> None:
    import pandas as pd

    from graftline.errors import GraftlineError

    rule = Rule("a.min", "a.value", "ExpectColumnValuesToBeBetween", {"min_value": 0}, "")
    with pytest.raises(GraftlineError, match=r"a\.min could not be evaluated"):
        Judge([rule]).judge(pd.DataFrame({"a.value": ["text", "more"]}))


def test_judging_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    rule = Rule("a.min", "a.value", "ExpectColumnValuesToBeBetween", {"min_value": 0}, "")
    failures = Judge([rule]).judge(pd.DataFrame({"a.value": [1, -1]}, index=[7, 8]))
    assert [(failure.index, failure.rule, failure.value) for failure in failures] == [(8, "a.min", -1)]


def test_the_entry_point_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    contract_file = tmp_path / "expectations.yaml"
    contract_file.write_text(json.dumps(CONTRACT))
    command = [
        sys.executable,
        "-m",
        "graftline.components.validate",
        "--params",
        '{"task": "t"}',
        "--in-raw",
        tmp_path / "raw",
    ]
    command += ["--in-expectations", contract_file, "--out-dataset", tmp_path / "out", "--store", tmp_path / "store"]
    done = forked.run(command, text=True)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("validate: ") and "an empty folder" in done.stderr and len(done.stderr.splitlines()) == 1
    )
    assert not (tmp_path / "out").exists()


def test_a_large_row_group_is_read_in_bounded_batches(tmp_path: Path) -> None:
    image = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(30_000 * 784, np.uint8)), 784)
    pq.write_table(pa.table({"image": image}), tmp_path / "one.parquet")
    batches = [
        (batch.first_row, batch.rows) for batch in read_batches(raw_files(tmp_path / "one.parquet"), Asked(["image"]))
    ]
    assert sum(rows for _, rows in batches) == 30_000
    assert max(rows for _, rows in batches) * 784 <= limits.BATCH_BYTES
    assert [first for first, _ in batches] == list(np.cumsum([0] + [rows for _, rows in batches])[:-1])


def test_a_column_beside_the_image_does_not_let_one_image_into_two_splits(
    validate: Callable, write_raw: Callable, digits: Digits, tmp_path: Path
) -> None:
    images, labels = digits
    rules = copy.deepcopy(CONTRACT)
    rules["columns"]["weight"] = {"type": "float"}
    raw = write_raw(np.concatenate([images, images]), [*labels, *labels])
    (path,) = raw.iterdir()
    table = pq.read_table(path)
    pq.write_table(table.append_column("weight", pa.array(np.arange(table.num_rows) / 7.0)), path)
    run = validate(raw, rules)
    assert run.code == 0, run.error
    seen = {name: set(map(bytes, read_images(run.out, name).pixels.numpy())) for name in ("train", "val", "test")}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["val"] and not seen["val"] & seen["test"]
