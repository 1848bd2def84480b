"""Content digests: sha256 of files and of whole folders. Never a sample, never a modification time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from graftline.canonical import canonical_json

# Written beside the content and left out of its digest: the record names the digest, so it cannot be in it;
# the execution (times, host) does not change what was made, and neither does who signed the record.
RECORD = "record.json"
ENVELOPE = "record.dsse.json"
EXECUTION = "execution.json"
BESIDE = (RECORD, ENVELOPE, EXECUTION)


@dataclass(frozen=True, order=True)
class FileDigest:
    """One file of a folder: its path relative to the folder (with /), its size in bytes, its sha256 in hex."""

    path: str
    size: int
    sha256: str

    def as_dict(self) -> dict[str, str | int]:
        return {"path": self.path, "size": self.size, "sha256": self.sha256}


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[FileDigest]:
    """Return the digest of each file below `folder`, sorted by path, without what is beside the content."""
    return sorted(
        FileDigest(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_file(path))
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in BESIDE
    )


def digest_files(files: list[FileDigest]) -> str:
    """Return the sha256 of the canonical JSON list of (path, size, sha256): the digest of a folder."""
    return sha256_bytes(canonical_json([file.as_dict() for file in sorted(files)]))


def digest_path(path: Path) -> str:
    """Return the digest of a file, or of a folder's files."""
    return digest_files(list_files(path)) if path.is_dir() else sha256_file(path)
