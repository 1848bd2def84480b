"""`graftline ledger`: list it, take a checkpoint of it, prove what is in it, verify it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from graftline.cli.anchors import KEY, read_checkpoints
from graftline.cli.shown import cell, counting, plain, table, terminal
from graftline.cli.stores import STORE, open_given
from graftline.errors import GraftlineError, InputError, RefusalError
from graftline.ledger.checkpoint import make_checkpoint, remember
from graftline.ledger.log import Ledger, stored_entries
from graftline.ledger.proofs import prove_inclusion, release_entry
from graftline.ledger.verification import LedgerState, remember_verified, verify_ledger
from graftline.signing.keyring import load_keyring

if TYPE_CHECKING:
    from graftline.ledger.entries import Entry

EXIT_BROKEN, EXIT_UNKNOWN = 1, 2
JSON = typer.Option("--json", help="print JSON instead of text")

app = typer.Typer(
    help="The log of releases, promotions, rollbacks, erasures and keys; without a command, list it.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def entries(
    context: typer.Context,
    task: Annotated[str | None, typer.Option("--task", help="one task; all of them if left out")] = None,
    as_json: Annotated[bool, JSON] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """List the ledger's entries, oldest first. Commands: checkpoint, prove, verify."""
    if context.invoked_subcommand is not None:
        return
    opened = open_given(store)
    found = [entry for entry in Ledger(opened).entries if task is None or entry.task == task]
    if as_json:
        print(json.dumps([entry.as_dict() for entry in found], indent=2))
    elif not found:
        print(f"no entries in the ledger of {opened.url}" + (f" for task '{task}'" if task else ""))
    else:
        _print_table(found)


@app.command()
def checkpoint(as_json: Annotated[bool, JSON] = False, store: Annotated[str, STORE] = "") -> None:
    """Print the ledger's head, signed, as one line to keep elsewhere, such as in a git tag."""
    opened = open_given(store)
    made = make_checkpoint(Ledger(opened))
    remember(opened.identity, made)
    if as_json:
        value = {"origin": made.origin, "size": made.size, "root": made.root.hex(), "line": made.line}
        print(json.dumps(value | {"note": made.note}, indent=2))
    else:
        print(made.line)


@app.command()
def prove(
    release: Annotated[str, typer.Argument(metavar="TASK@N", help="the release")], store: Annotated[str, STORE] = ""
) -> None:
    """Print as JSON the proof that a release is in the ledger, with a checkpoint if a key of this machine may sign."""
    task, version = _release_name(release)
    ledger = Ledger(open_given(store))
    proof = prove_inclusion(ledger, release_entry(ledger, task, version))
    print(json.dumps(proof.as_dict() | {"checkpoint": _note(ledger)}, indent=2))


@app.command()
def verify(
    checkpoint: Annotated[
        list[str] | None, typer.Option("--checkpoint", metavar="TEXT|FILE", help="one that was kept; may be repeated")
    ] = None,
    key: Annotated[str | None, KEY] = None,
    as_json: Annotated[bool, JSON] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Verify every entry, and the whole against what is known from outside. Exit 0: it holds. 1: it is broken.
    2: nothing from outside vouches for it, or it cannot be read."""
    opened = open_given(store)
    kept, first_key = read_checkpoints(checkpoint or []), _fingerprint(key)
    try:
        with counting("entries") as progress:
            verdict = verify_ledger(opened, stored_entries(opened, progress), checkpoints=kept, first_key=first_key)
    except InputError:
        raise  # which ends with 2 as well
    except GraftlineError as error:
        raise InputError("the ledger cannot be verified", str(error)) from None
    if not verdict.findings and not verdict.chain.entries:
        raise InputError(
            opened.url,
            "nothing there to verify: its ledger has no entry",
            expected="a store with releases",
            fix="is it the right one?",
        )
    remember_verified(verdict, opened)
    _print_verdict(verdict, as_json)
    if verdict.status != "ok":
        raise typer.Exit(EXIT_BROKEN if verdict.status == "broken" else EXIT_UNKNOWN)


def _print_table(found: list[Entry]) -> None:
    listed = table("#", "event", "what", "alias", "at", "by", "key", "sha256", grid=True)
    for entry in found:
        values = (entry.sequence, entry.event, _subject(entry), entry.alias, entry.at, entry.actor)
        listed.add_row(*(cell(value) for value in (*values, entry.key[:12], entry.digest[:12])))
    terminal().print(listed)


def _subject(entry: Entry) -> str:
    if entry.event == "key":
        return f"{entry.detail['action']} {entry.digest[:12]}"
    if entry.event == "round":
        return f"{entry.task} round {entry.detail.get('round')}"
    return f"{entry.task}@{entry.version}" if entry.version else entry.task


def _release_name(name: str) -> tuple[str, int]:
    task, at, version = name.partition("@")
    if not (at and version.isascii() and version.isdigit() and len(version) < 16):
        raise InputError("release", f"'{name}'", expected="TASK@N, such as mnist@3")
    return task, int(version)


def _note(ledger: Ledger) -> str | None:
    """Return a checkpoint of now; None where no key may sign one, as at an auditor's."""
    try:
        return make_checkpoint(ledger, load_keyring(create=False).signer()).note
    except (InputError, RefusalError):
        return None


def _fingerprint(key: str | None) -> str | None:
    if key is not None and not (len(key) == 64 and set(key) <= set("0123456789abcdef")):
        raise InputError("--key", f"'{key[:80]}'", expected="a key's id, 64 hex digits, as `graftline keys` prints it")
    return key


def _print_verdict(verdict: LedgerState, as_json: bool) -> None:
    chain = verdict.chain
    problems = [f"{f.place}: {f.kind}: {f.actual}; expected {f.expected}" for f in verdict.findings]
    if as_json:
        value = {"status": verdict.status, "problems": problems, "anchors": verdict.anchors}
        print(json.dumps(value | {"entries": len(chain.entries), "root": chain.tree.root().hex()}, indent=2))
        return
    for problem in problems:
        print(f"broken: {plain(problem, 2000)}")
    if verdict.status != "broken":
        print(f"{len(chain.entries)} entries, each signed by a key that the ledger trusted then; chain and roots agree")
    for anchor in verdict.anchors:
        print(f"vouched for by: {plain(anchor, 2000)}")
    if verdict.status == "unknown":
        print(
            f"could not tell: the ledger begins with key {chain.trust.first}, which this machine does not know; pin it "
            "with --key, give a --checkpoint that was kept, or trust it with `graftline keys trust`"
        )
