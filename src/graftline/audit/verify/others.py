"""What is neither ledger, release nor record: public keys, locks, bundles of runs under way, and working notes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.findings import Finding
from graftline.signing.keys import PublicKey

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.ledger.verification import LedgerState

_PART = re.compile(r"(.+)-([0-9a-f]{64})")


def verify_keys(inventory: Inventory, ledger: LedgerState, signers: set[str]) -> Iterator[Finding]:
    """Yield the public keys that are not what their name says, that nobody knows, or that are missing.

    Args:
        inventory: its keys.
        ledger: which names keys.
        signers: the ids of the keys that signed something here: publish stores each of them.
    """
    for keyid in sorted(signers):
        if f"keys/{keyid}.pem" not in inventory.keys:
            yield Finding(f"keys/{keyid}.pem", "missing", f"the public key {keyid}", "nothing")
    for key, data in inventory.read_all([match[0] for match in inventory.of["key"]]):
        keyid = key.removeprefix("keys/").removesuffix(".pem")
        try:
            public = PublicKey.from_pem(data or b"", where=key)
        except InputError as error:
            yield Finding(key, "tampered", f"the public key {keyid}", error.found)
            continue
        if (public.keyid, public.pem.encode()) != (keyid, data):
            actual = f"key {public.keyid}" if public.keyid != keyid else "another form of it"
            yield Finding(key, "tampered", f"the public key {keyid}", actual)
        elif ledger.public(keyid) is None:
            yield Finding(key, "unknown key", "a key that the ledger or this machine knows", f"key {keyid}")


def verify_notes(inventory: Inventory) -> Iterator[Finding]:
    """Yield working notes of runs that are not of their form. They carry no signature, and nothing else follows
    from them than that a run is, or was, under way."""
    for key, data in inventory.read_all([match[0] for match in inventory.of["run"]]):
        if data is not None and not _is_note(key, data):  # None: its run has ended meanwhile
            yield Finding(key, "tampered", "a note in canonical JSON of the run that it names", f"{data[:80]!r}")


def _is_note(key: str, data: bytes) -> bool:
    if key.startswith("runs/data/"):
        return re.fullmatch(rb"[0-9a-f]{64}", data) is not None
    try:
        value = json.loads(data)
        whole = data == canonical_json(value) + b"\n" and isinstance(value, dict)
    except (ValueError, RecursionError):
        return False
    return whole and _is_where_it_says(key.split("/"), value)


def _is_where_it_says(parts: list[str], value: dict[str, Any]) -> bool:
    """Return whether what a run left names that run, where it says which it is (graftline.runs)."""
    name = parts[-1].removesuffix(".json")
    if parts[1] == "steps":
        return parts[2:] == [str(value.get("run")), f"{value.get('step')}.{value.get('number')}.json"]
    if parts[1] == "open" or (len(parts) == 2 and "state" in value):
        run = str(value.get("run", value.get("run_key", name)))  # run_key: as ends were written once
        return name == run or re.fullmatch(rf"{re.escape(run)}\.[0-9]+", name) is not None
    return True


def bundle_parts(inventory: Inventory) -> dict[str, str]:
    """Return the sha256 of each part of a bundle, which its name gives."""
    keys = (match[0] for match in inventory.of["bundle"])
    return {key: match[2] for key in keys if (match := _PART.fullmatch(key))}


def verify_bundles(inventory: Inventory) -> Iterator[Finding]:
    """Yield bundles that are not as they were written, or that lack a part; what is not one of theirs is unexpected."""
    keys = [match[0] for match in inventory.of["bundle"] if not _PART.fullmatch(match[0])]
    for key in keys:
        if not key.endswith(".json"):
            yield Finding(key, "unexpected", "a bundle, or a part of one", "there")
    for key, data in inventory.read_all([key for key in keys if key.endswith(".json")]):
        content = _sealed_content(data or b"")
        if content is None or content.get("name") != key.rpartition("/")[2].removesuffix(".json"):
            yield Finding(key, "tampered", "the manifest of a bundle", "not as it was written")
            continue
        for file, facts in content["files"].items():
            for part in facts["parts"]:
                place = f"{key.removesuffix('.json')}-{part}"
                if place not in inventory.keys:
                    yield Finding(place, "missing", f"sha256 {part}", "nothing", file=file)


def _sealed_content(data: bytes) -> dict[str, Any] | None:
    try:
        sealed = json.loads(data)
        content: dict[str, Any] = sealed["content"]
        whole = canonical_json(sealed) == data and sha256_bytes(canonical_json(content)) == sealed["sha256"]
        _ = [part for facts in content["files"].values() for part in facts["parts"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return content if whole else None
