"""What must hold for the rows together: balance, missing values, every class in every split, no leaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.components.validate.scan import Validation
from graftline.errors import InputError
from graftline.values import identity, leakage
from graftline.values.contract import Contract
from graftline.values.identity import SPLITS
from graftline.values.rules import Rule
from graftline.values.suite import Failure, Judge, class_rules, total_rules


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
    import pandas as pd

    contract, tally = validation.contract, validation.tally
    index = validation.index.close()
    counts = validation.class_counts
    exact = leakage.find_exact(index)
    near: list[leakage.Pair] = []
    if validation.near is not None and not exact.leaks:
        near = leakage.find_near(index, validation.near, folder)
    totals: dict[str, float] = {"rows": tally.rows, "exact_leaks": len(exact.leaks), "near_leaks": len(near)}
    totals |= {f"{name}.null_share": tally.nulls[name] / tally.rows for name in contract.columns}
    frame = pd.DataFrame(counts, columns=list(identity.SPLIT_NAMES), index=range(len(counts)))
    frame["share"] = counts.sum(axis=1) / max(1, counts.sum())
    splits = [
        s for s in SPLITS if s != "val" or validation.params.val_fraction > 0 or (contract.split and frame["val"].sum())
    ]
    table = total_rules(contract)
    of_classes = class_rules(contract, splits) if contract.classes else []
    failures = Judge(table).judge(pd.DataFrame([totals]))
    if of_classes:
        failures += Judge(of_classes).judge(frame)
    _refuse(raw, failures, {rule.name: rule for rule in table + of_classes}, contract, frame, exact, near)
    by_class = zip(map(str, contract.classes), counts.tolist(), strict=True)
    return TableChecks(
        rules=table + of_classes,
        classes={name: dict(zip(identity.SPLIT_NAMES, row, strict=True)) for name, row in by_class},
        split_rows={name: int((index.splits == n).sum()) for n, name in enumerate(identity.SPLIT_NAMES)},
        warnings=_duplicate_warnings(exact),
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
    near: list[leakage.Pair],
) -> None:
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
            _, feature = contract.feature
            found.append(f"near-duplicate {feature.plural} in two splits, at least {len(near)} pairs; {_pairs(near)}")
            fix = f"remove one of each, or raise near_duplicates.{feature.near}"
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
