"""Envelopes: what others' tools read too, and every byte of which counts."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib import dsse
from securesystemslib.signer import SSlibKey

from graftline.canonical import canonical_json
from graftline.errors import InputError
from graftline.signing.envelope import STATEMENT_TYPE, open_envelope, pae, seal, signers
from graftline.signing.keys import Signer, make_private, read_signer

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    (tmp_path / "key").write_bytes(make_private()[0])
    return read_signer(tmp_path / "key")


def test_securesystemslib_verifies_what_was_sealed(signer: Signer) -> None:
    sealed = seal(PAYLOAD, STATEMENT_TYPE, signer)
    key = SSlibKey.from_crypto(load_pem_public_key(signer.public.pem.encode()), keyid=signer.keyid)
    envelope = dsse.Envelope.from_dict(json.loads(sealed))
    assert envelope.verify([key], 1).keys() == {signer.keyid}
    assert envelope.pae() == pae(STATEMENT_TYPE, PAYLOAD)


def test_the_specifications_own_example_is_encoded_as_there() -> None:
    """https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md#test-vectors"""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_a_sealed_payload_names_its_signer(signer: Signer) -> None:
    envelope = open_envelope(seal(PAYLOAD, STATEMENT_TYPE, signer))
    assert (envelope.payload, envelope.payload_type) == (PAYLOAD, STATEMENT_TYPE)
    assert signers(envelope, {signer.keyid: signer.public}) == [signer.keyid]
    assert signers(envelope, {make_private()[1].keyid: make_private()[1]}) == []


def test_no_byte_of_an_envelope_can_change(signer: Signer) -> None:
    sealed, keys = seal(PAYLOAD, STATEMENT_TYPE, signer), {signer.keyid: signer.public}
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with contextlib.suppress(InputError):
            assert not signers(open_envelope(changed), keys), f"byte {place}"


@pytest.mark.parametrize(
    "change",
    [
        {"payload": 1}, {"payload": "not base64!"}, {"payload": "YQ"}, {"payload": "YR=="}, {"payloadType": 1},
        {"payloadType": None}, {"signatures": 1}, {"signatures": [1]}, {"signatures": [{}]}, {"more": 1},
        {"signatures": [{"keyid": 5, "sig": "YQ=="}]}, {"signatures": [{"keyid": ["x"], "sig": "YQ=="}]},
        {"signatures": [{"keyid": "x", "sig": "YQ==", "more": 1}]}, {"payloadType": "\ud800"},
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_refused(signer: Signer, change: dict[str, Any]) -> None:
    value = json.loads(seal(PAYLOAD, STATEMENT_TYPE, signer)) | change
    with pytest.raises(InputError, match="there: not"):
        open_envelope(json.dumps(value, separators=(",", ":"), sort_keys=True).encode(), where="there")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"payload":"","payload":""}'])
def test_bytes_that_are_no_envelope_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not a signature envelope"):
        open_envelope(data)


def test_a_form_of_the_same_envelope_that_is_not_canonical_is_refused(signer: Signer) -> None:
    sealed = seal(PAYLOAD, STATEMENT_TYPE, signer)
    assert canonical_json(json.loads(sealed)) == sealed
    for other in (sealed + b"\n", json.dumps(json.loads(sealed), indent=1).encode(), b" " + sealed):
        with pytest.raises(InputError, match="not in canonical form"):
            open_envelope(other)


def test_each_of_several_signatures_counts_by_itself(signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(make_private()[0])
    other = read_signer(tmp_path / "other")
    value = json.loads(seal(PAYLOAD, STATEMENT_TYPE, signer))
    forged = {"keyid": other.keyid, "sig": base64.b64encode(signer.sign(b"something else")).decode()}
    value["signatures"].append(forged)
    keys = {key.keyid: key.public for key in (signer, other)}
    assert signers(open_envelope(canonical_json(value)), keys) == [signer.keyid]
