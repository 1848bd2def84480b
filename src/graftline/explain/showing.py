"""What people are shown: sections of the report, and a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from graftline.explain.explaining import Explanations, Faithfulness
from graftline.explain.faithfulness import Measured
from graftline.explain.names import title
from graftline.problems.sections import Section

PICTURE = "explanations.png"
PARTS = 5
"""Parts of an input that are named in a table."""
HEADER = ("method", "comprehensiveness", "sufficiency", "area under deletion", "less than random order",
          "less than random weights", "verdict")  # fmt: skip
NOTE = (
    "Comprehensiveness: how much of its probability the answer loses without the parts ranked first (more is better); "
    "sufficiency: how much with these alone (less is better); deletion: the area under its probability as more and "
    "more parts are hidden (less is better), and by how much that is smaller than for a random order and than for the "
    "same method on this model with its weights shuffled. In points, with 95% intervals over test rows."
)


def table(measured: Sequence[Measured]) -> tuple[tuple[str, ...], ...]:
    """Return the lines of the faithfulness table, under HEADER."""
    return tuple(
        (
            one.title,
            *(value.told(".1f", 100) for value in one.values.values()),
            *("" if value is None else value.told("+.1f", 100) for value in (one.over_random, one.over_weights)),
            one.verdict,
        )
        for one in measured
    )


def facts(found: Faithfulness) -> str:
    """Return what else was measured, in a sentence or two."""
    said = f"The sums of integrated gradients are off by {found.gap:.4f} nats at most."
    near = found.explanations.neighbours
    if near is not None and found.same_class is not None and found.same_class_at_random is not None:
        said += (
            f" The nearest of {len(near.rows.numbers):,} training rows has the class that is answered in"
            f" {found.same_class.told('.1f', 100)}% of the rows; by an embedding of shuffled weights in"
            f" {100 * found.same_class_at_random:.1f}%."
        )
    return " ".join([said, *(f"{line}." for line in found.explanations.missing_told())])


def sections(found: Faithfulness, shown: int, out: Path) -> list[Section]:
    """Return the report's sections; pictures, where a problem draws them, lie in the folder `out`."""
    made, rows = found.explanations, len(found.rows.numbers)
    part, hidden = made.explained.part, made.explained.hidden
    places = np.linspace(0, rows - 1, min(shown, rows)).round().astype(int).tolist()  # rows are often sorted by class
    believed = Section(
        "How far explanations can be believed",
        f"{NOTE} {rows} of {found.rows.of:,} test rows; a hidden {part} is {hidden}. {facts(found)}",
        header=HEADER,
        lines=table(found.measured),
    )
    if not places:
        return [believed]
    named = {title(name): numbers for name, numbers in made.found.items()}
    note = f"{len(places)} of these rows: the {part}s that speak most for the answer, by each method."
    if made.explained.draw(places, named, out / PICTURE):
        seen = Section(
            "What the model looks at", f"{note} Green speaks for it, red against.", PICTURE,
            f"Test rows, and which {part}s each method finds important",
        )  # fmt: skip
    else:
        lines = [
            (str(found.rows.numbers[place]), made.explained.answers[place], name,
             made.explained.told(place, numbers[place], PARTS))
            for place in places for name, numbers in named.items()
        ]  # fmt: skip
        seen = Section(
            "What the model looks at", note, header=("row", "answer", "method", f"{part}s"), lines=tuple(lines)
        )
    return [seen, believed]


def page(names: Sequence[str], made: Explanations, faithful: Faithfulness | None, heading: str) -> str:
    """Return a self-contained page: each input as each method sees it, and how far that can be believed."""
    environment = Environment(
        loader=PackageLoader("graftline.explain", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    near = made.neighbours
    probabilities = made.probabilities()
    inputs = [
        {
            "name": name,
            "answer": made.explained.answers[place],
            "probability": float(probabilities[place]),
            "shown": made.explained.shown(place),
            "methods": [(title(n), made.explained.marked(place, found[place])) for n, found in made.found.items()],
            "near": [] if near is None else list(zip(near.of(place), near.shown(place), strict=True)),
        }
        for place, name in enumerate(names)
    ]
    return environment.get_template("page.html.j2").render(
        heading=heading, inputs=inputs, part=made.explained.part, hidden=made.explained.hidden,
        missing=made.missing_told(), header=HEADER, note=NOTE,
        lines=table(faithful.measured) if faithful else (), facts=facts(faithful) if faithful else "",
        rows=len(faithful.rows.numbers) if faithful else 0,
    )  # fmt: skip
