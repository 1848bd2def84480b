"""DSSE envelopes: bytes, their type and who signed both (https://github.com/secure-systems-lab/dsse, v1.0.2).

Written in canonical JSON and read in no other form, so that each byte of an envelope counts.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftline.canonical import canonical_json
from graftline.errors import InputError

if TYPE_CHECKING:
    from graftline.signing.keys import PublicKey, Signer

STATEMENT_TYPE = "application/vnd.in-toto+json"
"""The payload type of an in-toto Statement."""


@dataclass(frozen=True)
class Envelope:
    """What was signed, and the signatures as they stand in it: `signers` says which of them are valid."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]
    """Key id and signature of each."""

    @property
    def data(self) -> bytes:
        """The envelope as stored."""
        return canonical_json(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON value that the specification defines."""
        return {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": keyid, "sig": base64.b64encode(signature).decode()} for keyid, signature in self.signatures
            ],
        }


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the specification's pre-authentication encoding: the bytes that a signature is over."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, payload_type: str, signer: Signer) -> bytes:
    """Return the envelope, signed."""
    signature = signer.sign(pae(payload_type, payload))
    return Envelope(payload, payload_type, ((signer.keyid, signature),)).data


def open_envelope(data: bytes, *, where: object = "envelope") -> Envelope:
    """Return the envelope in `data`; no signature is checked.

    Raises:
        InputError: it is not one in canonical form.
    """
    try:
        value = json.loads(data)
        envelope = Envelope(
            base64.b64decode(value["payload"], validate=True),
            value["payloadType"],
            tuple((s["keyid"], base64.b64decode(s["sig"], validate=True)) for s in value["signatures"]),
        )
        texts = (envelope.payload_type, *(keyid for keyid, _ in envelope.signatures))
        whole = all(isinstance(text, str) for text in texts) and envelope.data == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise InputError(where, f"not a signature envelope ({error!r})", expected="DSSE in JSON") from None
    if not whole:
        raise InputError(where, "not in canonical form", expected="a DSSE envelope as it was written")
    return envelope


def signers(envelope: Envelope, keys: Mapping[str, PublicKey]) -> list[str]:
    """Return the ids of those of `keys` that signed the envelope, each once."""
    signed = pae(envelope.payload_type, envelope.payload)
    valid = [k for k, signature in envelope.signatures if k in keys and keys[k].verify(signed, signature)]
    return list(dict.fromkeys(valid))
