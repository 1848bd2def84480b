"""A person's id as it is stored: HMAC-SHA256 under a key that no record, store or output holds.

Without the key a hash can be neither turned back nor guessed at by trying ids. Losing the key means that no person can
be looked up any more; so it is kept like the signing keys (docs/decisions/rows.md).
"""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from graftline.durable import fsync_directory
from graftline.errors import InputError
from graftline.signing.keyring import keys_folder

HASH_BYTES = 16
KEY_BYTES = 32
KEY_FILE = "subjects.key"


def key_path() -> Path:
    """Return where the key lies: $GRAFTLINE_KEYS/subjects.key, by default in ~/.config/graftline/keys."""
    return keys_folder() / KEY_FILE


def load_key(*, create: bool) -> bytes:
    """Return the key's 32 bytes.

    Args:
        create: make it if there is none; of several processes that do so at once, one wins.

    Raises:
        InputError: there is none (and it is not to be made, or cannot be), or the file is not a key.
    """
    path = key_path()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if create:
            _make(path)
            return load_key(create=False)
        raise InputError(
            path,
            "no key for subjects",
            expected=f"{KEY_BYTES} bytes",
            fix="set GRAFTLINE_KEYS to the folder of the machine that validated the data, or copy the file from there",
        ) from None
    if len(data) != KEY_BYTES:
        raise InputError(path, f"{len(data)} bytes", expected=f"a key of {KEY_BYTES}", fix="restore it")
    return data


def hash_subject(subject: str, key: bytes) -> bytes:
    """Return the 16 bytes that stand for a person's id. White space at its ends counts for nothing."""
    return hmac.digest(key, subject.strip().encode(), "sha256")[:HASH_BYTES]


def check_value(key: bytes) -> str:
    """Return 16 hexadecimal digits that tell a key from another, and nothing else about it."""
    return hmac.digest(key, b"graftline subjects", "sha256")[:8].hex()


def _make(path: Path) -> None:
    """Write a new key aside and link it into place, so that it is there whole or not at all."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InputError(
            path,
            f"no key for subjects, and none can be made ({error.strerror})",
            fix="set GRAFTLINE_KEYS to a folder that can be written, or mount the keys (docs/cluster.md)",
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was quicker
            os.link(aside, path)
        fsync_directory(path.parent)
    finally:
        aside.unlink()
