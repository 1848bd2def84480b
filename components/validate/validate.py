"""Check raw data against its contract, quarantine bad rows, split the good ones, look for leaks."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from graftline.component import Context
from graftline.components.validate import identity, leakage, profile, report
from graftline.components.validate.columns import ColumnBatch, fact_frame, read_columns, shorten
from graftline.components.validate.contract import SPLITS, Contract, load_contract
from graftline.components.validate.outputs import Outputs
from graftline.components.validate.suite import (
    Failure,
    Judge,
    Rule,
    class_rules,
    row_rules,
    total_rules,
    unique_rules,
)
from graftline.dataset import SCHEMA
from graftline.digests import sha256_bytes
from graftline.durable import write_new
from graftline.errors import InputError
from graftline.params import Params
from graftline.tables import RawBatch, raw_files, read_batches

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


PROFILE = "profile.json"
REPORT = "report.html"
NAMED_ROWS = 5
"""How many rows an error names."""


class ValidateParams(Params):
    """The section `validate` of a task's parameters."""

    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    """Largest share of rows that may go to the quarantine before the run stops, from 0 to 1."""

    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the labelled rows in test, about, from 0 to 1; unused if the raw data brings its split."""

    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the labelled rows in val, about, above 0 and below 1; likewise."""

    drift_warning: float = Field(default=0.2, gt=0)
    """Population stability index of a distribution against the champion's from which on to warn, above 0."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.test_fraction + self.val_fraction >= 1:
            raise ValueError("test_fraction plus val_fraction must be below 1: nothing is left for train")
        return self


@dataclass
class Tally:
    """What is counted over all rows."""

    rows: int = 0
    bad_rows: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)
    """Failing rows by rule."""
    first_rows: dict[str, list[int]] = field(default_factory=dict)
    """The first failing rows of each rule."""
    examples: list[tuple[int, str, str]] = field(default_factory=list)
    """The first lines of the quarantine."""
    nulls: Counter[str] = field(default_factory=Counter)
    """Missing values by column."""

    def add(self, batch_rows: int, lines: list[tuple[int, str, str]]) -> None:
        self.rows += batch_rows
        self.bad_rows += len({row for row, _, _ in lines})
        for row, rule, _ in lines:
            self.by_rule[rule] += 1
            named = self.first_rows.setdefault(rule, [])
            if len(named) < NAMED_ROWS:
                named.append(row)
        self.examples += lines[: report.QUARANTINE_ROWS - len(self.examples)]

    @property
    def bad_fraction(self) -> float:
        return self.bad_rows / self.rows if self.rows else 0.0


class Validation:
    """One pass over the raw rows."""

    def __init__(self, contract: Contract, params: ValidateParams, outputs: Outputs) -> None:
        self.contract, self.params, self.outputs = contract, params, outputs
        self.tally, self.index = Tally(), leakage.Index()
        self.profile = profile.Profile(contract)
        self.samples = report.Samples(contract)
        self.rules, self.unique = Judge(row_rules(contract)), unique_rules(contract)
        self.unique_judge = Judge(self.unique) if self.unique else None
        self.seen = {
            name: identity.SeenValues() for name, column in contract.columns.items() if column.unique
        }

    def add(self, batch: RawBatch) -> None:
        """Judge a batch, quarantine its bad rows, write the others."""
        import numpy as np

        columns = read_columns(batch, self.contract)
        frame = fact_frame(batch, columns, len(self.contract.columns))
        for name in columns:
            self.tally.nulls[name] += int(frame[f"{name}.given"].isna().sum())
        failures = self.rules.judge(frame)
        lines = [self._line(failure, batch, columns) for failure in failures]
        good = np.ones(batch.rows, bool)
        good[[failure.index - batch.first_row for failure in failures]] = False
        taken = {name: column.take(good) for name, column in columns.items()}
        rows = np.arange(batch.first_row, batch.first_row + batch.rows)[good]
        if self.unique_judge is not None and len(rows):
            repeated, keep = self._repeated(self.unique_judge, taken, rows)
            lines = sorted(lines + repeated)
            taken, rows = {name: values.filter(keep) for name, values in taken.items()}, rows[keep]
        self.tally.add(batch.rows, lines)
        self.outputs.add_failures(lines)
        if len(rows):
            self._add_good(rows, taken)

    def _line(
        self, failure: Failure, batch: RawBatch, columns: dict[str, ColumnBatch]
    ) -> tuple[int, str, str]:
        row = int(failure.index)
        rule = self.rules.rules[failure.rule]
        if rule.shows == "raw":
            value = columns[rule.name.rpartition(".")[0]].as_found(row - batch.first_row)
        else:
            value = show(failure.value)
        return row, failure.rule, value

    def _repeated(
        self, judge: Judge, taken: dict[str, pa.Array], rows: np.ndarray
    ) -> tuple[list[tuple[int, str, str]], np.ndarray]:
        """Return the quarantine lines of good rows that repeat a unique value, and a mask of the others."""
        import numpy as np
        import pandas as pd

        cells = {name: identity.cell_bytes(taken[name]) for name in self.seen}
        facts = {f"{name}.repeats": seen.add(cells[name]) for name, seen in self.seen.items()}
        lines = []
        keep = np.ones(len(rows), bool)
        for failure in judge.judge(pd.DataFrame(facts, index=rows)):
            position = int(np.searchsorted(rows, failure.index))
            name = failure.rule.rpartition(".")[0]
            is_image = name == self.contract.image[0]
            value = (
                f"sha256 {sha256_bytes(cells[name][position])}"
                if is_image
                else str(taken[name][position].as_py())
            )
            lines.append((int(failure.index), failure.rule, shorten(value)))
            keep[position] = False
        return lines, keep

    def _add_good(self, rows: np.ndarray, columns: dict[str, pa.Array]) -> None:
        import numpy as np

        of_features, of_rows = identity.row_digests(columns, self.contract)
        labels = self._class_indices(columns)
        splits = self._splits(columns, of_features, labels)
        self.outputs.add_rows(rows, columns, of_rows, splits)
        pixels = columns[self.contract.image[0]].flatten().to_numpy().reshape(len(rows), -1)
        self.profile.add(columns, pixels)
        self.samples.add(pixels, labels, splits)
        self.index.rows.append(rows)
        self.index.splits.append(splits)
        self.index.features.append(np.ascontiguousarray(of_features[:, :16]).view(np.uint64))
        self.index.labels.append(labels)
        if self.contract.near_duplicates is not None:
            self.index.signatures.append(leakage.signatures(pixels))

    def _class_indices(self, columns: dict[str, pa.Array]) -> np.ndarray:
        """Return (n,) int32 indices into the classes, -1 without a label."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        labels = columns[self.contract.label[0]]
        found = pc.index_in(labels, pa.array(self.contract.classes, labels.type))
        indices: np.ndarray = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return indices

    def _splits(self, columns: dict[str, pa.Array], digests: np.ndarray, labels: np.ndarray) -> np.ndarray:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.contract.split is not None:
            names = pa.array(identity.SPLIT_NAMES)
            splits = (
                pc.index_in(columns[self.contract.split], names)
                .to_numpy(zero_copy_only=False)
                .astype(np.uint8)
            )
        else:
            splits = identity.split_by_digest(digests, self.params.test_fraction, self.params.val_fraction)
        return np.where(labels < 0, identity.UNLABELLED, splits).astype(np.uint8)


def run(context: Context) -> None:
    """Fill the dataset folder.

    Raises:
        InputError: the raw data cannot be read, too many rows are bad, or a rule of the table is broken.
    """
    params = context.section("validate", ValidateParams)
    contract = load_contract(context.paths["expectations"])
    raw = context.paths["raw"]
    return_freed_memory()
    files = raw_files(raw)
    with Outputs(context.out, contract) as outputs:
        validation = Validation(contract, params, outputs)
        for batch in read_batches(files, list(contract.columns)):
            validation.add(batch)
            _progress(validation.tally)
    _check_bad_fraction(raw, validation.tally, params)
    checks = judge_table(raw, validation, context.out)
    described = validation.profile.as_dict()
    for warning in checks.warnings + _drift_warnings(context, described, params):
        print(f"validate: warning: {warning}", file=sys.stderr)
    _write_json(context.out / SCHEMA, contract.schema_of_dataset().as_dict())
    _write_json(context.out / PROFILE, described)
    page = report.Page(
        task=context.task, tally=validation.tally, rules=_rule_lines(validation, checks),
        classes=checks.classes,
        split_rows=checks.split_rows, samples=validation.samples, profile=described,
        warnings=checks.warnings, contract=contract,
    )  # fmt: skip
    write_new(context.out / REPORT, report.render(page).encode())
    context.draft.metrics.update(_metrics(validation, checks))


def return_freed_memory() -> None:
    """Have freed batches go back to the system at once: the allocators' caches take some 150 MB otherwise.

    glibc maps blocks above a threshold one by one, and raises the threshold up to 32 MB as it sees such
    blocks; a threshold that is set stays (mallopt(3)). Other C libraries are left as they are.
    """
    import ctypes

    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


_M_MMAP_THRESHOLD = -3


# Rules for the whole table


@dataclass
class TableChecks:
    """What the rules for the whole table found; none is broken."""

    rules: list[Rule]
    classes: dict[str, dict[str, int]]
    """Rows of each class by split name."""
    split_rows: dict[str, int]
    """Rows of each split; every good row is in one."""
    warnings: list[str]
    duplicates: int
    conflicts: int


def judge_table(raw: Path, validation: Validation, folder: Path) -> TableChecks:
    """Return the table's facts if no rule for the whole table is broken. Raises InputError."""
    import numpy as np
    import pandas as pd

    contract, tally = validation.contract, validation.tally
    index = validation.index.close()
    counts = np.zeros((len(contract.classes), len(identity.SPLIT_NAMES)), np.int64)
    labelled = index.labels >= 0
    np.add.at(counts, (index.labels[labelled], index.splits[labelled]), 1)
    exact = leakage.find_exact(index)
    near: list[leakage.Pair] = []
    if contract.near_duplicates is not None and not exact.leaks:
        near = leakage.find_near(index, folder, contract.image[0], contract.near_duplicates.min_cosine)
    totals: dict[str, float] = {"rows": tally.rows, "exact_leaks": len(exact.leaks), "near_leaks": len(near)}
    totals |= {f"{name}.null_share": tally.nulls[name] / tally.rows for name in contract.columns}
    frame = pd.DataFrame(counts, columns=list(identity.SPLIT_NAMES), index=range(len(counts)))
    frame["share"] = counts.sum(axis=1) / max(1, counts.sum())
    splits = [
        s
        for s in SPLITS
        if s != "val" or validation.params.val_fraction > 0 or (contract.split and frame["val"].sum())
    ]
    table, of_classes = total_rules(contract), class_rules(contract, splits)
    broken = [(failure, None) for failure in Judge(of_classes).judge(frame)]
    failures = Judge(table).judge(pd.DataFrame([totals])) + [failure for failure, _ in broken]
    _refuse(raw, failures, {rule.name: rule for rule in table + of_classes}, contract, frame, exact, near)
    by_class = zip(map(str, contract.classes), counts.tolist(), strict=True)
    return TableChecks(
        rules=table + of_classes,
        classes={name: dict(zip(identity.SPLIT_NAMES, row, strict=True)) for name, row in by_class},
        split_rows={name: int((index.splits == n).sum()) for n, name in enumerate(identity.SPLIT_NAMES)},
        warnings=_duplicate_warnings(exact), duplicates=exact.duplicates, conflicts=len(exact.conflicts),
    )  # fmt: skip


def _check_bad_fraction(raw: Path, tally: Tally, params: ValidateParams) -> None:
    if tally.bad_fraction <= params.max_bad_fraction and tally.bad_rows < tally.rows:
        return
    worst = [
        f"{rule} in {count} (rows {_first(tally.first_rows[rule], count)})"
        for rule, count in tally.by_rule.most_common(3)
    ]
    if len(tally.by_rule) > 3:
        worst.append(f"{len(tally.by_rule) - 3} more rules")
    raise InputError(
        raw, f"{tally.bad_rows} of {tally.rows} rows break the contract: " + ", ".join(worst),
        expected=f"at most {params.max_bad_fraction:.2%} (validate.max_bad_fraction) and one good row",
        fix="correct the rows, or the contract",
    )  # fmt: skip


def _first(rows: list[int], count: int) -> str:
    return ", ".join(map(str, rows)) + (", ..." if count > len(rows) else "")


def _refuse(
    raw: Path, failures: list[Failure], rules: dict[str, Rule], contract: Contract, classes: Any,
    exact: leakage.ExactFindings, near: list[leakage.Pair],
) -> None:  # fmt: skip
    """Raise InputError for the broken rules, those of leaks last."""
    if not failures:
        return
    found = []
    fix = "correct the data, or the contract"
    for failure in failures[:5]:
        kind = failure.rule.rpartition(".")[2]
        if kind == "exact_leaks":
            found.append(f"equal features in two splits, {len(exact.leaks)} times; {_pairs(exact.leaks)}")
            fix = "remove one of each"
        elif kind == "near_leaks":
            found.append(f"near-duplicate images in two splits, at least {len(near)} pairs; {_pairs(near)}")
            fix = "remove one of each, or raise near_duplicates.min_cosine"
        elif kind == "balance":
            found.append(
                f"class {contract.classes[failure.index]!r} has {failure.value:.2%} of the labelled rows"
            )
        elif kind.endswith("_rows"):
            row = classes.loc[failure.index, list(identity.SPLIT_NAMES)]
            found.append(
                f"class {contract.classes[failure.index]!r} has no row in {kind[:-5]} "
                f"({row.sum()} rows in all)"
            )
        elif kind == "null_share":
            found.append(f"{failure.value:.2%} of '{failure.rule.rpartition('.')[0]}' is missing")
        else:
            found.append(f"{failure.value} rows")
    if len(failures) > 5:
        found.append(f"{len(failures) - 5} more")
    texts = dict.fromkeys(rules[failure.rule].text for failure in failures[:5])
    raise InputError(raw, "; ".join(found), expected=", ".join(texts), fix=fix)


def _pairs(pairs: list[leakage.Pair]) -> str:
    return "such as " + ", ".join(map(str, pairs[:3]))


def _duplicate_warnings(exact: leakage.ExactFindings) -> list[str]:
    warnings = []
    if exact.duplicates:
        warnings.append(f"{exact.duplicates} rows have the same features as an earlier row of their split")
    if exact.conflicts:
        first, second = exact.conflicts[0]
        warnings.append(
            f"{len(exact.conflicts)} sets of rows with equal features have different labels, "
            f"such as rows {first} and {second}"
        )
    return warnings


# Drift


def _drift_warnings(context: Context, described: dict[str, Any], params: ValidateParams) -> list[str]:
    """Compare with the champion's profile; note the figures as observed, and return what to warn of.

    They are no part of the dataset: the same rows must give the same dataset whichever champion there is.
    """
    from graftline.canonical import read_json
    from graftline.releases.catalogue import champion
    from graftline.releases.fetching import fetch

    store = context.store()
    release = champion(store, context.task)
    if release is None:
        return []
    path = fetch(store, release) / PROFILE
    if not path.is_file():
        return [f"{release.name} holds no {PROFILE}: drift is not measured"]
    drift = profile.drift(described, read_json(path))
    context.observed["drift"] = {"champion": release.name, "limit": params.drift_warning, "index": drift}
    return [
        f"'{name}' has shifted against {release.name}: "
        + (
            "its bins or classes are others, so no index can be computed"
            if value is None
            else f"population stability index {value:.3f}, above {params.drift_warning:g}"
        )
        for name, value in sorted(drift.items())
        if value is None or value > params.drift_warning
    ]


# Output


def _metrics(validation: Validation, checks: TableChecks) -> dict[str, Any]:
    tally = validation.tally
    return {
        "rows": tally.rows, "rows_quarantined": tally.bad_rows, "bad_fraction": tally.bad_fraction,
        **{f"rows_{name}": count for name, count in checks.split_rows.items()},
        "duplicate_rows": checks.duplicates, "label_conflicts": checks.conflicts,
        "warnings": len(checks.warnings),
    }  # fmt: skip


def _rule_lines(validation: Validation, checks: TableChecks) -> list[report.RuleLine]:
    rows = validation.tally.rows
    by_row = [*validation.rules.rules.values(), *validation.unique]
    lines = [
        report.RuleLine(
            rule.name, rule.text, rule.expectation, rows - validation.tally.by_rule[rule.name], rows
        )
        for rule in by_row
    ]
    return lines + [
        report.RuleLine(rule.name, rule.text, rule.expectation, None, None) for rule in checks.rules
    ]


def show(value: Any) -> str:
    """Return a failing value as the quarantine shows it."""
    if value is None or value != value:
        return "null"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return shorten(str(value))


def _write_json(path: Path, value: Any) -> None:
    write_new(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def _progress(tally: Tally) -> None:
    if sys.stderr.isatty():
        print(
            f"\rvalidate: {tally.rows:,} rows, {tally.bad_rows:,} quarantined",
            end="",
            file=sys.stderr,
            flush=True,
        )
