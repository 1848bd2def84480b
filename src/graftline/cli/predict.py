"""`graftline predict RELEASE PATH...`: ask a release about whatever it learned from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from graftline.cli.shown import cell, table, terminal
from graftline.cli.stores import STORE, Release, Texts, open_given
from graftline.dataset import Schema
from graftline.releases.catalogue import resolve
from graftline.releases.fetching import fetch

if TYPE_CHECKING:
    from graftline.problems.problem import Problem
    from graftline.values.column import Question


def predict(
    release: Release,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="images: JPEG, PNG, WebP, TIFF, BMP, GIF, Parquet or tar files; clips: WAV, FLAC, OGG; "
            "text: .txt (a document a line); rows of whatever it learned from: .jsonl or Parquet; or folders"
        ),
    ] = None,
    texts: Texts = None,
    draw: Annotated[
        Path | None, typer.Option("--draw", metavar="FOLDER", help="write each image with the objects found in it")
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            help="say 'do not know' where more than one label is probable, or none; so large a share of the sets "
            "of labels hold the right one: 0.01 to 0.99"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a list of objects for programs")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Ask a release what it says of each image, text, clip, question or list of items, and how sure it is.

    A tagger prints each word's tag, one that writes what it writes, a detector boxes, a recommender what comes next.
    """
    from graftline.problems.model import load_model, read_facts, read_problem

    opened = open_given(store)
    folder = fetch(opened, resolve(opened, release))
    schema, problem = Schema.from_dict(read_facts(folder)), read_problem(folder)
    questions = problem.questions(schema, paths or [], texts or [])
    for note in questions.notes:
        print(f"predict: {note}", file=sys.stderr)
    asked = questions.asked
    model = load_model(folder)
    if coverage is not None:
        problem.ask_for_sets(model, coverage)
    answers = problem.ask(folder, model, [question.value for question in asked], schema)
    found = [{"input": question.name, **answer} for question, answer in zip(asked, answers, strict=True)]
    if cut := [answer for answer in found if answer.get("cut")]:
        print(f"predict: {len(cut)} of {len(found)} are longer than the model reads: it saw a part", file=sys.stderr)
    if broken := [answer for answer in found if "missing" in answer or "banned" in answer]:
        print(f"predict: {len(broken)} of {len(found)} lack a required word or hold a banned one", file=sys.stderr)
    if draw is not None:
        _draw(problem, asked, answers, draw)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print(problem, found)


def _draw(problem: Problem[Any], asked: list[Question], answers: list[dict[str, Any]], folder: Path) -> None:
    """Write a picture a question; they are numbered, since names may be equal or no file names."""
    for number, (question, answer) in enumerate(zip(asked, answers, strict=True)):
        problem.draw(question.value, answer, folder / f"{number:04d}.png")


def _print(problem: Problem[Any], found: list[dict[str, Any]]) -> None:
    answers = table("input", *problem.header)
    for answer in found:
        answers.add_row(cell(answer["input"], limit=4096), *map(_plain, problem.line(answer)))
    terminal().print(answers)


def _plain(text: str) -> Text:
    """Return a text for the terminal: its brackets are no markup, and its control characters do nothing."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
