"""Keys that stay elsewhere: a key management service or a hardware token, by securesystemslib's private key URIs.

    GRAFTLINE_KEY=awskms:alias/graftline GRAFTLINE_PUBLIC_KEY=/etc/graftline/key.pem graftline run mnist

The service's library (boto3, google-cloud-kms, ...) must be installed; boto3 is.
"""

from __future__ import annotations

import os
from pathlib import Path

from graftline.errors import GraftlineError, InputError
from graftline.signing.keys import PublicKey, Signer

SCHEMES = ("awskms", "gcpkms", "azurekms", "hsm", "file2")
"""Of securesystemslib those that sign with P-256."""


def is_address(value: str) -> bool:
    """Return whether $GRAFTLINE_KEY names a service's key and no file."""
    return value.partition(":")[0] in SCHEMES


def open_service(address: str) -> Signer:
    """Return what signs with the key at `address`, of which $GRAFTLINE_PUBLIC_KEY names the public one.

    Raises:
        InputError: the public key is missing, or the service refuses the address or does not answer.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import Signer as ServiceSigner  # type: ignore[attr-defined]
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    public = _public_key()
    known = SSlibKey.from_crypto(load_pem_public_key(public.pem.encode()), keyid=public.keyid)
    scheme = address.partition(":")[0]
    try:
        service = ServiceSigner.from_priv_key_uri(address, known)
    except Exception as error:  # noqa: BLE001  (each service's library raises its own)
        raise InputError(
            "GRAFTLINE_KEY",
            f"{scheme} does not give this key ({type(error).__name__}: {error})",
            expected="a private key's address that the service knows",
            fix="see docs/cluster.md",
        ) from None

    def sign(data: bytes) -> bytes:
        try:
            signature = bytes.fromhex(service.sign(data).signature)
        except Exception as error:  # noqa: BLE001
            raise GraftlineError(f"GRAFTLINE_KEY: {scheme} did not sign ({type(error).__name__}: {error})") from None
        if not public.verify(data, signature):
            raise InputError(
                "GRAFTLINE_KEY",
                f"what {scheme} signs is not signed by the key of GRAFTLINE_PUBLIC_KEY",
                expected=f"key {public.keyid}",
                fix="name the public key that belongs to it",
            )
        return signature

    return Signer(public, sign)


def _public_key() -> PublicKey:
    name = os.environ.get("GRAFTLINE_PUBLIC_KEY")
    if not name:
        raise InputError("GRAFTLINE_PUBLIC_KEY", "not set", expected="the PEM file of the public key of GRAFTLINE_KEY")
    try:
        pem = Path(name).read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise InputError(f"GRAFTLINE_PUBLIC_KEY ({name})", reason, expected="a PEM file") from None
    return PublicKey.from_pem(pem, where=f"GRAFTLINE_PUBLIC_KEY ({name})")
