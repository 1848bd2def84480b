"""Keys: made on first use, once, for their owner only; retired, revoked, trusted; mounted or in a service."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from servers import moto_server

from graftline.digests import sha256_bytes
from graftline.errors import GraftlineError, InputError
from graftline.signing import keyring as stored
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import make_private

FIRST_USE = "from graftline.signing.keyring import load_keyring; print(load_keyring().signer().keyid)"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_the_first_use_makes_a_key_for_its_owner_only(folder: Path) -> None:
    assert not load_keyring(create=False).public
    assert not folder.exists()
    signer = load_keyring().signer()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / f"{signer.keyid}.key").stat().st_mode) == 0o600
    assert load_keyring().signer().keyid == signer.keyid, "the second use makes no other"
    public = signer.public.pem.encode()  # the id is the digest of the key's DER form, as any tool computes it
    done = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=public, capture_output=True, check=True
    )
    assert sha256_bytes(done.stdout) == signer.keyid
    signature = signer.sign(b"data")
    assert signer.public.verify(b"data", signature)
    assert not signer.public.verify(b"datb", signature)
    assert not signer.public.verify(b"data", signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not signer.public.verify(b"data", b"")


def test_processes_that_start_at_once_make_one_key(folder: Path) -> None:
    started = [forked.Popen([sys.executable, "-c", FIRST_USE], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert len(list(folder.glob("*.key"))) == 1


def test_a_rotated_key_still_verifies_and_signs_no_more(folder: Path) -> None:
    old = load_keyring().signer()
    signature = old.sign(b"an old record")
    retired, new = stored.rotate(folder)
    keyring = load_keyring()
    assert [public.keyid for public in retired] == [old.keyid]
    assert keyring.signer().keyid == new.keyid != old.keyid
    assert (keyring.state(old.keyid), keyring.state(new.keyid)) == ("retired", "valid")
    assert keyring.public[old.keyid].verify(b"an old record", signature)
    known = keyring.known[old.keyid]
    assert known.retired is not None
    assert known.created <= known.retired
    assert known.revoked is None


def test_a_revoked_key_is_not_trusted_and_does_not_come_back(folder: Path) -> None:
    old = load_keyring().signer()
    stored.rotate(folder)
    stored.revoke(folder, old.keyid)
    keyring = load_keyring()
    assert old.keyid not in keyring.public
    assert keyring.state(old.keyid) == "revoked"
    with pytest.raises(InputError, match=f"key {old.keyid}: it was revoked at .*; trust its owner's new key"):
        keyring.add_trusted(old.public.pem)


def test_anothers_key_is_trusted_and_never_signs(folder: Path) -> None:
    _, another = make_private()
    load_keyring().add_trusted(another.pem)
    keyring = load_keyring()
    assert keyring.public.keys() == {keyring.signer().keyid, another.keyid}
    assert keyring.signer().keyid != another.keyid
    assert not keyring.known[another.keyid].own


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\xff\x00",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        make_private()[0],
        public_pem(rsa.generate_private_key(65537, 1024)),
        public_pem(ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["empty", "bytes", "no key", "private", "RSA", "P-384"],
)
def test_what_is_no_public_p256_key_is_not_trusted(folder: Path, pem: bytes) -> None:
    with pytest.raises(InputError, match=r"their.pem: .*expected a P-256"):
        load_keyring().add_trusted(pem, where="their.pem")
    assert len(load_keyring().public) == 1


def test_where_no_key_can_be_made_one_line_says_so(folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("")
    with pytest.raises(InputError, match=r"keys: .*; expected the folder of the signing keys; set GRAFTLINE_KEYS to"):
        load_keyring()


@pytest.mark.root
def test_a_read_only_file_system_without_a_key_says_so(
    folder: Path, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(mount / "keys"))
    with pytest.raises(InputError, match=r"no signing key, and none can be made: read-only file system"):
        load_keyring()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_mounted_keyring_is_read_where_nothing_can_be_written(folder: Path, tmp_path: Path) -> None:
    """As Kubernetes mounts a secret: links to files, a folder that another user owns."""
    signer = load_keyring().signer()
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for path in folder.iterdir():
        (mounted / path.name).symlink_to(path)
    mounted.chmod(0o500)
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE],
        env=os.environ | {"GRAFTLINE_KEYS": str(mounted)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == signer.keyid


def test_a_damaged_keyring_is_refused(folder: Path) -> None:
    load_keyring()
    path = folder / "keyring.json"
    value = json.loads(path.read_bytes())
    for damage in (
        b"{}",
        b"[]",
        b"{",
        json.dumps(value | {"format": "another"}).encode(),
        json.dumps(value | {"keys": [value["keys"][0] | {"keyid": "0" * 64}]}).encode(),
        json.dumps(value | {"keys": [value["keys"][0] | {"own": "yes"}]}).encode(),
        json.dumps(value | {"keys": [value["keys"][0] | {"retired": "then"}]}).encode(),
    ):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"keyring\.json: not"):
            load_keyring()


def test_a_private_key_that_is_another_or_gone_is_named(folder: Path) -> None:
    keyid = load_keyring().signer().keyid
    (folder / f"{keyid}.key").write_bytes(make_private()[0])
    with pytest.raises(InputError, match=f"{keyid}.key: key .*; expected key {keyid}"):
        load_keyring().signer()
    (folder / f"{keyid}.key").unlink()
    with pytest.raises(InputError, match=f"{keyid}.key: no such file or directory"):
        load_keyring().signer()


def test_graftline_key_names_a_mounted_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = load_keyring().signer()
    pem, public = make_private()
    (tmp_path / "mounted.pem").write_bytes(pem)
    monkeypatch.setenv("GRAFTLINE_KEY", str(tmp_path / "mounted.pem"))
    keyring = load_keyring()
    assert keyring.signer().keyid == public.keyid
    assert keyring.public.keys() == {public.keyid, own.keyid}
    (tmp_path / "mounted.pem").write_bytes(private_pem(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(InputError, match=r"GRAFTLINE_KEY .*a private key of another kind; expected a P-256"):
        load_keyring()
    (tmp_path / "mounted.pem").unlink()
    with pytest.raises(InputError, match=r"GRAFTLINE_KEY .*no such file"):
        load_keyring()


def test_graftline_key_needs_no_folder_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", "/proc/none/keys")
    (tmp_path / "mounted.pem").write_bytes(make_private()[0])
    monkeypatch.setenv("GRAFTLINE_KEY", str(tmp_path / "mounted.pem"))
    assert load_keyring().signer().sign(b"data")


def test_a_private_key_uri_signs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By securesystemslib's own signer of files, which stands for the services: they differ in the address only."""
    pem, public = make_private()
    (tmp_path / "private.pem").write_bytes(pem)
    monkeypatch.setenv("GRAFTLINE_KEY", f"file2:{tmp_path}/private.pem")
    with pytest.raises(InputError, match=r"GRAFTLINE_PUBLIC_KEY: not set"):
        load_keyring()
    (tmp_path / "public.pem").write_text(public.pem)
    monkeypatch.setenv("GRAFTLINE_PUBLIC_KEY", str(tmp_path / "public.pem"))
    signer = load_keyring().signer()
    assert signer.keyid == public.keyid
    assert public.verify(b"data", signer.sign(b"data"))
    assert not folder.exists(), "no local key is made"
    (tmp_path / "public.pem").write_text(make_private()[1].pem)
    with pytest.raises(InputError, match=r"GRAFTLINE_KEY: .*file2"):
        load_keyring().signer().sign(b"data")


def test_a_service_that_has_no_such_key_is_named(
    folder: Path, tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS KMS as moto serves it. Its signatures hash a digest once more, so that none of them is tested here.

    `moto_url` has the credentials.
    """
    (tmp_path / "public.pem").write_text(make_private()[1].pem)
    monkeypatch.setenv("GRAFTLINE_PUBLIC_KEY", str(tmp_path / "public.pem"))
    monkeypatch.setenv("GRAFTLINE_KEY", "awskms:none")
    with moto_server("kms") as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(GraftlineError, match=r"GRAFTLINE_KEY: awskms did not sign .*none"):
            load_keyring().signer().sign(b"data")
