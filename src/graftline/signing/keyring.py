"""The keyring: which key signs here, and which ones are trusted.

It is a folder, $GRAFTLINE_KEYS or ~/.config/graftline/keys: `keyring.json` says which keys there are and since when,
`<key id>.key` is a private one (mode 0600). The first use makes a key. $GRAFTLINE_KEY names another private key
instead: a mounted PEM file, or a key management service's address (see `signing.services`).

The folder is made on first use and changed under a lock, `keyring.json` last and in one step.
A process that is killed half-way leaves at most a private key that `keyring.json` does not name; nothing uses it.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json, read_json
from graftline.durable import fsync_directory, write_atomic
from graftline.errors import InputError
from graftline.signing.keys import PublicKey, Signer, State, make_private, read_signer
from graftline.signing.services import is_address, open_service
from graftline.times import utc_now

KEYRING = "keyring.json"
_FORMAT = "https://graftline.dev/keyring/v1"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_MOUNT = "set GRAFTLINE_KEYS to a folder that can be written, or mount the keys (docs/cluster.md)"


@dataclass(frozen=True)
class Known:
    """One key of the keyring and since when it is what. Times are ISO 8601 in UTC; None: not (yet)."""

    public: PublicKey
    own: bool
    """Whether its private key was made here; if not, it is another's that is trusted."""
    created: str
    """For another's key: when it was first trusted here."""
    retired: str | None = None
    """It signs nothing more; what it has signed stays valid."""
    revoked: str | None = None
    """Nothing that it signed is trusted."""

    @property
    def state(self) -> State:
        return "revoked" if self.revoked else "retired" if self.retired else "valid"

    def as_dict(self) -> dict[str, Any]:
        return {
            "keyid": self.public.keyid,
            "pem": self.public.pem,
            "own": self.own,
            "created": self.created,
            "retired": self.retired,
            "revoked": self.revoked,
        }


@dataclass(frozen=True)
class Keyring:
    """The keys of this machine, or of the folder that was mounted. A change is on the disk when the call returns."""

    folder: Path
    known: Mapping[str, Known]
    """Each key of the folder by its id, the oldest first."""
    given: Signer | None = None
    """What $GRAFTLINE_KEY names."""

    @property
    def public(self) -> dict[str, PublicKey]:
        """Every trusted key by its id: own and others', retired ones too, revoked ones not."""
        found = {k: v.public for k, v in self.known.items() if v.state != "revoked"}
        if self.given and self.state(self.given.keyid) != "revoked":
            found[self.given.keyid] = self.given.public
        return found

    def state(self, keyid: str) -> State:
        """Return what this keyring says of a key."""
        if known := self.known.get(keyid):
            return known.state
        return "valid" if self.given and self.given.keyid == keyid else "unknown"

    def signer(self) -> Signer:
        """Return what signs: $GRAFTLINE_KEY, or the newest own key that is neither retired nor revoked.

        Raises:
            InputError: there is none, or its file cannot be read.
        """
        if self.given:
            if self.state(self.given.keyid) in ("retired", "revoked"):
                raise InputError(
                    "GRAFTLINE_KEY",
                    f"key {self.given.keyid}, which is {self.state(self.given.keyid)}",
                    expected="a valid key",
                    fix="name another key",
                )
            return self.given
        own = [known for known in self.known.values() if known.own and known.state == "valid"]
        if not own:
            raise InputError(
                self.folder,
                "no key to sign with",
                expected="a private key that is neither retired nor revoked",
                fix="make one with `graftline keys rotate`, or name one by GRAFTLINE_KEY",
            )
        return self.own_signer(own[-1].public.keyid)

    def own_signer(self, keyid: str) -> Signer:
        """Return what signs with one's own key `keyid`, a retired one too: it hands over to its successor."""
        if self.given and self.given.keyid == keyid:
            return self.given
        return read_signer(self.folder / f"{keyid}.key", expected=keyid)

    def add_trusted(self, pem: str | bytes, *, where: object = "public key") -> PublicKey:
        """Trust another's public key from now on. Raises InputError: no key, or one that was revoked."""
        return add_trusted(self.folder, PublicKey.from_pem(pem, where=where))


def load_keyring(*, create: bool = True) -> Keyring:
    """Return the keyring; with `create`, one that can sign: a key is made where there is none at all.

    Raises:
        InputError: the folder cannot be read, or written where a key must be made.
    """
    folder = keys_folder()
    known, given = read_known(folder), _given()
    if create and not given and not any(key.own for key in known.values()):
        known = make_first(folder)
    return Keyring(folder, known, given)


def keys_folder() -> Path:
    """Return the keyring's folder: $GRAFTLINE_KEYS, or ~/.config/graftline/keys."""
    if given := os.environ.get("GRAFTLINE_KEYS"):
        return Path(given).absolute()
    try:
        return Path.home() / ".config" / "graftline" / "keys"
    except RuntimeError:  # a user id without a name, as in many containers
        raise InputError(
            "GRAFTLINE_KEYS",
            "not set, and this user has no home",
            expected="the folder of the signing keys",
            fix="mount the keys and set it (docs/cluster.md)",
        ) from None


def _given() -> Signer | None:
    value = os.environ.get("GRAFTLINE_KEY")
    if not value:
        return None
    return open_service(value) if is_address(value) else read_signer(Path(value), where="GRAFTLINE_KEY")


def read_known(folder: Path) -> dict[str, Known]:
    """Return the keys in the order in which they came, by id; none where there is no keyring yet.

    Raises:
        InputError: `keyring.json` cannot be read or is not one.
    """
    path = folder / KEYRING
    try:
        if not path.exists():
            return {}
        value = read_json(path)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        if value["format"] != _FORMAT:
            raise ValueError(f"format {value['format']!r}")
        found = [_known(entry, path) for entry in value["keys"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"not a keyring ({error!r})", fix="restore it from a backup") from None
    return {known.public.keyid: known for known in found}


def _known(entry: dict[str, Any], path: Path) -> Known:
    public = PublicKey.from_pem(entry["pem"], where=path)
    times = [entry["created"], entry["retired"], entry["revoked"]]
    if public.keyid != entry["keyid"] or not isinstance(entry["own"], bool):
        raise ValueError(f"key {entry['keyid']!r} is not what its PEM says")
    if not all(at is None or _TIME.fullmatch(at) for at in times) or entry["created"] is None:
        raise ValueError(f"times {times!r}")
    return Known(public, entry["own"], *times)


def make_first(folder: Path) -> dict[str, Known]:
    """Make the first own key, unless another process has just done so; return all keys."""
    with _change(folder) as known:
        if not any(key.own for key in known.values()):
            _add_own(folder, known)
        return known


def rotate(folder: Path) -> tuple[list[PublicKey], PublicKey]:
    """Make a new key that signs from now on and retire the own ones before it; return these and the new one."""
    with _change(folder) as known:
        before = [keyid for keyid, key in known.items() if key.own and key.state == "valid"]
        for keyid in before:
            known[keyid] = replace(known[keyid], retired=utc_now())
        return [known[keyid].public for keyid in before], _add_own(folder, known)


def add_trusted(folder: Path, public: PublicKey) -> PublicKey:
    """Trust another's key. Raises InputError if it was revoked: that is not taken back."""
    with _change(folder) as known:
        if public.keyid in known and known[public.keyid].state == "revoked":
            raise InputError(
                f"key {public.keyid}",
                f"it was revoked at {known[public.keyid].revoked}",
                expected="a key that was not",
                fix="trust its owner's new key",
            )
        known.setdefault(public.keyid, Known(public, own=False, created=utc_now()))
    return public


def revoke(folder: Path, keyid: str) -> Known:
    """Trust nothing more that the key signed or signs. Raises InputError for an unknown key."""
    with _change(folder) as known:
        if keyid not in known:
            raise InputError(f"key {keyid}", "unknown here", expected="the id of a key that `graftline keys` lists")
        if not known[keyid].revoked:
            known[keyid] = replace(known[keyid], revoked=utc_now())
        return known[keyid]


def _add_own(folder: Path, known: dict[str, Known]) -> PublicKey:
    pem, public = make_private()
    _write_private(folder / f"{public.keyid}.key", pem)
    known[public.keyid] = Known(public, own=True, created=utc_now())
    return public


@contextmanager
def _change(folder: Path) -> Iterator[dict[str, Known]]:
    """Give the keys to change; what they then are is stored. Waits for another process that changes them."""
    from filelock import FileLock

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(folder / f".{KEYRING}.lock", mode=0o600):
            known = read_known(folder)
            before = dict(known)
            yield known
            if known != before:
                value = {"format": _FORMAT, "keys": [key.as_dict() for key in known.values()]}
                write_atomic(folder / KEYRING, canonical_json(value))
    except OSError as error:
        raise _unusable(folder, error) from None


def _write_private(path: Path, pem: bytes) -> None:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    fsync_directory(path.parent)


def _unusable(folder: Path, error: OSError) -> InputError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    absent = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and not (folder / KEYRING).exists()
    found = f"no signing key, and none can be made: {reason}" if absent else reason
    return InputError(folder, found, expected="the folder of the signing keys", fix=_MOUNT)
