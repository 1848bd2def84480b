"""The data report: one HTML page with everything in it and nothing fetched."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from graftline.values.column import Feature
from graftline.values.contract import Contract
from graftline.values.histograms import LENGTHS
from graftline.values.leakage import NearPairs
from graftline.values.samples import Samples

if TYPE_CHECKING:
    from graftline.components.validate.scan import Tally

TEMPLATE = "report.html.j2"
QUARANTINE_ROWS = 50
"""How many lines of the quarantine the report shows."""
PAIRS_SHOWN = 1000
"""How many near-duplicates; all are in a file."""
WORDS_SHOWN = 50
"""How many of the most frequent words."""


@dataclass(frozen=True)
class RuleLine:
    """A rule in the report; one for the whole table has no counts: it passed, or there would be no report."""

    name: str
    text: str
    expectation: str
    passed: int | None
    rows: int | None

    @property
    def failed(self) -> int:
        return 0 if self.passed is None or self.rows is None else self.rows - self.passed


def samples_of(contract: Contract) -> list[Samples]:
    """Return the collectors of samples of what a model sees."""
    label = None if contract.label is None else contract.label[0]
    features = ((name, contract.columns[name]) for name in contract.features)
    return [column.samples(name, label, contract.sorting) for name, column in features if isinstance(column, Feature)]


@dataclass(frozen=True)
class Page:
    """What the report shows."""

    task: str
    tally: Tally
    rules: Sequence[RuleLine]
    classes: dict[str, dict[str, int]]
    split_rows: dict[str, int]
    samples: list[Samples]
    profile: dict[str, Any]
    warnings: Sequence[str]
    contract: Contract
    notes: Sequence[str]
    """How the split was decided, where it is not by each row's own digest."""
    pairs: NearPairs
    """All near-duplicates that were found."""
    changed: Sequence[tuple[str, str, int]] = ()
    """Each column, what was done to its values on reading, and to how many."""


def render(page: Page) -> str:
    """Return the page. Every value is escaped: data may hold HTML."""
    return _template().render(
        page=page,
        histograms=histograms(page.profile),
        words=frequent_words(page.profile),
        sum=sum,
        pairs=page.pairs[:PAIRS_SHOWN],
    )


@cache
def _template() -> jinja2.Template:
    """Return the template, compiled once a process."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["n"] = lambda number: f"{number:,}"
    environment.filters["pct"] = lambda share: f"{share:.2%}"
    return environment.get_template(TEMPLATE)


@dataclass(frozen=True)
class Histogram:
    """Bars for the page."""

    name: str
    bars: list[tuple[str, int, float]]
    """Each bar's range, count, and height from 0 to 100."""
    low: str
    high: str


def histograms(profile: dict[str, Any]) -> list[Histogram]:
    """Return the histograms over intervals; those over classes are shown as the class balance."""
    found = []
    for name, histogram in profile["histograms"].items():
        bins, counts = histogram["bins"], histogram["counts"]
        if len(bins) != len(counts) + 1:
            continue
        if list(bins) == LENGTHS:  # up to 8 million: without the empty end
            last = max((place for place, count in enumerate(counts) if count), default=0)
            bins, counts = bins[: last + 2], counts[: last + 1]
        peak = max(1, *counts)
        ranges = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(bins)]
        bars = [(text, count, round(100 * count / peak, 2)) for text, count in zip(ranges, counts, strict=True)]
        found.append(Histogram(name, bars, f"{bins[0]:g}", f"{bins[-1]:g}"))
    return found


def frequent_words(profile: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Return the most frequent words: each with its count and its share of all words; empty for images."""
    return [
        (word, count, count / histogram["total"])
        for histogram in profile["histograms"].values()
        if "total" in histogram
        for word, count in list(zip(histogram["bins"], histogram["counts"], strict=True))[:WORDS_SHOWN]
    ]
