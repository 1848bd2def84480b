"""One raw row in a file, and the digests that validate gives it: the same code, under the tasks' contracts.

The file is a row with all its columns (a JSON object, or Parquet, CSV or JSON lines with one row), or only what a model
sees: a picture, a clip or a text file. Of the latter the label is not known, so each label that the contract allows is
tried.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.errors import InputError
from graftline.raw import clip_formats, picture_formats
from graftline.raw.batches import RawBatch
from graftline.raw.files import raw_files, read_batches
from graftline.raw.reader import Asked, Source
from graftline.values.columns import fact_frame, read_columns, row_digests
from graftline.values.contract import Contract, load_contract
from graftline.values.suite import row_rules

if TYPE_CHECKING:
    import pandas as pd

    from graftline.values.facts import ColumnBatch
    from graftline.values.rules import Rule

MAX_BYTES = 64 << 20
_TABLES = (".parquet", ".csv", ".jsonl")
_FEATURES = (*picture_formats.SUFFIXES, *clip_formats.SUFFIXES, ".txt")


def digests_by_task(path: Path, contracts: Mapping[str, Contract]) -> dict[str, list[bytes]]:
    """Return the digests (32 bytes) that the row has, or may have, under each contract that it fits.

    Raises:
        InputError: the file is not a row, or fits no contract; the line says why for each.
    """
    found, why = {}, []
    for task, contract in contracts.items():
        try:
            found[task] = digests_of(path, contract)
        except InputError as error:
            why.append(f"{task}: {error}")
    if not found:
        raise InputError(path, "fits no task's contract", expected="a row of one", fix="; ".join(why)[:500])
    return found


def task_contracts(root: Path, tasks: Iterable[str] | None = None) -> dict[str, Contract]:
    """Return the contract of each task (of all in data/). Raises InputError for one that cannot be read."""
    known = sorted(path.parent.name for path in (root / "data").glob("*/expectations.yaml"))
    return {task: load_contract(root / "data" / task / "expectations.yaml") for task in tasks or known}


def digests_of(path: Path, contract: Contract) -> list[bytes]:
    """Return the digests that the row in `path` has, or may have, under `contract`. Raises InputError."""
    if not path.is_file():
        raise InputError(path, "no such file", fix="check the path")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(path, f"{path.stat().st_size} bytes", expected=f"one row, at most {MAX_BYTES}")
    with TemporaryDirectory(prefix="graftline-row-") as folder:
        if path.suffix.lower() in _TABLES:
            raw, asked = Path(folder) / f"row{path.suffix.lower()}", replace(contract.asked, source=Source())
            shutil.copyfile(path, raw)
            rows = 1
        else:
            values = _values(path, contract)
            raw, rows, asked = Path(folder) / "rows.jsonl", len(values), Asked(tuple(contract.columns))
            raw.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
        return _digests(path, raw, contract, asked, rows)


def _digests(path: Path, raw: Path, contract: Contract, asked: Asked, rows: int) -> list[bytes]:
    batches = list(read_batches(raw_files(raw), asked))
    if sum(batch.rows for batch in batches) != rows:
        raise InputError(path, f"{sum(batch.rows for batch in batches)} rows", expected="one row")
    found = []
    for batch in batches:
        columns = read_columns(batch, contract)
        good = good_rows(batch, columns, contract)
        if not good.all():
            raise InputError(path, "a value breaks the contract", expected="a row that validate accepts")
        taken = {name: column.take(good) for name, column in columns.items()}
        found += [digest.tobytes() for digest in row_digests(taken, contract)[1]]
    return found


def good_rows(batch: RawBatch, columns: dict[str, ColumnBatch], contract: Contract) -> np.ndarray:
    """Return (n,) bool: which rows of a raw batch keep the contract's rules on rows.

    The rules are validate's; the judge is not: Great Expectations takes seconds to load, and a question about one row
    should not. A test compares the two.
    """
    frame = fact_frame(batch, columns, contract)
    good = np.ones(batch.rows, bool)
    for rule in row_rules(contract):
        good &= ~_breaks(frame[rule.column], rule)
    return good


def _breaks(values: pd.Series, rule: Rule) -> np.ndarray:
    """Return (n,) bool: which values break the rule. A missing value breaks only the rule that there is one."""
    missing = values.isna().to_numpy()
    if rule.expectation == "ExpectColumnValuesToNotBeNull":
        return missing
    bad = np.zeros(len(values), bool)
    given = values[~missing]
    if rule.expectation == "ExpectColumnValuesToBeInSet":
        bad[~missing] = ~given.isin(rule.arguments["value_set"]).to_numpy()
        return bad
    low, high = rule.arguments.get("min_value"), rule.arguments.get("max_value")
    below = (given < low).to_numpy(bool) if low is not None else False
    above = (given > high).to_numpy(bool) if high is not None else False
    bad[~missing] = below | above
    return bad


def _values(path: Path, contract: Contract) -> list[dict[str, Any]]:
    """Return the rows to try, as JSON lines hold them."""
    if path.suffix.lower() not in _FEATURES:
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(
                path,
                f"not a row ({error})",
                expected=f"a JSON object with the columns, or a {', '.join([*_TABLES, *_FEATURES])} file",
            ) from None
        if not isinstance(value, dict):
            raise InputError(path, f"a {type(value).__name__}", expected="a JSON object with the columns")
        return [value]
    name, feature = contract.feature
    others = set(contract.columns) - {name, contract.subject}
    if contract.label is not None:
        others -= {contract.label[0]}
    if others:
        raise InputError(
            path,
            "only what a model sees",
            expected="a JSON object with " + ", ".join(sorted(others)) + " too",
            fix="the row's digest is over all of its columns",
        )
    value = feature.from_file(path)
    if contract.label is None:
        return [{name: value}]
    label, column = contract.label
    guesses = column.guesses()
    if guesses is None:
        raise InputError(path, f"{name} without {label}", expected=f"a JSON object with {name} and {label}")
    return [{name: value, label: one} for one in guesses]
