"""`graftline keys`: which key signs here, which ones are trusted, and what a store's ledger is told of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline.cli.shown import cell, table, terminal
from graftline.cli.stores import STORE, open_given
from graftline.errors import InputError
from graftline.ledger.log import key_event
from graftline.signing import keyring, rotation
from graftline.signing.keyring import Keyring, keys_folder, load_keyring

if TYPE_CHECKING:
    from graftline.ledger.entries import Entry
    from graftline.signing.keys import PublicKey
    from graftline.store import Store

app = typer.Typer(
    help="The keys that sign records, releases and the ledger.", no_args_is_help=False, add_completion=False
)
ONLY_HERE = typer.Option("--only-here", help="change this machine's keyring and no store's ledger")
KEYID = typer.Argument(metavar="KEYID", help="its id, or the beginning of it (8 characters or more)")


@app.callback(invoke_without_command=True)
def keys(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list instead of a table")] = False,
) -> None:
    """List the keys of this machine, oldest first; the first use makes one."""
    if context.invoked_subcommand:
        return
    keyring = load_keyring()
    rows = list_keys(keyring)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    listed = table("key", "of", "state", "created", "ended", grid=True)
    for row in rows:
        state = f"{row['state']}, signs" if row["signs"] else row["state"]
        ended = row["revoked"] or row["retired"]
        listed.add_row(*(cell(value) for value in (row["keyid"][:16], row["of"], state, row["created"], ended)))
    terminal().print(listed)
    print(f"in {keyring.folder}")


@app.command()
def rotate(store: Annotated[str, STORE] = "", only_here: Annotated[bool, ONLY_HERE] = False) -> None:
    """Make a new key to sign with and retire the one before; what that has signed stays valid.

    The old key brings the new one into the store's ledger. Other stores' ledgers learn of it when something is next
    released there, or by `graftline keys hand-over --store URL`.
    """
    if os.environ.get("GRAFTLINE_KEY"):
        raise InputError(
            "GRAFTLINE_KEY",
            "it names the key that signs",
            expected="a key of the keyring",
            fix="make a new key where that one is from, then let GRAFTLINE_KEY name it",
        )
    load_keyring()  # the first key, if there is none: it brings in the second
    retired, new = keyring.rotate(keys_folder())
    print(f"key {new.keyid} signs from now on; retired: {', '.join(old.keyid for old in retired) or 'none'}")
    _tell(store, only_here)


@app.command()
def trust(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.pem", help="a public key, as `graftline keys export` prints it")
    ],
    store: Annotated[str, STORE] = "",
    only_here: Annotated[bool, ONLY_HERE] = False,
) -> None:
    """Trust what another's key signs: records here, and entries in the store's ledger if there is one."""
    public = load_keyring().add_trusted(file.read_bytes(), where=file)
    print(f"key {public.keyid} is trusted here")
    if (opened := _with_ledger(store, only_here)) and (entry := key_event(opened, "trust", public)):
        _say(opened, [entry])


@app.command()
def revoke(
    keyid: Annotated[str, KEYID], store: Annotated[str, STORE] = "", only_here: Annotated[bool, ONLY_HERE] = False
) -> None:
    """Trust nothing more that a key has signed or will sign, here and in the store's ledger. It is not taken back."""
    loaded = load_keyring()
    public = find_key(loaded, keyid)
    if public.keyid == loaded.signer().keyid:
        raise InputError(
            f"key {public.keyid}",
            "it is the one that signs here",
            expected="another",
            fix="run `graftline keys rotate` first",
        )
    known = keyring.revoke(loaded.folder, public.keyid)
    print(f"key {public.keyid} is revoked here since {known.revoked}")
    _tell(store, only_here)


@app.command()
def export(keyid: Annotated[str, KEYID] = "") -> None:
    """Print a public key as PEM: that which signs here, or the one named."""
    keyring = load_keyring()
    public = find_key(keyring, keyid) if keyid else keyring.signer().public
    print(public.pem, end="")


@app.command("hand-over")
def hand_over(store: Annotated[str, STORE] = "") -> None:
    """Enter in a store's ledger what became of this machine's keys since."""
    _tell(store, only_here=False)


def list_keys(keyring: Keyring) -> list[dict[str, Any]]:
    """Return each key of the keyring, and the one that $GRAFTLINE_KEY names, as `graftline keys --json` prints it."""
    signs = keyring.signer().keyid
    rows: list[dict[str, Any]] = [
        {
            "keyid": keyid,
            "of": "this machine" if known.own else "another",
            "state": known.state,
            "signs": keyid == signs,
            "created": known.created,
            "retired": known.retired,
            "revoked": known.revoked,
        }
        for keyid, known in keyring.known.items()
    ]
    if keyring.given and keyring.given.keyid not in keyring.known:
        given = {"keyid": keyring.given.keyid, "of": "GRAFTLINE_KEY", "state": "valid", "signs": True}
        rows.append(given | dict.fromkeys(("created", "retired", "revoked")))
    return rows


def find_key(keyring: Keyring, keyid: str) -> PublicKey:
    """Return the key of which this is the id or its beginning. Raises InputError: there is none, or several."""
    every = {known: key.public for known, key in keyring.known.items()}
    if keyring.given:
        every[keyring.given.keyid] = keyring.given.public
    found = [public for known, public in every.items() if known.startswith(keyid.lower()) and len(keyid) >= 8]
    if len(found) != 1:
        raise InputError(
            f"key {keyid!r}",
            f"{len(found)} keys of that name" if found else "no such key",
            expected="the id of one key that `graftline keys` lists, or its first 8 characters or more",
        )
    return found[0]


def _tell(url: str, only_here: bool) -> None:
    """Bring the store's ledger up to the keyring, if it has one."""
    if store := _with_ledger(url, only_here):
        _say(store, rotation.hand_over(store, load_keyring()))


def _with_ledger(url: str, only_here: bool) -> Store | None:
    if only_here:
        return None
    store = open_given(url)
    if store.list("ledger/"):
        return store
    print(f"{store.url} has no ledger yet: it begins with the key that signs its first entry")
    return None


def _say(store: Store, entries: list[Entry]) -> None:
    for entry in entries:
        print(f"{store.url}: entry {entry.sequence}: {entry.detail['action']} key {entry.digest}")
    if not entries:
        print(f"{store.url}: its ledger knows that already")
