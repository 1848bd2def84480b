"""The files of a new task, as text: contract, parameters, datasheet; every guess in them says from what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from graftline.errors import InputError
from graftline.intake.look import Look
from graftline.intake.roles import Chosen, Proposal
from graftline.intake.trial import Trial, try_contract
from graftline.problems.recipes import Data, recipe
from graftline.tasks.documents import check_parameters
from graftline.values.contract import Contract, load_contract
from graftline.values.guesses import tokens
from graftline.yamlfile import parse_yaml
from graftline.yamlnotes import Said, plain, write_yaml

UNKNOWN_LICENCE = "unspecified"
_TEST_ROWS = 20_000
"""More test rows than so many would make an interval no narrower that anybody looks at."""
_FRACTIONS = ((0.2, 0.1), (0.2, 0.15), (0.2, 0.2), (0.25, 0.2), (0.25, 0.25), (0.3, 0.25), (0.3, 0.3))
"""Shares of test and val to choose from, the first that puts every class into every split."""
_UNLUCKY = 0.01
"""How likely a split without a row of some class may be, where the split is drawn with a key that is not known yet."""
_ROLES = ("label", "split")
"""Those that a column of the contract has to name."""
_NEAR = {"min_cosine": 0.99, "min_jaccard": 0.9}
"""From which likeness on rows are nearly equal."""
_BAD = 0.01
_NAMED = 3
_MARGIN = 1.5
"""Of rows to come, against those that were looked at."""


@dataclass(frozen=True)
class Draft:
    """What is to be written."""

    task: str
    look: Look
    made: Proposal
    trial: Trial
    contract: Contract
    head: str
    fractions: tuple[float, float]
    left_out: dict[str, int]
    """Classes with too few rows to be in every split, and how many rows of each were seen."""
    licence: str
    expectations: str
    params: str

    @property
    def warnings(self) -> list[str]:
        """What a person should know or decide."""
        return list(_warnings(self))


def draft(task: str, look: Look, made: Proposal, licence: str) -> Draft:
    """Return the files of a task. Raises InputError for raw data that validate refuses whatever is declared."""
    columns = dict(made.columns)
    contract, trial = _try(look, made, columns)
    fractions, splits, missing = _fractions(look, contract, trial)
    left_out = {str(contract.classes[i]): int(splits[i].sum()) for i in missing}
    if left_out and len(contract.classes) - len(left_out) >= 2:
        _leave_out(columns, contract, missing)
        contract, trial = _try(look, made, columns)
        fractions, splits, _ = _fractions(look, contract, trial)
    else:
        left_out = {}
    expectations = write_yaml(_contract(look, replace(made, columns=columns), (contract, trial)))
    contract = _load(expectations, look)
    params = _params(task, look, contract, trial, splits, fractions, licence)
    written = write_yaml(params)
    check_parameters(parse_yaml(written, where="params.yaml"), "params.yaml", task)
    head = plain(params)["finetune"]["head"]["name"]
    return Draft(
        task, look, replace(made, columns=columns), trial, contract, head, fractions, left_out, licence,
        _HEAD_OF_CONTRACT + expectations, _HEAD_OF_PARAMS + written,
    )  # fmt: skip


_HEAD_OF_CONTRACT = """\
# What every row of raw/ must hold, and the rows together. components/validate/README.md explains each key.
# `graftline new` guessed what stands here; beside each guess stands from what. Correct it where you know better.
"""
_HEAD_OF_PARAMS = """\
# yaml-language-server: $schema=../../docs/schema/params.json
# Every key has a default; the components' READMEs and the schema above say what each means.
"""


# The contract


def _try(look: Look, made: Proposal, columns: dict[str, Chosen]) -> tuple[Contract, Trial]:
    """Return the contract of these columns, and what it makes of the rows that were looked at."""
    contract = _load(write_yaml(_contract(look, replace(made, columns=columns), None)), look)
    return contract, try_contract(look, contract)


def _load(text: str, look: Look) -> Contract:
    with TemporaryDirectory(prefix="graftline-new-") as folder:
        path = Path(folder, "expectations.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            return load_contract(path)
        except InputError as error:  # whoever calls has no such file yet: it is their data that makes no contract
            where = error.where.replace(str(path), str(look.path))
            raise InputError(where, error.found, expected=error.expected, fix=error.fix) from None


def _contract(look: Look, made: Proposal, tried: tuple[Contract, Trial] | None) -> dict[str, Any]:
    """Return the contract with its comments; what depends on the trial is left out without one."""
    unique = tried is not None and _must_be_unique(made, tried[1])
    document: dict[str, Any] = {
        "columns": {name: _column(chosen, unique=unique) for name, chosen in made.columns.items()},
        "min_rows": Said(max(1, look.rows // 2), f"half of the {look.rows:,} rows that there are now"),
    }
    if tried and (near := _near(tried[0])):
        document["near_duplicates"] = near
    for name in made.of("subject"):
        document["subject"] = name
    if source := look.source.model_dump(mode="json", exclude_defaults=True):
        document["source"] = Said(source, "as the beginning of the files looks")
    if made.dropped:
        document["others"] = Said("drop", "; ".join(f"'{name}': {why}" for name, why in made.dropped.items()))
    return document


def _near(contract: Contract) -> Said | None:
    """Return how near-duplicates are kept in one split; None where nothing finds them."""
    _, feature = contract.feature
    if len({contract.columns[name].type for name in contract.features}) > 1:
        return None
    if len(contract.features) > 1 and not feature.near_together:
        return None
    if contract.split is not None:
        rule = {feature.near: _NEAR[feature.near], "action": "quarantine"}
        return Said(rule, "the data brings its own split: a row that nearly equals one of another split is left out")
    return Said(
        {feature.near: _NEAR[feature.near], "action": "together"}, "rows that are nearly equal are in one split"
    )


def _column(chosen: Chosen, *, unique: bool) -> Said:
    rules = dict(chosen.rules)
    if chosen.role in _ROLES or chosen.groups:
        rules = {"type": rules.pop("type"), "role": "group" if chosen.groups else chosen.role, **rules}
    if unique and chosen.role == "feature":
        rules["unique"] = True
    return Said(rules, chosen.why)


def _must_be_unique(made: Proposal, trial: Trial) -> bool:
    """Return whether equal rows could stand in two splits: with and without a label, or by the data's own split."""
    own = bool(made.of("split")) or any(made.columns[name].rules.get("nullable") for name in made.of("label"))
    return own and trial.repeats > 0 and len(made.of("feature")) == 1


def _leave_out(columns: dict[str, Chosen], contract: Contract, missing: list[int]) -> None:
    assert contract.label is not None
    name = contract.label[0]
    kept = [value for number, value in enumerate(contract.classes) if number not in missing]
    names = ", ".join(str(contract.classes[number]) for number in missing)
    why = f"{columns[name].why}; left out, with too few rows for every split: {names}"
    columns[name] = replace(columns[name], rules={**columns[name].rules, "classes": kept}, why=why)


# The split


def _fractions(look: Look, contract: Contract, trial: Trial) -> tuple[tuple[float, float], np.ndarray, list[int]]:
    """Return the shares of test and val, the (classes, 3) rows of each class in train, val and test, and the indices of
    the classes that some split lacks."""
    by_class = contract.label is not None and bool(contract.sorting)
    classes = len(contract.sorting) if by_class else 0
    share = round(min(0.2, max(0.01, _TEST_ROWS / max(1, look.rows))), 3)
    scale = look.rows / look.looked
    best: tuple[tuple[int, float], tuple[float, float], np.ndarray, list[int]] | None = None
    for test, val in ((share, share / 2), *_FRACTIONS):
        counts = np.rint(trial.splits(test, val, classes) * scale).astype(np.int64)
        lacking = [int(number) for number in np.flatnonzero(counts.min(axis=1) < 1)]
        chance = _chance(contract, trial, (test, val), classes)
        rank = (len(lacking), chance if chance > _UNLUCKY else 0.0)
        if best is None or rank < best[0]:
            best = (rank, (test, round(val, 4)), counts, lacking)
    assert best is not None
    return best[1:]


def _chance(contract: Contract, trial: Trial, fractions: tuple[float, float], classes: int) -> float:
    """Return how likely test or val gets no group with a row of some class. Persons fall into a split by a keyed hash,
    and the store's key decides: what the trial drew says little where they are few."""
    if contract.group is None or contract.group != contract.subject:
        return 0.0
    groups, (test, val) = trial.groups(classes), fractions
    return float(((1 - test) ** groups + (1 - val) ** groups).max())


# The parameters


def _params(
    task: str,
    look: Look,
    contract: Contract,
    trial: Trial,
    splits: np.ndarray,
    fractions: tuple[float, float],
    licence: str,
) -> dict[str, Any]:
    test, val = fractions
    name = contract.label[0] if contract.label else None
    in_train, in_test = (max(1, int(splits[:, column].sum())) for column in (0, 2))
    lengths = [tokens(look.columns[feature]) for feature in contract.features]
    data = Data(
        features=tuple(_rules(contract, feature) for feature in contract.features),
        label=_rules(contract, name) if name else None,
        pool=max(1, look.rows - in_test),
        train=in_train,
        test=in_test,
        rarest=int(splits[:, 0].min()) if contract.sorting else in_train,
        most=int(splits[:, 0].max()),
        tokens=float(np.mean([mean for mean, _ in lengths])),
        long=max(long for _, long in lengths),
    )
    known = licence != UNKNOWN_LICENCE
    return {
        "task": task,
        "validate": {
            "max_bad_fraction": _bad_fraction(look, contract, trial),
            "test_fraction": Said(test, _why_fractions(look, contract, fractions)),
            "val_fraction": val,
        },
        **recipe(data),
        "publish": {
            "licence": licence
            if known
            else Said(licence, "not known: ask the data's owner before a model of it leaves the house")
        },
    }


def _rules(contract: Contract, name: str) -> dict[str, Any]:
    return contract.columns[name].model_dump(mode="json", exclude_unset=True)


def _in_part(look: Look, contract: Contract, trial: Trial) -> int:
    """Return the rows that break a rule because the beginning of a table has but a part of what a user did."""
    if look.whole or look.source.user is None:
        return 0
    return min(trial.bad, sum(trial.by_rule[f"{name}.min_length"] for name in contract.features))


def _bad_fraction(look: Look, contract: Contract, trial: Trial) -> Any:
    bad = trial.bad + (trial.repeats if contract.columns[contract.features[0]].unique else 0)
    bad -= _in_part(look, contract, trial)
    share = bad / trial.rows
    if share <= _BAD / _MARGIN:
        return _BAD
    allowed = min(1.0, float(np.ceil(share * _MARGIN * 100) / 100))
    return Said(allowed, f"{bad:,} of the {trial.rows:,} rows that were looked at break a rule")


def _why_fractions(look: Look, contract: Contract, fractions: tuple[float, float]) -> str:
    if contract.split is not None:
        return "unused: the data brings its own split"
    if fractions[0] < _FRACTIONS[0][0]:
        return f"about {look.rows * fractions[0]:,.0f} rows are enough to measure on"
    if contract.sorting and fractions[1] > _FRACTIONS[0][1]:
        return "test and val are so large that every class is in both"
    return "the usual shares"


# What to know


def _warnings(draft: Draft) -> Iterator[str]:
    trial, look = draft.trial, draft.look
    if trial.bad:
        rules = ", ".join(f"{rule} in {count:,}" for rule, count in trial.by_rule.most_common(3))
        yield f"{trial.bad:,} of {trial.rows:,} rows break a rule and will go to the quarantine: {rules}"
    if part := _in_part(look, draft.contract, trial):
        yield (
            f"{part:,} users have too few items in the part of the table that was looked at, and perhaps more beyond: "
            "validate.max_bad_fraction leaves them out of account"
        )
    if draft.left_out:
        names = ", ".join(f"{name} ({count})" for name, count in draft.left_out.items())
        yield (
            f"left out, with too few rows to be in train, val and test: {names}; to learn them, bring more rows, or an "
            "own split (a column with `role: split`)"
        )
    if trial.conflicts:
        yield f"{trial.conflicts:,} times equal rows have different labels: a model can be right about one only"
    if trial.repeats:
        yield f"{trial.repeats:,} rows repeat an earlier one; equal rows are always in one split"
    if passed := [f"{file} ({why})" for batch in look.batches for file, why in batch.left_out]:
        more = ", ..." if len(passed) > _NAMED else ""
        yield f"{len(passed):,} files are passed over: {', '.join(passed[:_NAMED])}{more}"
    classes = len(draft.contract.sorting) if draft.contract.label is not None else 0
    if (chance := _chance(draft.contract, trial, draft.fractions, classes)) > _UNLUCKY:
        yield (
            f"the rows of few persons ({trial.groups(classes).min():,} for the rarest class) fall into whole splits: "
            f"with a chance of {chance:.0%} test or val has none of some class, then validate stops; bring more persons"
        )
    if not look.whole and draft.contract.classes:
        yield (
            f"the classes are those of {look.looked:,} of about {look.rows:,} rows; "
            "rows of a class that is not among them go to the quarantine"
        )
    if draft.licence == UNKNOWN_LICENCE:
        yield "the licence is not known: the model card will say `unspecified` until publish.licence does"
