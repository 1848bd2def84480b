"""`graftline explain RELEASE PATH...`: what a release looks at in its input, and how far that can be believed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline.cli.shown import cell, table, terminal
from graftline.cli.stores import STORE, Release, Texts, open_given
from graftline.dataset import Schema
from graftline.durable import write_atomic
from graftline.records.folder import verify
from graftline.releases.catalogue import resolve
from graftline.releases.fetching import fetch

if TYPE_CHECKING:
    from graftline.explain.explaining import Explanations, Faithfulness

SEED = 0


def explain(
    release: Release,
    paths: Annotated[
        list[Path] | None, typer.Argument(help="files or folders, as `graftline predict` takes them")
    ] = None,
    texts: Texts = None,
    as_json: Annotated[bool, typer.Option("--json", help="print an object for programs, with all parts")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="write a page with the inputs coloured")] = None,
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", help="validate's output, for the nearest training rows and the faithfulness table"),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=20, max=10_000, help="test rows of the faithfulness table")] = 200,
    store: Annotated[str, STORE] = "",
) -> None:
    """Say what a release looks at in its input, by several methods, and how far each can be believed.

    Parts are words, pixels or, of clips, pieces of 50 ms. With --dataset each method is compared, on test rows, with a
    random order and with itself on the model with random weights.
    """
    from graftline.explain.explaining import explain as explain_values
    from graftline.explain.explaining import measure_faithfulness
    from graftline.explain.showing import page
    from graftline.problems.model import check_dataset, read_facts, read_problem

    opened = open_given(store)
    found = resolve(opened, release)
    folder = fetch(opened, found)
    if dataset is not None:
        verify(dataset)
    facts = read_facts(folder)
    if dataset is not None:
        check_dataset(facts, dataset, found.name)
    schema = Schema.from_dict(facts)
    questions = read_problem(folder).questions(schema, paths or [], texts or [])
    for note in questions.notes:
        print(f"explain: {note}", file=sys.stderr)
    names = [question.name for question in questions.asked]
    made = explain_values(folder, [question.value for question in questions.asked], schema, dataset, SEED)
    faithful = None
    if dataset is not None:
        faithful = measure_faithfulness(folder, dataset, rows, resamples=10_000, seed=SEED)
    for line in made.missing_told():
        print(f"explain: {line}", file=sys.stderr)
    if html is not None:
        write_atomic(html, page(names, made, faithful, f"What {found.name} looks at").encode())
    if as_json:
        print(json.dumps(_as_dict(names, made, faithful), indent=2))
    else:
        _print(names, made, faithful)


def _as_dict(names: list[str], made: Explanations, faithful: Faithfulness | None) -> dict[str, Any]:
    probabilities = made.probabilities()
    explained = [
        {
            "input": name,
            "answer": made.explained.answers[place],
            "probability": float(probabilities[place]),
            "methods": {n: made.explained.values(place, found[place]) for n, found in made.found.items()},
            "nearest": None if made.neighbours is None else made.neighbours.of(place),
        }
        for place, name in enumerate(names)
    ]
    return {
        "part": made.explained.part,
        "hidden": made.explained.hidden,
        "explained": explained,
        "missing": made.missing,
        "faithfulness": None if faithful is None else faithful.as_dict(),
    }


def _print(names: list[str], made: Explanations, faithful: Faithfulness | None) -> None:
    from graftline.explain.names import title
    from graftline.explain.showing import HEADER, PARTS, facts
    from graftline.explain.showing import table as lines_of

    shown, probabilities = (
        table("input", "answer", "probability", "method", f"{made.explained.part}s"),
        made.probabilities(),
    )
    for place, name in enumerate(names):
        answer = (cell(name, limit=4096), cell(made.explained.answers[place]), f"{probabilities[place]:.4f}")
        for method, found in made.found.items():
            shown.add_row(*answer, title(method), cell(made.explained.told(place, found[place], PARTS), limit=4096))
            answer = (cell(""), cell(""), "")
        for near in [] if made.neighbours is None else made.neighbours.of(place):
            label = "" if near["label"] is None else f", {near['label']}"
            shown.add_row(*answer, "nearest in train", cell(f"row {near['row']}{label} (cosine {near['cosine']:.3f})"))
    terminal().print(shown)
    if faithful is None:
        print("explain: how far this can be believed was not measured: give --dataset", file=sys.stderr)
        return
    believed = table(*HEADER)
    for line in lines_of(faithful.measured):
        believed.add_row(*map(cell, line))
    terminal().print(believed)
    print(
        f"{len(faithful.rows.numbers)} of {faithful.rows.of:,} test rows; in points, with 95% intervals.",
        facts(faithful),
    )
