"""The signature over a release's files as an OpenSSF Model Signing v1.0 bundle, for the public `model_signing` command.

    model_signing verify key RELEASE_FOLDER --signature RELEASE_FOLDER/model.sig --public_key KEY.pem

A Sigstore bundle v0.3 with a DSSE envelope of an in-toto Statement that lists each file's sha256. Written here and not
by the library, which brings 30 MB of packages into the image. Format: https://github.com/ossf/model-signing-spec and
https://github.com/sigstore/protobuf-specs (sigstore_bundle.proto).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import FileDigest, sha256_bytes
from graftline.errors import InputError
from graftline.signing.envelope import STATEMENT_TYPE, Envelope, open_envelope, pae, signers
from graftline.signing.keys import PublicKey, Signer

MODEL_SIGNATURE = "model.sig"
IGNORED = ("claim.json", "manifest.json", MODEL_SIGNATURE)
"""Files of a release that are not signed: who began to publish, the list of all files, and the signature itself."""
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PREDICATE = "https://model_signing/signature/v1.0"


def sign_model(name: str, files: list[FileDigest], signer: Signer) -> bytes:
    """Return the bundle over `files`, by the path of each in the release."""
    payload = canonical_json(_statement(name, files))
    envelope = Envelope(payload, STATEMENT_TYPE, ((signer.keyid, signer.sign(pae(STATEMENT_TYPE, payload))),))
    return canonical_json(_bundle(envelope, signer.public))


def model_signers(
    data: bytes, name: str, files: list[FileDigest], keys: Mapping[str, PublicKey], *, where: object = MODEL_SIGNATURE
) -> list[str]:
    """Return the ids of those of `keys` that signed the bundle in `data`; none if its signature is of no such key.

    Raises:
        InputError: it is no bundle as it was written, or it signs other files than `files`.
    """
    try:
        envelope = open_envelope(canonical_json(json.loads(data)["dsseEnvelope"]), where=where)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(where, f"no model signature ({error!r})", expected="an OpenSSF bundle") from None
    if (envelope.payload_type, envelope.payload) != (STATEMENT_TYPE, canonical_json(_statement(name, files))):
        raise InputError(where, "it signs other files", expected=f"the files of {name} as they are")
    found = signers(envelope, keys)
    if found and not any(data == canonical_json(_bundle(envelope, keys[keyid])) for keyid in found):
        raise InputError(where, "not as it was written", expected="an OpenSSF bundle in canonical form")
    return found


def _statement(name: str, files: list[FileDigest]) -> dict[str, Any]:
    """Return the Statement; its subject's digest is the sha256 over the files' digests in the order of their paths."""
    ordered = sorted(files, key=lambda file: PurePosixPath(file.path))
    root = sha256(b"".join(bytes.fromhex(file.sha256) for file in ordered)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(IGNORED),
            },
            "resources": [{"name": file.path, "algorithm": "sha256", "digest": file.sha256} for file in ordered],
        },
    }


def _bundle(envelope: Envelope, public: PublicKey) -> dict[str, Any]:
    return {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {
            # the verifier looks for the PEM's sha256, not for the key id
            "publicKey": {"hint": sha256_bytes(public.pem.encode())},
            "tlogEntries": [],
        },
        "dsseEnvelope": envelope.as_dict(),
    }
