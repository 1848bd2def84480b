"""What must hold for the rows together: balance, missing values, every class in every split, no leaks."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from graftline.components.validate.held import values_at
from graftline.components.validate.scan import Validation
from graftline.errors import InputError
from graftline.values import identity, leakage
from graftline.values.contract import Contract
from graftline.values.facts import shorten
from graftline.values.identity import SPLITS
from graftline.values.rules import Rule
from graftline.values.suite import ROWS, Failure, Judge, class_rules, total_rules

PAIRS = "near_duplicates.csv"
"""In a dataset, where its contract says what becomes of them; beside it, if the run stops for them."""
NAMED_GROUPS = 5
"""How many groups an error names."""


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


def judge_table(raw: Path, validation: Validation, folder: Path, beside: Path) -> TableChecks:
    """Return the table's facts if no rule for the whole table is broken.

    Args:
        raw: the raw data, for errors.
        validation: what the scan found.
        folder: with the split files.
        beside: where all pairs are written to that the run stops for.

    Raises:
        InputError: a rule is broken.
    """
    import pandas as pd

    contract, tally = validation.contract, validation.tally
    files = [folder / f"{name}.parquet" for name in identity.SPLIT_NAMES]
    _refuse_split_groups(raw, validation, files)
    index = validation.placed.index
    counts = validation.class_counts
    exact = leakage.find_exact(index)
    near = leakage.NearPairs()
    if contract.near_duplicates is not None and contract.near_duplicates.action == "stop":
        assert validation.near is not None
        near = leakage.find_near(index, validation.near, files)
    if exact.leaks or len(near):
        write_pairs(beside, [*exact.leaks, *near])
    totals: dict[str, float] = {"rows": tally.rows, "exact_leaks": len(exact.leaks), "near_leaks": len(near)}
    totals |= {f"{name}.null_share": tally.nulls[name] / tally.rows for name in contract.columns}
    frame = pd.DataFrame(counts, columns=list(identity.SPLIT_NAMES), index=range(len(counts)))
    frame["share"] = counts.sum(axis=1) / max(1, counts.sum())
    splits = [
        s for s in SPLITS if s != "val" or validation.params.val_fraction > 0 or (contract.split and frame["val"].sum())
    ]
    table = total_rules(contract)
    of_classes = class_rules(contract, splits) if contract.classes else []
    if validation.params.partial:  # what only the rows of all parts together must hold
        table, of_classes = [rule for rule in table if rule.name != ROWS], []
    failures = Judge(table).judge(pd.DataFrame([totals]))
    if of_classes:
        failures += Judge(of_classes).judge(frame)
    rules = {rule.name: rule for rule in table + of_classes}
    _refuse(raw, failures, rules, contract, frame, exact, near, beside)
    by_class = zip(map(str, contract.classes), counts.tolist(), strict=True)
    return TableChecks(
        rules=table + of_classes,
        classes={name: dict(zip(identity.SPLIT_NAMES, row, strict=True)) for name, row in by_class},
        split_rows={name: int((index.splits == n).sum()) for n, name in enumerate(identity.SPLIT_NAMES)},
        warnings=_duplicate_warnings(exact) + ([] if index.loose is None else _alike_warnings(index)),
        duplicates=exact.duplicates,
        conflicts=len(exact.conflicts),
    )


def _refuse(
    raw: Path,
    failures: list[Failure],
    rules: dict[str, Rule],
    contract: Contract,
    classes: Any,
    exact: leakage.ExactFindings,
    near: leakage.NearPairs,
    beside: Path,
) -> None:
    """Raise InputError for the broken rules, those of leaks last."""
    if not failures:
        return
    found = []
    fix = "correct the data, or the contract"
    for failure in failures[:5]:
        kind = failure.rule.rpartition(".")[2]
        if kind == "exact_leaks":
            found.append(f"equal features in two splits, {len(exact.leaks)} times; {_pairs(exact.leaks, beside)}")
            fix = f"remove one of each, or {_actions(contract)}"
        elif kind == "near_leaks":
            _, feature = contract.feature
            found.append(f"near-duplicate {feature.plural} in two splits, {len(near)} pairs; {_pairs(near, beside)}")
            fix = f"remove one of each, raise near_duplicates.{feature.near}, or {_actions(contract)}"
        elif kind == "balance":
            found.append(
                f"class {contract.classes[failure.index]!r} has {failure.value:.2%} of the {_counted(contract)}"
            )
        elif kind.endswith("_rows"):
            row = classes.loc[failure.index, list(identity.SPLIT_NAMES)]
            found.append(
                f"class {contract.classes[failure.index]!r} has no row in {kind[:-5]} "
                f"({row.sum()} {_counted(contract).removeprefix('labelled ')} in all)"
            )
            fix = (
                "bring more rows of it, an own split (a column with `role: split`), or raise validate.test_fraction "
                "or val_fraction; or leave the class out of the contract"
            )
        elif kind == "null_share":
            found.append(f"{failure.value:.2%} of '{failure.rule.rpartition('.')[0]}' is missing")
        else:
            found.append(f"{failure.value} rows")
    if len(failures) > 5:
        found.append(f"{len(failures) - 5} more")
    texts = dict.fromkeys(rules[failure.rule].text for failure in failures[:5])
    raise InputError(raw, "; ".join(found), expected=", ".join(texts), fix=fix)


def _counted(contract: Contract) -> str:
    """Return what the counts of classes count."""
    assert contract.label is not None
    return contract.label[1].counted


def _pairs(pairs: Iterable[leakage.Pair], beside: Path) -> str:
    here = beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside
    return f"such as {', '.join(map(str, islice(pairs, 3)))}; all are in {here}"


def _actions(contract: Contract) -> str:
    """Return how the contract can have such rows dealt with."""
    if contract.near_duplicates is None:
        return f"give near_duplicates: {{{contract.feature[1].near}: ..., action: quarantine}} in the contract"
    others = "quarantine" if contract.time is not None else "quarantine or together"
    return f"set near_duplicates.action to {others}"


def write_pairs(path: Path, pairs: Iterable[leakage.Pair]) -> None:
    """Write pairs of rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("first", "first_split", "second", "second_split", "likeness"))
        for pair in pairs:
            writer.writerow((pair.first, pair.splits[0], pair.second, pair.splits[1], pair.likeness))


def _refuse_split_groups(raw: Path, validation: Validation, files: Sequence[Path]) -> None:
    """Raise InputError if the raw data's own split divides a group; persons are not named."""
    contract, found = validation.contract, validation.split_groups
    if not found:
        return
    group = contract.group
    assert group is not None
    shown = found[:NAMED_GROUPS]
    named = {} if group == contract.subject else values_at(files, group, [pair.first for pair in shown])
    groups = [
        (f"{shorten(str(named[pair.first]))}: " if pair.first in named else "")
        + f"row {pair.first} ({pair.splits[0]}) and row {pair.second} ({pair.splits[1]})"
        for pair in shown
    ]
    more = f", and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    raise InputError(
        raw,
        f"'{contract.split}' puts {len(found)} groups of '{group}' into two splits: {'; '.join(groups)}{more}",
        expected="all rows of a group in one split",
        fix=f"correct '{contract.split}', or give it the role metadata: the groups' digests then decide the split",
    )


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


def _alike_warnings(index: leakage.Columns) -> list[str]:
    """Return what to say of rows that are equal to a model whose tokenizer takes case and variants of form away."""
    alike = leakage.find_alike(index)
    warnings = []
    if alike.leaks:
        warnings.append(
            f"{len(alike.leaks)} sets of rows in two splits differ only in case or in Unicode's variants of form, such "
            f"as {alike.leaks[0]}: a model that does not see these has seen the other one"
        )
    if alike.conflicts:
        first, second = alike.conflicts[0]
        warnings.append(
            f"{len(alike.conflicts)} sets of rows that differ only so have different labels, such as rows {first} and "
            f"{second}"
        )
    return warnings
