"""The contract as a Great Expectations suite: rules for rows, rules for the whole table, and their judge.

Great Expectations 1.x: https://docs.greatexpectations.io/docs/core/. It runs on pandas frames in memory with
an ephemeral context: no project folder, no analytics, no network.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftline.errors import GraftlineError
from graftline.values.contract import (
    SPLITS,
    Contract,
    Float,
    Image,
    Integer,
    String,
    Tags,
    Text,
    Tokens,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rule:
    """One expectation on one column of a frame of facts."""

    name: str
    """As the quarantine and the report show it: `image.max`."""
    column: str
    expectation: str
    """The name of a Great Expectations class."""
    arguments: dict[str, Any]
    text: str
    """What holds if the rule passes, for people."""
    shows: str = "fact"
    """What the quarantine shows as the value: the fact, or the raw value as found."""


@dataclass(frozen=True, order=True)
class Failure:
    """One index of a frame that breaks one rule."""

    index: Any
    rule: str
    value: Any = None


def row_rules(contract: Contract) -> list[Rule]:
    """Return the rules that each row is judged by, on the facts of `columns.fact_frame`."""
    width = len(contract.columns)
    rules = [_between("row.cells", "row.cells", width, width, f"{width} cells a row")]
    for name, column in contract.columns.items():
        if not column.nullable:
            rules.append(
                Rule(
                    f"{name}.not_null",
                    f"{name}.given",
                    "ExpectColumnValuesToNotBeNull",
                    {},
                    "a value is given",
                )
            )
        if isinstance(column, Text | Tokens):
            rules += _text_rules(name, column)
        elif isinstance(column, Tags):
            rules += _tag_rules(name, column)
        else:
            readable = "a list of numbers" if isinstance(column, Image) else f"reads as {column.type}"
            rules.append(_between(f"{name}.type", f"{name}.unreadable", 0, 0, readable, shows="raw"))
            rules += _image_rules(name, column) if isinstance(column, Image) else _scalar_rules(name, column)
    return rules


def unique_rules(contract: Contract) -> list[Rule]:
    """Return the rules on `name.repeats`: 1 where an earlier good row has the value, else 0."""
    return [
        _between(f"{name}.unique", f"{name}.repeats", 0, 0, "no earlier good row has the value", shows="raw")
        for name, column in contract.columns.items()
        if column.unique
    ]


def total_rules(contract: Contract) -> list[Rule]:
    """Return the rules on the one-row frame of totals."""
    rules = [_between("table.rows", "rows", contract.min_rows, None, f"at least {contract.min_rows} rows")]
    for name, column in contract.columns.items():
        if column.nullable:
            bound = column.max_null_share
            text = f"at most {bound:g} of '{name}' missing"
            rules.append(_between(f"{name}.null_share", f"{name}.null_share", 0, bound, text))
    rules.append(_between("table.exact_leaks", "exact_leaks", 0, 0, "no two splits hold the same features"))
    if contract.near_duplicates is not None:
        near = contract.near_duplicates
        text = (
            f"images with cosine {near.min_cosine:g} or more"
            if near.min_cosine is not None
            else f"texts that share {near.min_jaccard:g} of their runs of 5 characters or more"
        )
        rules.append(_between("table.near_leaks", "near_leaks", 0, 0, f"no two splits hold {text}"))
    return rules


def class_rules(contract: Contract, splits: Sequence[str] = SPLITS) -> list[Rule]:
    """Return the rules on the frame of classes: one row a class, its share and its rows in each split."""
    assert contract.label is not None
    name, label = contract.label
    if isinstance(label, Tags):
        splits = [split for split in splits if split == "train"]  # a rare tag may be missing elsewhere
    low, high = label.balance.min_share, label.balance.max_share
    rules = [
        _between(f"{name}.{split}_rows", split, 1, None, f"every class is in {split}") for split in splits
    ]
    counted = "tags" if isinstance(label, Tags) else "labelled rows"
    text = f"a class has from {low:g} to {high:g} of the {counted}"
    return [*rules, _between(f"{name}.balance", "share", low, high, text)]


def _image_rules(name: str, column: Image) -> list[Rule]:
    height, width = column.shape
    rules = [
        _between(
            f"{name}.length", f"{name}.length", column.pixels, column.pixels, f"{height} x {width} pixels"
        ),
        _between(f"{name}.pixel_nulls", f"{name}.nulls", 0, 0, "no pixel is missing"),
        _between(f"{name}.finite", f"{name}.not_finite", 0, 0, "no pixel is NaN or infinite"),
        _between(f"{name}.min", f"{name}.min", column.min, None, f"every pixel is at least {column.min:g}"),
        _between(f"{name}.max", f"{name}.max", None, column.max, f"every pixel is at most {column.max:g}"),
    ]
    if column.dtype == "uint8":
        rules.append(_between(f"{name}.whole", f"{name}.not_whole", 0, 0, "every pixel is a whole number"))
    return rules


def _text_rules(name: str, column: Text | Tokens) -> list[Rule]:
    unit = "characters" if isinstance(column, Text) else "words"
    low, high = column.min_length, column.max_length
    rules = [_between(f"{name}.min_length", f"{name}.length", low, None, f"at least {low} {unit}")]
    if high is not None:
        rules.append(_between(f"{name}.max_length", f"{name}.length", None, high, f"at most {high} {unit}"))
    if isinstance(column, Tokens):
        rules.append(_between(f"{name}.empty_words", f"{name}.empty", 0, 0, "no word is empty or missing"))
    text = "no control character" + (" but tab and line ends" if isinstance(column, Text) else "")
    rules.append(_between(f"{name}.characters", f"{name}.controls", 0, 0, text, shows="raw"))
    return rules


def _tag_rules(name: str, column: Tags) -> list[Rule]:
    listed = ", ".join(column.classes[:20]) + (", ..." if len(column.classes) > 20 else "")
    return [
        _between(f"{name}.classes", f"{name}.unknown", 0, 0, f"every tag is one of {listed}", shows="raw"),
        _between(f"{name}.length", f"{name}.more_than_words", 0, 0, "as many tags as words"),
    ]


def _scalar_rules(name: str, column: Integer | Float | String) -> list[Rule]:
    rules = []
    if isinstance(column, Float):
        rules.append(
            _between(f"{name}.finite", f"{name}.not_finite", 0, 0, "neither NaN nor infinite", shows="raw")
        )
    if isinstance(column, Integer | Float):
        if column.min is not None:
            rules.append(_between(f"{name}.min", f"{name}.value", column.min, None, f"at least {column.min}"))
        if column.max is not None:
            rules.append(_between(f"{name}.max", f"{name}.value", None, column.max, f"at most {column.max}"))
    if isinstance(column, String) and column.max_length is not None:
        text = f"at most {column.max_length} characters"
        rules.append(
            _between(f"{name}.max_length", f"{name}.length", None, column.max_length, text, shows="raw")
        )
    allowed = SPLITS if column.role == "split" else getattr(column, "classes", None)
    if allowed is not None:
        listed = ", ".join(map(str, allowed[:20])) + (", ..." if len(allowed) > 20 else "")
        arguments = {"value_set": list(allowed)}
        rules.append(
            Rule(
                f"{name}.classes",
                f"{name}.value",
                "ExpectColumnValuesToBeInSet",
                arguments,
                f"one of {listed}",
            )
        )
    return rules


def _between(
    name: str, column: str, low: float | None, high: float | None, text: str, shows: str = "fact"
) -> Rule:
    arguments = {key: bound for key, bound in (("min_value", low), ("max_value", high)) if bound is not None}
    return Rule(name, column, "ExpectColumnValuesToBeBetween", arguments, text, shows)


class Judge:
    """Judges frames by rules, through one Great Expectations suite."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "False"  # read when the library is imported
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self.rules = {rule.name: rule for rule in rules}
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self.suite = context.suites.add(gx.ExpectationSuite(name="contract"))
        for rule in rules:
            expectation = getattr(gx.expectations, rule.expectation)
            self.suite.add_expectation(
                expectation(column=rule.column, meta={"rule": rule.name}, **rule.arguments)
            )
        asset = context.data_sources.add_pandas("memory").add_dataframe_asset("facts")
        self._batch = asset.add_batch_definition_whole_dataframe("batch")

    def judge(self, frame: pd.DataFrame) -> list[Failure]:
        """Return every failure of every rule, sorted by index and rule.

        Raises:
            GraftlineError: a rule could not be evaluated.
        """
        batch = self._batch.get_batch({"dataframe": frame})
        form = {
            "result_format": "COMPLETE",
            "return_unexpected_index_query": False,
            "partial_unexpected_count": 0,
        }
        failures = []
        for result in batch.validate(self.suite, result_format=form).results:
            assert result.expectation_config is not None
            name = result.expectation_config.meta["rule"]
            if result.success:
                continue
            if "unexpected_index_list" not in result.result:
                raise GraftlineError(f"rule {name} could not be evaluated: {result.exception_info}")
            # The list of indices is whole; the list of values stops at 200 (MAX_RESULT_RECORDS).
            found = result.result["unexpected_index_list"]
            if len(found) != result.result["unexpected_count"]:
                raise GraftlineError(
                    f"rule {name}: {len(found)} of {result.result['unexpected_count']} rows listed"
                )
            values = frame.loc[found, self.rules[name].column].tolist()
            failures += [Failure(index, name, value) for index, value in zip(found, values, strict=True)]
        return sorted(failures, key=lambda failure: (failure.index, failure.rule))
