"""`graftline new TASK PATH`: a task from data as people have it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline.cli.shown import cell, plain, table, terminal
from graftline.durable import write_atomic
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.intake.datasheet import datasheet
from graftline.intake.draft import Draft, draft
from graftline.intake.histories import histories, named, of_histories
from graftline.intake.look import Look, look
from graftline.intake.place import Way, check_name, place, raw_paths
from graftline.intake.remote import bring, forget
from graftline.intake.roles import Question, Wishes, propose
from graftline.problems.registry import PARAMETERS

if TYPE_CHECKING:
    from rich.console import Console

S3 = "s3://"
_INTAKE = ROOT / "src/graftline/intake"


def new(
    task: Annotated[str, typer.Argument(help="the new task's name: the folder under data/ to be made")],
    path: Annotated[
        str, typer.Argument(help="the data: a file, a folder of files, or s3://bucket/prefix", metavar="PATH")
    ],
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="the column to predict")] = None,
    no_label: Annotated[bool, typer.Option("--no-label", help="there is none: learn to write such texts")] = False,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="the column that a model sees, text or not; twice for pairs of texts"),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="a column to leave out; repeatable")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="rows of one value of it must be in one split; '' for none")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="the column with a person's id, kept as a hash")
    ] = None,
    no_subject: Annotated[bool, typer.Option("--no-subject", help="no column is a person's id")] = False,
    user: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="of a table with a line an interaction: who; to recommend items"),
    ] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="likewise: what")] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="likewise: when, if the order counts")] = None,
    licence: Annotated[str | None, typer.Option(metavar="ID", help="the data's licence, such as CC-BY-4.0")] = None,
    link: Annotated[
        bool, typer.Option("--link", help="one copy and not two: data/TASK/raw is links to DVC's cache, read-only")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="ask nothing: take what seems best")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write nothing; print what would be written")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print what was found as JSON")] = False,
) -> None:
    """Make a task of data as you have it: look at it, guess, ask what cannot be known, write data/TASK.

    Each guess stands in the files that it writes, with a comment that says from what. Exit codes: 0 done, 2 bad input
    or something to decide, 1 anything else.
    """
    check_name(task)
    wishes = Wishes(
        label="" if no_label else label,
        features=tuple(text or ()),
        ignored=tuple(ignore or ()),
        group=group,
        subject="" if no_subject else subject,
        licence=licence,
        guessing=yes,
    )
    console = terminal()
    with ExitStack() as until:
        here, way = _local(path, until, link=link)
        with _told_of(here, path):
            found = look(here)
            if (interactions := named(found, user, item, time, wishes)) is not None:
                wishes = of_histories(found, interactions, wishes)
                found = histories(found, interactions)
            wishes = _settle(console, found, wishes)
            made = draft(task, found, propose(found, wishes), wishes.licence or "unspecified")
            texts = _texts(made, path if path.startswith(S3) else here.resolve().name)
            if as_json:
                typer.echo(json.dumps(_facts(made), indent=1, ensure_ascii=False))
            else:
                _show(console, made)
            if dry_run:
                if not as_json and path.startswith(S3):
                    console.print(f"what was fetched stays in {here} for the next call", soft_wrap=True)
                if not as_json:
                    for name, content in texts.items():
                        console.rule(f"data/{task}/{name}", align="left", style="dim")
                        console.print(content, soft_wrap=True)
                return
            place(task, texts, raw_paths(here, found.files), way)
        if path.startswith(S3):
            forget(here)
    _compile(task)
    if not as_json:
        console.print(f"wrote data/{task}, its line in data/tasks.yaml and pipelines/compiled/{task}.yaml")
        console.print(f"next: graftline run {task}")


def _local(path: str, until: ExitStack, *, link: bool) -> tuple[Path, Way]:
    """Return the data as a local file or folder, and how it gets into the task. Raises InputError: there is none."""
    if path.startswith(S3):
        return bring(path, until, copies=1 if link else 2), "link" if link else "take"
    if not (here := Path(path)).exists():
        fix = "copy it to this machine, or to S3" if ":/" in path else "check the path"
        raise InputError(path, "no such file or folder", fix=fix)
    return here, "link" if link else "copy"


@contextmanager
def _told_of(here: Path, path: str) -> Iterator[None]:
    """Name what was fetched as whoever calls knows it."""
    try:
        yield
    except InputError as error:
        if not path.startswith(S3):
            raise
        where = error.where.replace(str(here), path)
        raise type(error)(where, error.found, expected=error.expected, fix=error.fix) from None


def _settle(console: Console, found: Look, wishes: Wishes) -> Wishes:
    """Return the wishes with an answer to every question.

    Raises:
        InputError: nobody can be asked, and it is not said what to take.
    """
    while questions := propose(found, wishes).questions:
        if wishes.guessing or not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise _undecided(questions, wishes)
        answer: dict[str, Any] = {questions[0].about: _ask(console, questions[0], found)}
        wishes = replace(wishes, **answer)
    return wishes


def _undecided(questions: list[Question], wishes: Wishes) -> InputError:
    """Return the refusal that names each open question and the flags that answer it."""
    what = "; ".join(f"{plain(question.text)}{_among(question)}?" for question in questions)
    flags = "; ".join(question.flags for question in questions)
    return InputError(
        "new", what, fix=f"say it with {flags}" + ("" if wishes.guessing else "; or --yes: what seems best")
    )


def _among(question: Question) -> str:
    options = [option for option in question.options if option]
    return f": {', '.join(plain(option, 60) for option in options)}" if len(options) > 1 else ""


def _ask(console: Console, question: Question, found: Look) -> str:
    """Ask in the terminal until there is an answer."""
    if question.options and question.options[0] == question.best and len(question.options) == 2:
        return str(question.best) if typer.confirm(plain(question.text), default=True) else ""
    if not question.options:
        return str(typer.prompt(question.text, default=question.best, show_default=True)).strip()
    for number, option in enumerate(question.options, start=1):
        some = list(found.columns[option].counts)[:5] if option else []
        shown = f"{plain(option)}: {', '.join(plain(value, 30) for value in some)}" if option else "none of them"
        console.print(f"  {number}  {shown}", soft_wrap=True)
    default = question.options.index(question.best) + 1 if question.best is not None else None
    while True:
        answer: int = typer.prompt(f"{question.text} (a number)", default=default, type=int)
        if 1 <= answer <= len(question.options):
            return question.options[answer - 1]


def _texts(made: Draft, source: str) -> dict[str, str]:
    return {
        "expectations.yaml": made.expectations,
        "params.yaml": made.params,
        "README.md": datasheet(made, source),
        "dvc.yaml": plots(made.head),
    }


def plots(head: str) -> str:
    """Return what `dvc metrics show` and `dvc plots show` read of a task whose head has that name."""
    names = ["metrics.yaml", *(["confusion.yaml"] if PARAMETERS[head].confuses else [])]
    return "".join((_INTAKE / name).read_text(encoding="utf-8") for name in names)


def _show(console: Console, made: Draft) -> None:
    """Print what was found: a line a column, and what to know."""
    console.print(f"{plain(made.look.path)}: looked at {made.look.seen}, {made.look.size:,} bytes", soft_wrap=True)
    found = table("column", "role", "type", "from")
    for name, chosen in made.made.columns.items():
        found.add_row(cell(name), cell(chosen.role), cell(chosen.rules["type"]), cell(chosen.why))
    for name, why in made.made.dropped.items():
        found.add_row(cell(name or "(no name)"), cell("left out"), cell(""), cell(why))
    console.print(found)
    test, val = made.fractions
    console.print(f"to learn: {made.head}; test {test:.0%}, val {val:.0%} of the labelled rows; licence {made.licence}")
    for warning in made.warnings:
        console.print(f"note: {plain(warning, 1000)}", soft_wrap=True)


def _facts(made: Draft) -> dict[str, Any]:
    look = made.look
    columns = {name: {"role": c.role, **c.rules, "from": c.why} for name, c in made.made.columns.items()}
    return {
        "task": made.task,
        "path": str(look.path),
        "rows": look.rows,
        "rows_looked_at": look.looked,
        "bytes": look.size,
        "columns": columns,
        "left_out": made.made.dropped,
        "head": made.head,
        "test_fraction": made.fractions[0],
        "val_fraction": made.fractions[1],
        "bad_rows": made.trial.bad,
        "licence": made.licence,
        "notes": made.warnings,
    }


def _compile(task: str) -> None:
    """Write the task's pipeline, as `graftline compile` does."""
    from graftline.pipelines.compile import FOLDER, compiled

    write_atomic(FOLDER / f"{task}.yaml", compiled(task).manifest)
