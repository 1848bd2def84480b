"""The page of a record: what one step was given, what it made, and what was made of that."""

from __future__ import annotations

import json

from graftline.digests import sha256_bytes
from graftline.errors import GraftlineError
from graftline.records.model import flat
from graftline.ui.addresses import graph_page, record_page
from graftline.ui.views import Ask, NoPageError, View

_ROWS = 500
"""Files, and later steps, that are listed; more are counted."""
_LARGEST = 200_000
"""Characters of the record itself."""


def record(ask: Ask, sha256: str) -> View:
    found = ask.index.record(sha256)
    if found is None:
        raise NoPageError(f"no record {sha256}")
    later = ask.index.records(ask.index.dependents(found.content)[:_ROWS])
    releases = ask.index.releases_of([sha256])
    graph = graph_page(releases[0].task, releases[0].version) if releases else None
    values = {
        "record": found, "parameters": flat(found.parameters).items(), "metrics": flat(found.metrics).items(),
        "environment": flat(found.environment).items(), "files": found.files[:_ROWS], "file_count": len(found.files),
        "later": later, "releases": releases, "graph": graph, "text": _text(ask, sha256),
    }  # fmt: skip
    crumbs = [("Models", "index.html"), (found.task, None), (f"{found.name} {sha256[:12]}", record_page(sha256))]
    return View("record.html.j2", f"{found.name} of {found.task}", "models", crumbs, values)


def _text(ask: Ask, sha256: str) -> str:
    """Return the record as it is stored, with line breaks; or why it is not shown."""
    try:
        data = ask.store.get(f"records/{sha256}.json").data
    except GraftlineError as error:
        return str(error)
    if sha256_bytes(data) != sha256:
        return f"its bytes have sha256 {sha256_bytes(data)}: not shown"
    try:
        text = json.dumps(json.loads(data), indent=1, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "not JSON: not shown"
    return text if len(text) <= _LARGEST else f"{text[:_LARGEST]}… ({len(text)} characters)"
