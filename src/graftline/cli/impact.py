"""`graftline impact`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline.audit.raw_row import digests_by_task, task_contracts
from graftline.cli.index import OUTPUTS, open_for_questions
from graftline.cli.shown import cell, plain, table, terminal
from graftline.cli.stores import STORE
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.lineage import impact as ask
from graftline.lineage.impact import Impact, of_rows
from graftline.rows.finding import find_row, find_subject

if TYPE_CHECKING:
    from graftline.index.queries import Index
    from graftline.index.rows import IndexedRecord


def impact(
    what: Annotated[str | None, typer.Argument(metavar="[FILE|DIGEST]", help="a file, a folder or a digest")] = None,
    row: Annotated[
        Path | None, typer.Option("--row", metavar="FILE", help="a row: a JSON object, a picture or text file")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", metavar="ID", help="a person")] = None,
    task: Annotated[str | None, typer.Option("--task", help="the task whose contract reads --row")] = None,
    commit: Annotated[str | None, typer.Option("--commit", metavar="REV", help="at least 7 hex digits")] = None,
    image: Annotated[str | None, typer.Option("--image", metavar="DIGEST", help="a container image")] = None,
    package: Annotated[str | None, typer.Option("--package", metavar="NAME==VERSION", help="of a lock")] = None,
    everything: Annotated[bool, typer.Option("--all", help="list all of it, not the first 20 of each kind")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object instead of tables")] = False,
    store: Annotated[str, STORE] = "",
    outputs: Annotated[list[Path] | None, OUTPUTS] = None,
) -> None:
    """Show what something reached: every data set, trunk, model, release and alias, through every step."""
    asked = {
        "FILE or DIGEST": what,
        "--row": row,
        "--subject": subject,
        "--commit": commit,
        "--image": image,
        "--package": package,
    }
    given = [name for name, value in asked.items() if value is not None]
    if len(given) != 1:
        raise InputError("impact", f"given {', '.join(given) or 'nothing'}", expected=f"one of {', '.join(asked)}")
    limit = None if everything else ask.LIMIT
    with open_for_questions(store, outputs) as index:
        if commit is not None:
            found = ask.of_commit(index, commit, limit=limit)
        elif image is not None:
            found = ask.of_image(index, image, limit=limit)
        elif package is not None:
            found = ask.of_package(index, package, limit=limit)
        elif what is not None:
            path = Path(what)
            found = ask.of_path(index, path, limit=limit) if path.exists() else ask.of_digest(index, what, limit=limit)
        else:
            found = _of_rows(index, row, subject, task, limit)
    if as_json:
        _show_json(found)
    else:
        _show(found)


def _of_rows(index: Index, row: Path | None, subject: str | None, task: str | None, limit: int | None) -> Impact:
    if subject is not None:
        return of_rows(index, "the subject", find_subject(index.store, subject), limit=limit)
    assert row is not None
    digests = digests_by_task(row, task_contracts(ROOT, [task] if task else None))
    hits = {hit for of in digests.values() for digest in of for hit in find_row(index.store, digest)}
    return of_rows(index, str(row), sorted(hits), limit=limit)


def _show_json(found: Impact) -> None:
    print(json.dumps(as_dict(found), indent=2))


def as_dict(found: Impact) -> dict[str, Any]:
    """Return an impact as JSON values."""
    value = asdict(found)
    reached = value["reached"]
    reached["counts"] = [
        {"output": name, "task": task, "count": count} for (name, task), count in found.reached.counts.items()
    ]
    reached["aliases"] = [
        {"task": task, "alias": alias, "version": version} for (task, alias), version in found.reached.aliases.items()
    ]
    for record, shown in zip(found.reached.records, reached["records"], strict=True):
        shown["splits"] = list(found.splits_of(record.content, [i.sha256 for i in record.inputs]))
    return value


def _show(found: Impact) -> None:
    console, reached = terminal(), found.reached
    named = ", ".join(dict.fromkeys(match.kind for match in found.matches))
    console.print(cell(f"{found.subject} ({named})", "bold"))
    for content, splits in found.splits.items():
        rows = ", ".join(f"{count} in {split}" for split, count in splits.items())
        console.print(cell(f"rows in dataset {content[:12]}: {rows}"))
    for holder in found.holders[:_HOLDERS]:
        where = f"input {holder.input} of record" if holder.input else "output of record"
        console.print(cell(f"{holder.path} in {where} {holder.record[:12]}, {holder.size:,} bytes"))
    if len(found.holders) > _HOLDERS:
        console.print(f"and in {len(found.holders) - _HOLDERS:,} more")
    if not reached.counts:
        console.print("reached nothing that is recorded here")
    kinds = table("reached", "task", "count", "listed", grid=True)
    for (name, task), count in reached.counts.items():
        mine = [r for r in reached.records if (r.name, r.task) == (name, task)]
        listed = " ".join(_shown(found, record) for record in mine[:_LISTED]) + (" ..." if count > _LISTED else "")
        kinds.add_row(cell(name), cell(task), f"{count:,}", cell(listed))
    console.print(kinds)
    _show_releases(found, console)
    for note in found.notes:
        console.print(plain(note), style="yellow", markup=False)


_HOLDERS, _LISTED = 10, 4
"""Of the places of a file, and of the records of one kind and task, that the tables show."""


def _shown(found: Impact, record: IndexedRecord) -> str:
    splits = found.splits_of(record.content, [i.sha256 for i in record.inputs])
    return record.content[:12] + (f" ({', '.join(splits)})" if splits else "")


def _show_releases(found: Impact, console: Any) -> None:
    reached = found.reached
    listed = table("release", "aliases", "created", "content", grid=True)
    for release in reached.releases:
        aliases = ", ".join(release.aliases)
        listed.add_row(cell(release.reference), cell(aliases, "bold red"), cell(release.created), release.content[:12])
    if reached.releases:
        console.print(listed)
    if reached.release_count > len(reached.releases):
        console.print(f"{reached.release_count:,} releases in all; --all lists them")
    if reached.aliases:
        pointing = ", ".join(f"{task}@{alias} ({version})" for (task, alias), version in reached.aliases.items())
        console.print(cell(f"aliases that point at a release reached now: {pointing}", "bold", 20_000))
