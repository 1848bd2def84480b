"""Keys and manifests of releases: what the catalogue reads and publishing writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from graftline.digests import FileDigest, digest_files, sha256_bytes
from graftline.errors import InputError
from graftline.signing.model import MODEL_SIGNATURE
from graftline.store import Store, check_key

CLAIM, MANIFEST, RECORDS = "claim.json", "manifest.json", "records/"
CHAMPION = "champion"
"""The alias that a name without one means."""
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
VERSION_KEY = re.compile(r"releases/([^/]+)/([1-9][0-9]*)/(claim|manifest)\.json")
_NUMBER = re.compile(r"[0-9]{1,15}")
_TASK = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_reference(reference: str) -> tuple[str, int | str]:
    """Return task and version, or task and alias, of `task@version`, `task@alias` or `task`. Raises InputError."""
    task, at, selector = reference.partition("@")
    check_task(task)
    selector = selector if at else CHAMPION
    if _NUMBER.fullmatch(selector):
        return task, int(selector)
    if not ALIAS.fullmatch(selector):
        raise InputError(f"release '{reference}'", f"'{selector}'", expected="task@version or task@alias")
    return task, selector


def release_key(task: str, version: int) -> str:
    return f"releases/{task}/{version}"


def check_task(task: str) -> None:
    if not _TASK.fullmatch(task):
        raise InputError("task", f"{task!r}", expected="a name of lower-case letters, digits, '-' and '_'")


def check_alias(alias: str) -> None:
    if not ALIAS.fullmatch(alias):
        raise InputError("alias", f"{alias!r}", expected="a lower-case letter, then letters, digits, '-' and '_'")


def read_object(store: Store, key: str) -> dict[str, Any]:
    data = store.get(key).data
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{store.url}/{key}", "not a JSON object", fix="the store was changed by hand")
    return value


def read_manifest(store: Store, task: str, version: int, *, expected: str | None = None) -> dict[str, Any]:
    """Return a manifest whose own parts agree. Raises MissingError, InputError."""
    key = f"{release_key(task, version)}/{MANIFEST}"
    where, data = f"{store.url}/{key}", store.get(key).data
    if expected is not None and sha256_bytes(data) != expected:
        raise InputError(
            where, f"sha256 {sha256_bytes(data)}", expected=expected, fix="the release was changed: roll back"
        )
    try:
        manifest = json.loads(data)
        files = manifest_files(manifest)
        whole = (manifest["task"], manifest["version"]) == (task, version) and isinstance(manifest["created"], str)
        content = digest_files([file for file in files if is_content(file.path)])
        whole = whole and isinstance(manifest["publication"], str) and manifest["content"] == content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(where, f"not a manifest ({error!r})", fix="the release was changed: roll back") from None
    if not whole:
        raise InputError(where, "it contradicts itself", expected=f"the manifest of {task}@{version}", fix="roll back")
    checked: dict[str, Any] = manifest
    return checked


def is_content(path: str) -> bool:
    """Return whether a file of a release is part of its content digest: who made and who signed it are not."""
    return not path.startswith(RECORDS) and path != MODEL_SIGNATURE


def manifest_files(manifest: Mapping[str, Any]) -> list[FileDigest]:
    files = [FileDigest(**file) for file in manifest["files"]]
    for file in files:
        check_key(file.path)
        if not isinstance(file.size, int) or not _SHA256.fullmatch(file.sha256):
            raise ValueError(f"{file.path}: size {file.size!r}, sha256 {file.sha256!r}")
    return files
