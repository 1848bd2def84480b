"""Check raw data against its contract, quarantine bad rows, split the good ones, look for leaks."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graftline.component import Context
from graftline.components.validate import report
from graftline.components.validate.drift import PROFILE, drift_warnings
from graftline.components.validate.held import Held
from graftline.components.validate.outputs import Outputs
from graftline.components.validate.scan import NAMED_ROWS, Tally, Validation
from graftline.components.validate.table import PAIRS, TableChecks, judge_table, write_pairs
from graftline.dataset import SCHEMA
from graftline.durable import write_new
from graftline.errors import InputError
from graftline.raw.files import raw_files, read_batches
from graftline.tasks.validate import ValidateParams
from graftline.values.ahead import Ahead
from graftline.values.columns import bounded
from graftline.values.contract import load_contract
from graftline.values.erased import ERASED, load_erasures
from graftline.values.facts import shorten
from graftline.values.placing import LEFT_OUT

REPORT = "report.html"
NAMED_COLUMNS = 20
# mallopt(3)
_M_MMAP_THRESHOLD = -3


def run(context: Context) -> None:
    """Fill the dataset folder.

    Raises:
        InputError: the raw data cannot be read, too many rows are bad, or a rule of the table is broken.
    """
    params = context.section("validate", ValidateParams)
    contract = load_contract(context.paths["expectations"])
    raw = context.paths["raw"]
    beside = context.work.with_name(PAIRS)
    beside.unlink(missing_ok=True)  # of an earlier run, which may have stopped for pairs that are no more
    return_freed_memory()
    files = raw_files(raw, contract.source)
    batches = bounded(read_batches(files, contract.asked), contract)
    first = next(batches)  # what the columns hold decides where their values go
    with Ahead(contract, first, context.work, _digest_of_raw(context), context.threads) as ahead:
        held = Held(context.work / "rows.parquet", contract) if contract.settles else None
        with Outputs(context.out, contract, ahead.columns) as outputs, held or contextlib.nullcontext():
            validation = Validation(contract, params, outputs, load_erasures(context, contract), held)
            for batch in ahead.decoded(itertools.chain([first], batches)):
                validation.add(batch)
                _progress(validation.tally)
            _check_bad_fraction(raw, validation.tally, params)
            validation.close()
        ahead.link(context.out, validation.tally.rows)
        checks = judge_table(raw, validation, context.out, beside)
        ahead.clear(np.concatenate(validation.bad))
    for name in contract.features:
        for note in contract.feature_named(name).put_beside(name, raw, contract.source, context.out):
            print(f"validate: {note}", file=sys.stderr)
    described = validation.profile.as_dict()
    _say(validation)
    for note in validation.placed.notes:
        print(f"validate: {note}", file=sys.stderr)
    for warning in checks.warnings + drift_warnings(context, described, params):
        print(f"validate: warning: {warning}", file=sys.stderr)
    _write_json(context.out / SCHEMA, contract.schema_of_dataset(ahead.columns).as_dict())
    _write_json(context.out / PROFILE, described)
    page = report.Page(
        task=context.task,
        tally=validation.tally,
        rules=_rule_lines(validation, checks),
        classes=checks.classes,
        split_rows=checks.split_rows,
        samples=validation.samples,
        profile=described,
        warnings=checks.warnings,
        contract=contract,
        notes=validation.placed.notes,
        pairs=validation.placed.pairs,
        changed=validation.changed(),
    )
    if len(page.pairs):
        write_pairs(context.out / PAIRS, page.pairs)
    write_new(context.out / REPORT, report.render(page).encode())
    context.draft.metrics.update(_metrics(validation, checks))


def _digest_of_raw(context: Context) -> str:
    return next(source.sha256 for source in context.draft.dependencies if source.name == "raw")


def return_freed_memory() -> None:
    """Have freed batches go back to the system at once: the allocators' caches take some 150 MB otherwise.

    glibc maps blocks above a threshold one by one, and raises the threshold up to 32 MB as it sees such
    blocks; a threshold that is set stays (mallopt(3)). Other C libraries are left as they are.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _check_bad_fraction(raw: Path, tally: Tally, params: ValidateParams) -> None:
    if tally.bad_fraction <= params.max_bad_fraction and tally.bad_rows < tally.rows:
        return
    seen = {rule: f": {shorten(value)}" for _, rule, value in reversed(tally.examples)}
    worst = [
        f"{rule} in {count} (rows {_first(tally.first_rows[rule], count)}){seen.get(rule, '')}"
        for rule, count in tally.by_rule.most_common(3)
    ]
    if len(tally.by_rule) > 3:
        worst.append(f"{len(tally.by_rule) - 3} more rules")
    raise InputError(
        raw,
        f"{tally.bad_rows} of {tally.rows} rows break the contract: " + ", ".join(worst),
        expected=f"at most {params.max_bad_fraction:.2%} (validate.max_bad_fraction) and one good row",
        fix="correct the rows, or the contract",
    )


def _first(rows: list[int], count: int) -> str:
    return ", ".join(map(str, rows)) + (", ..." if count > len(rows) else "")


def _metrics(validation: Validation, checks: TableChecks) -> dict[str, Any]:
    tally = validation.tally
    return {
        "rows": tally.rows,
        "rows_quarantined": tally.bad_rows,
        "bad_fraction": tally.bad_fraction,
        **{f"rows_{name}": count for name, count in checks.split_rows.items()},
        "rows_left_out": tally.left_out.total(),
        "near_pairs": len(validation.placed.pairs),
        "duplicate_rows": checks.duplicates,
        "label_conflicts": checks.conflicts,
        "warnings": len(checks.warnings),
        **({"columns_dropped": len(tally.dropped)} if tally.dropped else {}),
        **_changes(tally),
        **({"passed_over": tally.passed_over.total()} if tally.passed_over else {}),
    }


def _changes(tally: Tally) -> Counter[str]:
    """Return how many values of each column each kind of change was made to; what follows a colon is no kind."""
    counts: Counter[str] = Counter()
    for name, done in tally.changes.items():
        for change, count in sorted(done.items()):
            counts[f"{name}.{change.partition(':')[0]}"] += count
    return counts


def _say(validation: Validation) -> None:
    """Tell what was changed on reading, and what was passed over."""
    tally = validation.tally
    for name, change, count in validation.changed():
        print(f"validate: {name}: {count:,} times: {change}", file=sys.stderr)
    if tally.dropped:
        dropped = ", ".join(repr(name) for name in list(tally.dropped)[:NAMED_COLUMNS])
        print(f"validate: {len(tally.dropped)} columns are dropped, as the contract says: {dropped}", file=sys.stderr)
    for why, count in sorted(tally.passed_over.items()):
        names = ", ".join([one.name for one in tally.named if one.why == why][:NAMED_ROWS])
        print(f"validate: left out, {why}: {count:,}" + (f", such as {names}" if names else ""), file=sys.stderr)


def _rule_lines(validation: Validation, checks: TableChecks) -> list[report.RuleLine]:
    rows = validation.tally.rows
    by_row = [*validation.rules.rules.values(), *validation.unique]
    lines = [
        report.RuleLine(rule.name, rule.text, rule.expectation, rows - validation.tally.by_rule[rule.name], rows)
        for rule in by_row
    ]
    if erased := validation.tally.by_rule[ERASED]:
        lines.append(report.RuleLine(ERASED, "no row that was erased", "", rows - erased, rows))
    for rule, count in sorted(validation.tally.left_out.items()):
        lines.append(report.RuleLine(rule, LEFT_OUT[rule], "", rows - count, rows))
    return lines + [report.RuleLine(rule.name, rule.text, rule.expectation, None, None) for rule in checks.rules]


def _write_json(path: Path, value: Any) -> None:
    write_new(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def _progress(tally: Tally) -> None:
    if sys.stderr.isatty():
        print(f"\rvalidate: {tally.rows:,} rows, {tally.bad_rows:,} quarantined", end="", file=sys.stderr, flush=True)
