"""Where each page is, relative to the root of the site: the same when it is served and when it is exported.

A name that could not stand in a path as it is has no page: it is shown as text, without a link.
"""

from __future__ import annotations

import re

_TASK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_REFERENCE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_-]{0,99})@([1-9][0-9]{0,14})")


def task_page(task: str) -> str | None:
    return f"task/{task}.html" if _TASK.fullmatch(task) else None


def release_page(task: str, version: int) -> str | None:
    return f"release/{task}/{version}.html" if _TASK.fullmatch(task) else None


def record_page(sha256: str) -> str | None:
    return f"record/{sha256}.html" if _SHA256.fullmatch(sha256) else None


def graph_page(task: str, version: int | None = None) -> str | None:
    if not _TASK.fullmatch(task):
        return None
    return f"graph/{task}.html" if version is None else f"graph/{task}/{version}.html"


def impact_page(digest: str) -> str | None:
    """`digest`: of a file, an output, an image or a lock, or a commit; or its beginning."""
    return f"impact/{digest}.html" if _DIGEST.fullmatch(digest) else None


def diff_page(a: str, b: str) -> str | None:
    """`a` and `b`: task@version."""
    named = _REFERENCE.fullmatch(a) and _REFERENCE.fullmatch(b)
    return f"diff/{a}..{b}.html" if named else None


def file_page(task: str, version: int, name: str) -> str | None:
    """A file of a release as it is stored."""
    named = _TASK.fullmatch(task) and _FILE.fullmatch(name)
    return f"files/{task}/{version}/{name}" if named else None


def ledger_page(number: int) -> str:
    """The newest entries are on page 1, which has the short name."""
    return "ledger.html" if number == 1 else f"ledger/{number}.html"


def root_of(path: str) -> str:
    """Return the way from a page back to the root: `../` for each folder that it is in."""
    return "../" * path.count("/")
