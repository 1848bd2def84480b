"""What a container needs to sign as this machine does: a folder to mount, never a value in its environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftline.rows.subjects import KEY_FILE, key_path
from graftline.signing.keyring import KEYRING, Keyring, keys_folder, load_keyring
from graftline.signing.services import is_address

_GIVEN, _PUBLIC = "given.key", "given.pem"


@contextmanager
def keys_for_mounting(folder: Path, mounted: str, *, user: int | None = None) -> Iterator[dict[str, str]]:
    """Make `folder` hold what signs and the subjects' key; give the environment that names them.

    It is gone when the block ends. A run that is killed leaves it; the next one replaces it.

    Args:
        folder: a new folder, for its owner only.
        mounted: where containers will see it.
        user: who the containers run as, if that is not this user.

    Raises:
        InputError: there is no key to sign with.
    """
    keyring = load_keyring()
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    try:
        environment = _fill(folder, mounted, keyring)
        if user is not None:
            for path in [folder, *folder.iterdir()]:
                os.chown(path, user, user)
        yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, mounted: str, keyring: Keyring) -> dict[str, str]:
    environment = {"GRAFTLINE_KEYS": mounted}
    if keyring.known:
        _write(folder / KEYRING, (keys_folder() / KEYRING).read_bytes())
    if key_path().is_file():  # validate hashes persons' ids with it
        _write(folder / KEY_FILE, key_path().read_bytes())
    given = os.environ.get("GRAFTLINE_KEY", "")
    if given and is_address(given):
        _write(folder / _PUBLIC, keyring.signer().public.pem.encode())
        return environment | {"GRAFTLINE_KEY": given, "GRAFTLINE_PUBLIC_KEY": f"{mounted}/{_PUBLIC}"}
    if given:
        _write(folder / _GIVEN, Path(given).read_bytes())
        return environment | {"GRAFTLINE_KEY": f"{mounted}/{_GIVEN}"}
    name = f"{keyring.signer().keyid}.key"
    _write(folder / name, (keys_folder() / name).read_bytes())
    return environment


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
