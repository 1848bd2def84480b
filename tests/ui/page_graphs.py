"""A lineage of 1,000 nodes: what the index would say of years of retraining, as the graph page shows it."""

from __future__ import annotations

from pathlib import Path

from graftline.digests import sha256_bytes
from graftline.index.rows import IndexedRecord, IndexedRelease, Input
from graftline.store.opening import open_store
from graftline.ui.nodes import build
from graftline.ui.site import ASSETS, Site, asset_bytes
from graftline.ui.views import View

MADE_OF = {
    "dataset": (),
    "trunk": ("dataset",),
    "model": ("dataset", "trunk"),
    "evaluation": ("dataset", "trunk", "model"),
}
STEPS = {"dataset": "validate", "trunk": "pretrain", "model": "finetune", "evaluation": "evaluate"}


def digest(*parts: object) -> str:
    return sha256_bytes(repr(parts).encode())


def records(version: int) -> dict[str, IndexedRecord]:
    """Return the records of a version by output; a new data set comes every second time."""
    found: dict[str, IndexedRecord] = {}
    for name, made_of in MADE_OF.items():
        number = (version + 1) // 2 if name in ("dataset", "trunk") and version % 3 else version
        inputs = [Input(given, found[given].content, found[given].sha256) for given in made_of]
        if name == "dataset":
            inputs.append(Input("raw", digest("raw", number), None))
        if name == "evaluation" and version > 1:
            inputs.append(Input("champion", digest("release", version - 1), None))
        found[name] = IndexedRecord(
            digest(name, number), STEPS[name], "models", name, digest("content", name, number), "c" * 40, None, None,
            None, {}, {}, {}, tuple(inputs), (), True, None,
        )  # fmt: skip
    return found


def write_large_graph(folder: Path, versions: int) -> Path:
    """Write the page and what it loads, and return the page."""
    made = {version: records(version) for version in range(1, versions + 1)}
    releases = [
        IndexedRelease(
            "models", version, digest("manifest", version), digest("release", version), "2026-01-01T00:00:00Z", {},
            {name: record.sha256 for name, record in parts.items()}, (), "", None,
        )
        for version, parts in made.items()
    ]  # fmt: skip
    unique = {record.sha256: record for parts in made.values() for record in parts.values()}
    nodes = build(releases, unique.values())
    values = {
        "nodes": nodes,
        "left_out": 0,
        "focus": nodes[-1].id,
        "labels": {node.id: node.label for node in nodes},
        "back": None,
        "everything": True,
        "tasks": ["models"],
        "scope": "models",
    }
    site = Site(open_store(str(folder)), lambda: None)  # type: ignore[arg-type, return-value]
    (folder / "static").mkdir(parents=True)
    for name in ASSETS:
        (folder / "static" / name).write_bytes(asset_bytes(name))
    page = folder / "graph.html"
    page.write_bytes(
        site._render("graph.html", View("graph.html.j2", "Lineage", "graph", values=values), {"last": None})
    )
    return page
