"""Is the ledger what its writers signed, all of it, and are they who they should be?

A ledger that agrees with itself may still have been made anew, by another key, or cut off at its end. What says that
it was not comes from outside the store: a checkpoint that was kept, the last one seen here, the key that it must begin
with, or a key that this machine trusts and that signed some of it. Without any of them the answer is "unknown".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from graftline.errors import InputError
from graftline.ledger.chain import Chain
from graftline.ledger.checkpoint import (
    Checkpoint,
    check_checkpoint,
    check_head,
    head_of,
    remember,
    seen,
    seen_path,
)
from graftline.ledger.entries import BrokenLedgerError
from graftline.ledger.log import read_chain
from graftline.signing.keys import load_keyring
from graftline.store import Store

Status = Literal["ok", "broken", "unknown"]


@dataclass
class Verdict:
    """What came of verifying a ledger."""

    chain: Chain
    """As far as it could be verified; empty if its entries do not hold together."""
    store: str
    """The store's identity."""
    problems: list[str] = field(default_factory=list)
    """Each place with what is wrong there."""
    anchors: list[str] = field(default_factory=list)
    """What from outside the store vouches for it."""

    @property
    def status(self) -> Status:
        if self.problems:
            return "broken"
        return "ok" if self.anchors or not self.chain.entries else "unknown"


def verify_ledger(
    store: Store,
    *,
    checkpoints: Mapping[str, Checkpoint] | None = None,
    first_key: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Verdict:
    """Read and verify every entry, then compare the ledger with what is known from outside.

    Args:
        checkpoints: kept ones, each with what to call it in a problem. The last one seen here is always compared.
        first_key: the id of the key that the ledger must begin with.

    Raises:
        GraftlineError: the store cannot be read, so that nothing can be said.
    """
    try:
        verdict = Verdict(read_chain(store, progress=progress), store.identity)
    except BrokenLedgerError as error:
        return Verdict(Chain(store.url), store.identity, [str(error)])
    for name, checkpoint in (checkpoints or {}).items():
        _compare(verdict, checkpoint, f"checkpoint {name}", check_checkpoint)
    if last := seen(store.identity):
        _compare(verdict, last, f"what was seen here before ({seen_path(store.identity)})", check_head)
    _compare_keys(verdict, first_key)
    return verdict


def remember_verified(verdict: Verdict) -> None:
    """Compare the ledger from now on with what it is now, if something vouches for that."""
    if verdict.status == "ok" and verdict.chain.entries:
        remember(verdict.store, head_of(verdict.chain))


def _compare(verdict: Verdict, checkpoint: Checkpoint, name: str, check: Callable[..., None]) -> None:
    try:
        check(checkpoint, verdict.chain, where=name)
    except BrokenLedgerError as error:
        verdict.problems.append(str(error))
    else:
        verdict.anchors.append(f"{name}, of {checkpoint.size} entries")


def _compare_keys(verdict: Verdict, first_key: str | None) -> None:
    """Note whether the ledger begins with the key that it must, and what this machine's keys vouch for."""
    chain, first = verdict.chain, verdict.chain.trust.first
    if first_key is not None:
        if first == first_key:
            verdict.anchors.append(f"its first key is {first_key}")
        else:
            found = f"it begins with key {first}" if first else "it is empty"
            verdict.problems.append(
                str(InputError(f"{chain.url}/ledger", found, expected=f"key {first_key}"))
            )
    trusted = load_keyring(create=False).public
    if first in trusted:
        verdict.anchors.append(f"its first key, {first}, is trusted on this machine")
    elif own := [entry for entry in chain.entries if entry.key in trusted]:
        last = own[-1]  # its signature is over the root of all before it
        verdict.anchors.append(
            f"entry {last.sequence} is by key {last.key}, which is trusted on this machine"
        )
