"""Keys: which one signs here, and which ones are trusted. P-256 ECDSA with SHA-256 throughout.

The keyring is a folder, $GRAFTLINE_KEYS or ~/.config/graftline/keys: `keyring.json` says which keys there are and
since when, `<key id>.key` is a private one (mode 0600). The first use makes a key. $GRAFTLINE_KEY names another
private key instead: a mounted PEM file, or a key management service's address (see `signing.services`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graftline.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

    from graftline.signing.keyring import Known

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
                where,
                "no public key",
                expected="a P-256 public key in PEM, such as `graftline keys export` prints",
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
                    "GRAFTLINE_KEY", f"key {self.given.keyid}, which is {self.state(self.given.keyid)}",
                    expected="a valid key", fix="name another key",
                )  # fmt: skip
            return self.given
        own = [known for known in self.known.values() if known.own and known.state == "valid"]
        if not own:
            raise InputError(
                self.folder, "no key to sign with", expected="a private key that is neither retired nor revoked",
                fix="make one with `graftline keys rotate`, or name one by GRAFTLINE_KEY",
            )  # fmt: skip
        return self.own_signer(own[-1].public.keyid)

    def own_signer(self, keyid: str) -> Signer:
        """Return what signs with one's own key `keyid`, a retired one too: it hands over to its successor."""
        if self.given and self.given.keyid == keyid:
            return self.given
        return read_signer(self.folder / f"{keyid}.key", expected=keyid)

    def add_trusted(self, pem: str | bytes, *, where: object = "public key") -> PublicKey:
        """Trust another's public key from now on. Raises InputError: no key, or one that was revoked."""
        from graftline.signing import keyring

        return keyring.add_trusted(self.folder, PublicKey.from_pem(pem, where=where))


def load_keyring(*, create: bool = True) -> Keyring:
    """Return the keyring; with `create`, one that can sign: a key is made where there is none at all.

    Raises:
        InputError: the folder cannot be read, or written where a key must be made.
    """
    from graftline.signing import keyring

    folder = keys_folder()
    known, given = keyring.read_known(folder), _given()
    if create and not given and not any(key.own for key in known.values()):
        known = keyring.make_first(folder)
    return Keyring(folder, known, given)


def keys_folder() -> Path:
    """Return the keyring's folder: $GRAFTLINE_KEYS, or ~/.config/graftline/keys."""
    if given := os.environ.get("GRAFTLINE_KEYS"):
        return Path(given).absolute()
    try:
        return Path.home() / ".config" / "graftline" / "keys"
    except RuntimeError:  # a user id without a name, as in many containers
        raise InputError(
            "GRAFTLINE_KEYS", "not set, and this user has no home", expected="the folder of the signing keys",
            fix="mount the keys and set it (docs/cluster.md)",
        ) from None  # fmt: skip


def _given() -> Signer | None:
    value = os.environ.get("GRAFTLINE_KEY")
    if not value:
        return None
    from graftline.signing.services import is_address, open_service

    return open_service(value) if is_address(value) else read_signer(Path(value), where="GRAFTLINE_KEY")


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
            place, (os.strerror(error.errno) if error.errno else str(error)).lower(),
            expected="a private key file that this user may read", fix="correct its place or its owner",
        ) from None  # fmt: skip
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(
            place, "no private key", expected="an unencrypted P-256 private key in PEM"
        ) from None
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

    from graftline.digests import sha256_bytes

    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise InputError(where, "a key of another kind", expected="a P-256 key")
    form = PublicFormat.SubjectPublicKeyInfo
    return PublicKey(
        sha256_bytes(key.public_bytes(Encoding.DER, form)), key.public_bytes(Encoding.PEM, form).decode()
    )


@cache
def _loaded(pem: str) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(pem.encode())
    assert isinstance(key, EllipticCurvePublicKey)
    return key
