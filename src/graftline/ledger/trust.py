"""Which keys the ledger trusts, and where: what its own entries of the event `key` say.

The first entry brings the key that signs it. Each other key is trusted, retired or revoked by an entry that a key
signs which is valid at that place. What a key signed before it was retired or revoked stands: the entries after it
carry the hash of all that came before.
"""

from __future__ import annotations

from typing import Literal, get_args

from graftline.errors import InputError
from graftline.ledger.entries import Entry, Fact
from graftline.signing.keys import PublicKey, State

Action = Literal["trust", "retire", "revoke"]
_BECOMES: dict[Action, State] = {"trust": "valid", "retire": "retired", "revoke": "revoked"}


class Trust:
    """The keys that a ledger names, each with what it is at each place."""

    def __init__(self) -> None:
        self.keys: dict[str, PublicKey] = {}
        """Each key that was ever trusted, by its id, the oldest first."""
        self._changes: dict[str, list[tuple[int, State]]] = {}
        """Of each key, after which entry it became what."""
        self._actors: dict[str, str] = {}
        self._last = 0

    def state(self, keyid: str, sequence: int | None = None) -> State:
        """Return what a key is at the place `sequence`, or for the next entry.

        An entry's own change holds from the next place on; the first key is valid from the first.
        """
        place = self._last + 1 if sequence is None else sequence
        before = [state for after, state in self._changes.get(keyid, ()) if after < place]
        return before[-1] if before else "unknown"

    def since(self, keyid: str) -> list[tuple[int, State]]:
        """Return the sequence of each entry that changed a key, and what it made of it."""
        return [(max(after, 1), state) for after, state in self._changes.get(keyid, ())]

    def valid(self) -> dict[str, str]:
        """Return the keys that may sign the next entry, each with who used it last (empty: nobody yet)."""
        return {k: self._actors.get(k, "") for k in self.keys if self.state(k) == "valid"}

    @property
    def first(self) -> str | None:
        """The id of the key that the ledger began with."""
        return next(iter(self.keys), None)

    def check(self, entry: Entry, *, signature: bool = True) -> None:
        """Raise ValueError with the reason unless the entry may stand in its place, after those included."""
        change = read_change(entry) if entry.event == "key" else None
        if entry.sequence == 1:
            if change is None or (change[0], change[1].keyid) != ("trust", entry.key):
                raise ValueError("the first entry does not bring the key that signs it")
            public = change[1]
        else:
            if (state := self.state(entry.key, entry.sequence)) != "valid":
                raise ValueError(f"signed by key {entry.key}, which is {state} there")
            public = self.keys[entry.key]
            if change:
                self.check_change(change[0], change[1].keyid)
        if signature and not public.verify(entry.signed, entry.raw_signature):
            raise ValueError(f"its signature is not one of key {entry.key} over it")

    def include(self, entry: Entry) -> None:
        """Note what a checked entry says of keys."""
        self._last = entry.sequence
        if entry.event == "key":
            action, public = read_change(entry)
            self.keys.setdefault(public.keyid, public)
            after = 0 if entry.sequence == 1 else entry.sequence
            self._changes.setdefault(public.keyid, []).append((after, _BECOMES[action]))
        self._actors[entry.key] = entry.actor

    def check_change(self, action: Action, keyid: str) -> None:
        """Raise ValueError with the reason if the next entry may not do this to the key."""
        state = self.state(keyid)
        if state == "revoked":
            raise ValueError(f"key {keyid} was revoked, which is not taken back")
        if action != "trust":
            if state == "unknown":
                raise ValueError(f"key {keyid} is unknown, so there is nothing to {action}")
            if set(self.valid()) == {keyid}:
                raise ValueError(f"key {keyid} is the last valid one: trust another first")


def read_change(entry: Entry | Fact) -> tuple[Action, PublicKey]:
    """Return what an entry of the event `key` does, and to which key. Raises ValueError if it is not one."""
    known: tuple[Action, ...] = get_args(Action)
    action = next((name for name in known if name == entry.detail.get("action")), None)
    pem = entry.detail.get("public_key")
    if action is None or not isinstance(pem, str):
        raise ValueError("it does not say what happens to which key")
    try:
        public = PublicKey.from_pem(pem)
    except InputError:
        raise ValueError("it holds no public key") from None
    if (public.keyid, public.pem) != (entry.digest, pem):
        raise ValueError(f"it holds key {public.keyid} and names {entry.digest}")
    return action, public


def key_fact(action: Action, public: PublicKey, identity: str) -> Fact:
    """Return the fact that something happens to a key."""
    detail = {"action": action, "public_key": public.pem}
    return Fact("key", "", 0, public.keyid, identity, detail=detail)
