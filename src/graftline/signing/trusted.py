"""Is something signed by a key that is trusted here? If not, the line says in which of the ways."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.signing.envelope import Envelope, open_envelope, signers

if TYPE_CHECKING:
    from graftline.signing.keyring import Keyring

AGAIN = "run the stage that makes it again, with `graftline run TASK --force`"


def check_signed(
    payload: bytes, payload_type: str, envelope: bytes | None, keyring: Keyring, *, where: Path | str, fix: str = AGAIN
) -> list[str]:
    """Return the ids of the keys that signed `envelope`, a signature over `payload`; all of them are trusted.

    One signature that is not sound spoils the others: the envelope is shown as what its signers said.

    Args:
        payload: the bytes that must have been signed.
        envelope: the envelope's bytes; None if there is none.
        where: what the envelope is, for errors.
        fix: what to do about one that is missing or not sound.

    Raises:
        InputError: unsigned; over other bytes; by a key that is not known, or was revoked; twice by one key; or forged:
            it names a trusted key, whose signature it is not.
    """
    if envelope is None:
        raise InputError(where, "missing: the record is not signed", expected="its signature", fix=fix)
    opened = open_envelope(envelope, where=where)
    if (opened.payload_type, opened.payload) != (payload_type, payload):
        raise InputError(
            where,
            f"it signs other bytes (sha256 {sha256_bytes(opened.payload)})",
            expected=f"a signature over sha256 {sha256_bytes(payload)}",
            fix=fix,
        )
    found = [
        keyid
        for signature in opened.signatures
        for keyid in signers(replace(opened, signatures=(signature,)), keyring.public)
    ]
    if not found or len(found) < len(opened.signatures):
        raise _untrusted(opened, found, keyring, where, fix)
    if len(set(found)) < len(found):
        raise InputError(
            where, f"signed {len(found)} times, twice by one key", expected="one signature of each", fix=fix
        )
    return found


def _untrusted(envelope: Envelope, trusted: list[str], keyring: Keyring, where: Path | str, fix: str) -> InputError:
    """Return what is wrong with the signatures besides the trusted ones."""
    named = list(Counter(keyid for keyid, _ in envelope.signatures) - Counter(trusted))
    states = {keyid: keyring.state(keyid) for keyid in named}
    expected = f"the signature of a key trusted in {keyring.folder}"
    forged = [keyid for keyid, state in states.items() if state in ("valid", "retired")]
    if forged:
        return InputError(where, f"forged: it is not signed by key {forged[0]}, which it names", fix=fix)
    revoked = [keyid for keyid, state in states.items() if state == "revoked"]
    if revoked:
        return InputError(where, f"signed by key {revoked[0]}, which was revoked", expected=expected, fix=fix)
    known = ", ".join(keyring.public) or "none"
    return InputError(
        where,
        f"signed by key {', '.join(named) or 'none'}, which is not known here",
        expected=f"{expected} ({known})",
        fix=f"`graftline keys trust FILE.pem` if that key is yours, or {fix}",
    )
