"""What the index takes from the objects of a store. Anything may be in them: what is not as expected is refused."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import orjson

from graftline.records.model import UNKNOWN_CHANGES, NotARecordError, take_apart

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_RUN = re.compile(r"(?P<run>.+)-[0-9a-f]{16}")
_PATH, _DIGEST, _SIZE = itemgetter("path"), itemgetter("sha256"), itemgetter("size")
MAX_OBJECT = 64 << 20
"""The most bytes of one record or manifest that the index parses."""

Listing = tuple[tuple[str, ...], bytes, bytes]
"""The names of files, their sha256 one after another, their sizes of 8 bytes one after another."""
NO_FILES: Listing = ((), b"", b"")


class RefusedError(Exception):
    """The object is not what its place says; the message says why."""


ParsedInput = tuple[str, str, str | None, bytes | None, Listing | None]
"""Name, sha256 of the content, record of what made it, annotations as JSON, files."""
Setting = tuple[str | None, str | None, str | None, str | None, bytes]
"""Commit, sha256 of the dirty difference, lock, image, environment as JSON."""
ParsedRecord = tuple[tuple[str, str, str], str, Setting, bytes, bytes, list[ParsedInput], Listing]
"""Kind (component, task, name of the output), sha256 of the content, setting, parameters and metrics as JSON, inputs,
files. A tuple, and digests that only `check_sha256` will look at: there may be a million."""


def parse_record(data: bytes) -> ParsedRecord:
    """Return what the index keeps of a record. Raises RefusedError."""
    try:
        parts = take_apart(_json(data))
        return (
            (parts.component, parts.task, parts.name),
            parts.content,
            (parts.commit, parts.dirty, parts.lock, parts.image, _mapping(parts.environment)),
            _mapping(parts.parameters),
            _mapping(parts.metrics),
            [_input(*given) for given in parts.inputs],
            _listing(parts.files),
        )
    except NotARecordError as error:
        raise RefusedError(str(error)) from None
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
        raise RefusedError(f"not a record ({type(error).__name__}: {str(error)[:80]})") from None


def _input(name: str, content: str, record: str | None, annotations: dict[str, Any] | None) -> ParsedInput:
    if not annotations:
        return name, content, record, None, None
    files = annotations.pop("files", None)
    rest = orjson.dumps(annotations) if annotations else None
    return name, content, record, rest, None if files is None else _listing(files)


def check_record(record: ParsedRecord) -> None:
    """Raises RefusedError for a name or digest that is none; the index's writer checks each when it is new to it."""
    kind, content, setting, _, _, inputs, (names, _, _) = record
    for text in (
        *kind,
        *names,
        *(item[0] for item in inputs),
        *(n for item in inputs for n in (item[4] or NO_FILES)[0]),
    ):
        check_text(text)
    for digest in (content, *(item[1] for item in inputs), *(item[2] for item in inputs if item[2] is not None)):
        check_sha256(digest)
    check_setting(setting)


def check_setting(setting: Setting) -> None:
    """Raises RefusedError for a commit or digest that is none."""
    commit, dirty, lock, image, _ = setting
    if commit is not None and (type(commit) is not str or _COMMIT.fullmatch(commit) is None):
        raise RefusedError("a commit that is not hexadecimal")
    for digest in (None if dirty == UNKNOWN_CHANGES else dirty, lock, image):
        if digest is not None:
            check_sha256(digest)


@dataclass(slots=True)
class ParsedRelease:
    task: str
    version: int
    content: str
    created: str
    publication: str
    metrics: bytes
    records: dict[str, str]
    files: Listing


def parse_manifest(data: bytes, task: str, version: int) -> ParsedRelease:
    """Return what the index keeps of a release's manifest. Raises RefusedError."""
    value = _json(data)
    try:
        if value["task"] != task or value["version"] != version or type(value["version"]) is not int:
            raise RefusedError("the manifest of another release")
        records = dict(value["records"])
        for name, sha256 in records.items():
            check_text(name)
            check_sha256(sha256)
        return ParsedRelease(
            task,
            version,
            check_sha256(value["content"]),
            check_text(value["created"]),
            check_text(value["publication"]),
            _mapping(value["metrics"]),
            records,
            _listing([file for file in value["files"] if not file["path"].startswith("records/")]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RefusedError(f"not a manifest ({type(error).__name__}: {str(error)[:80]})") from None


ParsedEntry = tuple[int, str, str, int, str | None, str, str, str | None]
"""Sequence, event, task, version, alias, time, actor, key id."""


def parse_entry(data: bytes, sequence: int) -> ParsedEntry:
    """Return what the index keeps of a ledger entry. Raises RefusedError."""
    value = _json(data)
    try:
        if value["sequence"] != sequence:
            raise RefusedError(f"says that it is entry {str(value['sequence'])[:20]}")
        version, alias, key = value["version"], value["alias"], value.get("key")
        if type(version) is not int or not 0 <= version < 2**53:
            raise RefusedError("a version that is no number")
        return (
            sequence,
            check_text(value["event"]),
            check_text(value["task"]),
            version,
            None if alias is None else check_text(alias),
            check_text(value["at"]),
            check_text(value["actor"]),
            None if key is None else check_text(key),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(f"not a ledger entry ({type(error).__name__}: {str(error)[:80]})") from None


def run_id(publication: str) -> str | None:
    """Return the id of the run that a publication id was made from (releases.publishing.open_publication)."""
    match = _RUN.fullmatch(publication)
    return match["run"] if match else None


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def _json(data: bytes) -> Any:
    """Parse JSON. orjson takes less than half the time of Python's own, and refuses lone surrogates."""
    if len(data) > MAX_OBJECT:
        raise RefusedError(f"{len(data)} bytes, at most {MAX_OBJECT} are parsed")
    try:
        value = orjson.loads(data)
    except ValueError as error:
        raise RefusedError(f"not JSON ({str(error)[:80]})") from None
    if type(value) is not dict:
        raise RefusedError("not a JSON object")
    return value


def check_sha256(text: Any) -> str:
    """Return `text`. Raises RefusedError if it is no sha256 in hex."""
    if type(text) is not str or _SHA256.fullmatch(text) is None:
        raise RefusedError("a digest that is not a sha256")
    return text


def check_text(value: Any) -> str:
    """Return `value`. Raises RefusedError if it is no string."""
    if type(value) is not str:
        raise RefusedError(f"a {type(value).__name__} where a string is expected")
    return value


def _mapping(value: Any) -> bytes:
    if type(value) is not dict:
        raise RefusedError(f"a {type(value).__name__} where a mapping is expected")
    return orjson.dumps(value)


def _listing(files: Any) -> Listing:
    paths, digests = tuple(map(_PATH, files)), list(map(_DIGEST, files))
    sizes = array("Q", map(_SIZE, files))
    packed = bytes.fromhex("".join(digests))  # takes blanks: hence the lengths
    if len(packed) != 32 * len(paths) or set(map(len, digests)) - {64}:
        raise RefusedError("a file's digest that is not a sha256")
    return paths, packed, sizes.tobytes()
