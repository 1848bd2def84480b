"""Keys: a public one verifies, a signer signs. P-256 ECDSA with SHA-256 throughout."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graftline.digests import sha256_bytes
from graftline.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

State = Literal["valid", "retired", "revoked", "unknown"]


@dataclass(frozen=True)
class PublicKey:
    """One public key."""

    keyid: str
    """The sha256, in hex, of its DER SubjectPublicKeyInfo (RFC 5280)."""
    pem: str

    @classmethod
    def from_pem(cls, pem: str | bytes, *, where: object = "public key") -> PublicKey:
        """Return the key in one PEM block. Raises InputError if it is not a public P-256 key."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            found = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
        except (ValueError, UnsupportedAlgorithm):
            raise InputError(
                where, "no public key", expected="a P-256 public key in PEM, such as `graftline keys export` prints"
            ) from None
        return _public(found, where)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Return whether `signature` (DER) is this key's over `data`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            _loaded(self.pem).verify(signature, data, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """What signs here."""

    public: PublicKey
    sign: Callable[[bytes], bytes]
    """Return the DER signature over the bytes. Raises GraftlineError if a key management service does not answer."""

    @property
    def keyid(self) -> str:
        return self.public.keyid


def read_signer(path: Path, *, expected: str | None = None, where: str = "") -> Signer:
    """Return the signer of a private key file (PEM, not encrypted).

    Raises:
        InputError: the file cannot be read, or holds no private P-256 key, or another than `expected`.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    place = f"{where} ({path})" if where else str(path)
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InputError(
            place,
            (os.strerror(error.errno) if error.errno else str(error)).lower(),
            expected="a private key file that this user may read",
            fix="correct its place or its owner",
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(place, "no private key", expected="an unencrypted P-256 private key in PEM") from None
    if not isinstance(private, EllipticCurvePrivateKey):
        raise InputError(place, "a private key of another kind", expected="a P-256 private key")
    public = _public(private.public_key(), place)
    if expected is not None and public.keyid != expected:
        raise InputError(place, f"key {public.keyid}", expected=f"key {expected}", fix="restore the file")
    return Signer(public, _signing(private))


def make_private() -> tuple[bytes, PublicKey]:
    """Return a new private key (PEM, PKCS #8) and its public one."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, _public(private.public_key(), "new key")


def _signing(private: EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    return lambda data: private.sign(data, ECDSA(SHA256(), deterministic_signing=True))  # RFC 6979


def _public(key: object, where: object) -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise InputError(where, "a key of another kind", expected="a P-256 key")
    form = PublicFormat.SubjectPublicKeyInfo
    return PublicKey(sha256_bytes(key.public_bytes(Encoding.DER, form)), key.public_bytes(Encoding.PEM, form).decode())


@cache
def _loaded(pem: str) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(pem.encode())
    assert isinstance(key, EllipticCurvePublicKey)
    return key
