"""The contract as a Great Expectations suite: rules for rows, rules for the whole table, and their judge.

Great Expectations 1.x: https://docs.greatexpectations.io/docs/core/. It runs on pandas frames in memory with
an ephemeral context: no project folder, no analytics, no network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from graftline.errors import GraftlineError
from graftline.processes import importing, later
from graftline.values.contract import Contract
from graftline.values.identity import SPLITS
from graftline.values.rules import Rule, between

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, order=True)
class Failure:
    """One index of a frame that breaks one rule."""

    index: Any
    rule: str
    value: Any = None


def row_rules(contract: Contract) -> list[Rule]:
    """Return the rules that each row is judged by, on the facts of `columns.fact_frame`."""
    width = len(contract.columns)
    rules = [between("row.cells", "row.cells", width, width, f"{width} cells a row")]
    for name, column in contract.columns.items():
        if not column.nullable:
            rules.append(
                Rule(f"{name}.not_null", f"{name}.given", "ExpectColumnValuesToNotBeNull", {}, "a value is given")
            )
        rules += column.rules(name)
    return rules


def unique_rules(contract: Contract) -> list[Rule]:
    """Return the rules on `name.repeats`: 1 where an earlier good row has the value, else 0."""
    return [
        between(f"{name}.unique", f"{name}.repeats", 0, 0, "no earlier good row has the value", shows="raw")
        for name, column in contract.columns.items()
        if column.unique
    ]


ROWS = "table.rows"
"""The rule of how many rows there must be."""


def total_rules(contract: Contract) -> list[Rule]:
    """Return the rules on the one-row frame of totals."""
    rules = [between(ROWS, "rows", contract.min_rows, None, f"at least {contract.min_rows} rows")]
    for name, column in contract.columns.items():
        if column.nullable:
            bound = column.max_null_share
            text = f"at most {bound:g} of '{name}' missing"
            rules.append(between(f"{name}.null_share", f"{name}.null_share", 0, bound, text))
    rules.append(between("table.exact_leaks", "exact_leaks", 0, 0, "no two splits hold the same features"))
    if (measure := contract.measure()) is not None:
        text = f"no two splits hold {contract.feature[1].near_text(measure.minimum)}"
        rules.append(between("table.near_leaks", "near_leaks", 0, 0, text))
    return rules


def class_rules(contract: Contract, splits: Sequence[str] = SPLITS) -> list[Rule]:
    """Return the rules on the frame of classes: one row a class, its share and its rows in each split."""
    assert contract.label is not None
    name, label = contract.label
    if not label.everywhere:  # a rare tag may be missing elsewhere
        splits = [split for split in splits if split == "train"]
    low, high = label.bounds.min_share, label.bounds.max_share
    rules = [between(f"{name}.{split}_rows", split, 1, None, f"every class is in {split}") for split in splits]
    text = f"a class has from {low:g} to {high:g} of the {label.counted}"
    return [*rules, between(f"{name}.balance", "share", low, high, text)]


class Judge:
    """Judges frames by rules, through one Great Expectations suite."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._batch = any_batch()
        self.rules = {rule.name: rule for rule in rules}
        self.suite = _suite(rules)

    def judge(self, frame: pd.DataFrame) -> list[Failure]:
        """Return every failure of every rule, sorted by index and rule.

        Raises:
            GraftlineError: a rule could not be evaluated.
        """
        batch = self._batch.get_batch({"dataframe": frame})
        # Which rows break a rule is asked where some do: the library takes twice as long to be ready to tell.
        broken = [name for name, result in _results(batch, self.suite, "BOOLEAN_ONLY") if not result.success]
        if not broken:
            return []
        failures = []
        for name, result in _results(batch, _suite([self.rules[name] for name in broken]), "COMPLETE"):
            if "unexpected_index_list" not in result.result:
                raise GraftlineError(f"rule {name} could not be evaluated: {result.exception_info}")
            # The list of indices is whole; the list of values stops at 200 (MAX_RESULT_RECORDS).
            found = result.result["unexpected_index_list"]
            if len(found) != result.result["unexpected_count"]:
                raise GraftlineError(f"rule {name}: {len(found)} of {result.result['unexpected_count']} rows listed")
            values = frame.loc[found, self.rules[name].column].tolist()
            failures += [Failure(index, name, value) for index, value in zip(found, values, strict=True)]
        return sorted(failures, key=lambda failure: (failure.index, failure.rule))


def _suite(rules: Sequence[Rule]) -> Any:
    any_batch()  # before the import below: it sets what the library reads when it is imported
    import great_expectations as gx

    suite = gx.ExpectationSuite(name="contract")  # the context need not keep it
    for rule in rules:
        expectation = _expectation(rule.expectation)
        suite.add_expectation(expectation(column=rule.column, meta={"rule": rule.name}, **rule.arguments))
    return suite


@cache
def _expectation(name: str) -> Any:
    """Return one of the library's expectations, as one that makes its configuration once.

    The library reads it fifty times a rule and batch, and makes it anew each time: a third of the time of judging.
    """
    import great_expectations as gx
    from great_expectations.compatibility.pydantic import PrivateAttr

    theirs = getattr(gx.expectations, name)

    def configuration(self: Any) -> Any:
        if self._made is None:
            self._made = theirs.configuration.fget(self)
        return self._made

    own = {"__module__": __name__, "_made": PrivateAttr(default=None), "configuration": property(configuration)}
    return type(theirs)(f"Once{name}", (theirs,), own)


def _results(batch: Any, suite: Any, form: str) -> Iterator[tuple[str, Any]]:
    """Yield each rule's name with the library's result, in that form of it."""
    asked = {"result_format": form, "return_unexpected_index_query": False, "partial_unexpected_count": 0}
    for result in batch.validate(suite, result_format=asked).results:
        yield result.expectation_config.meta["rule"], result


@cache
def any_batch() -> Any:
    """Return the definition of a batch that any frame can be, in a context of the process: making one takes a while."""
    os.environ["GX_ANALYTICS_ENABLED"] = "False"  # read when the library is imported
    with importing(), later("altair", "scipy.stats"):  # of its expectation of a distribution alone: a third of the time
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("facts")
    return asset.add_batch_definition_whole_dataframe("batch")
