"""The pages of a store by address: what the server answers with and what the export writes are the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from graftline.errors import GraftlineError, InputError
from graftline.lineage.run import seconds, told
from graftline.records.model import flat
from graftline.releases.layout import manifest_files
from graftline.ui import addresses, compare, graph, history, impact, models, record, release, stored, values, verdicts
from graftline.ui.card import spans
from graftline.ui.views import Ask, File, NoPageError, View

if TYPE_CHECKING:
    from graftline.audit.verify.verifying import Verdict
    from graftline.index.queries import Index
    from graftline.index.rows import IndexedRelease
    from graftline.store import Store

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""What a page may load and run: this site's own files, no inline script or style, no markup made by a script."""
FRAME_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; sandbox"
"""For the report of a run in its frame: its own styles and pictures, nothing else, and nothing runs."""
ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "page.js": "text/javascript; charset=utf-8",
    "graph-model.js": "text/javascript; charset=utf-8",
    "graph-layout.js": "text/javascript; charset=utf-8",
    "graph-search.js": "text/javascript; charset=utf-8",
    "graph.js": "text/javascript; charset=utf-8",
}
_T, _V, _H = r"([A-Za-z0-9_][A-Za-z0-9_-]{0,99})", r"([1-9][0-9]{0,14})", r"([0-9a-f]{64})"


@dataclass(frozen=True)
class Answer:
    """What is under an address."""

    data: bytes
    media_type: str
    status: int = 200
    policy: str = POLICY
    location: str | None = None
    """Where to go instead, relative to the root."""


@dataclass(frozen=True)
class Site:
    """The site of one store."""

    store: Store
    open_index: Callable[[], Index]
    folders: Sequence[Path] = ()
    repository: Path = Path()
    served: bool = True
    newest: int = 200
    verdict: Verdict | None = None
    written: frozenset[str] | None = None
    """The pages of an export: a link to any other is shown as text. None: every page is there."""

    def answer(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Return what is at `path`, relative to the root and without a leading slash. Never raises GraftlineError."""
        asset = path.removeprefix("static/")
        if path.startswith("static/") and asset in ASSETS:
            return Answer(asset_bytes(asset), ASSETS[asset])
        try:
            with self.open_index() as index:
                return self.answer_from(index, path or "index.html", query or {})
        except GraftlineError as error:  # the index itself
            return self._trouble(path, "This page cannot be shown", str(error), 502)

    def answer_from(self, index: Index, path: str, query: Mapping[str, str]) -> Answer:
        """Return the page at `path` by an index that is open. Never raises GraftlineError."""
        ask = self.ask(index, query)
        try:
            if self.served and query and (elsewhere := _asked_for(ask, path)):
                return Answer(b"", "text/plain", 303, location=elsewhere)
            found = self._find(ask, path)
        except NoPageError as error:
            return self._trouble(path, "There is no such page", str(error), 404, self._head(index))
        except GraftlineError as error:
            status = 400 if isinstance(error, InputError) else 502
            return self._trouble(path, "This page cannot be shown", str(error), status, self._head(index))
        if isinstance(found, File):
            return Answer(found.data, found.media_type, policy=FRAME_POLICY if found.framed else POLICY)
        return Answer(self._render(path, found, self._head(index)), "text/html; charset=utf-8")

    def ask(self, index: Index, query: Mapping[str, str]) -> Ask:
        return Ask(index, self.store, self.folders, self.repository, query, self.verdict, self.served, self.newest)

    def _find(self, ask: Ask, path: str) -> View | File:
        for pattern, view in _ROUTES:
            if match := re.fullmatch(pattern, path):
                return view(ask, *match.groups())
        raise NoPageError("nothing is at this address")

    def _head(self, index: Index) -> dict[str, Any]:
        """Return what the head of every page says of the store."""
        last = index.history(newest=1)
        return {"last": last[0] if last else None}

    def _trouble(self, path: str, title: str, message: str, status: int, head: dict[str, Any] | None = None) -> Answer:
        view = View("message.html.j2", title, "", values={"message": message})
        data = self._render(path, view, head or {"last": None})
        return Answer(data, "text/html; charset=utf-8", status)

    def _render(self, path: str, view: View, head: dict[str, Any]) -> bytes:
        root = addresses.root_of(path)
        page = _templates().get_template(view.template).render(
            **view.values, page=view, head=head, policy=POLICY, served=self.served, store_url=self.store.url,
            root=root, to=lambda address: root + address if self._has(address) else None,
        )  # fmt: skip
        return page.encode()

    def _has(self, address: str | None) -> bool:
        return bool(address) and (self.written is None or address in self.written)


@cache
def _templates() -> Environment:
    """Return the templates, compiled once a process."""
    environment = Environment(
        loader=PackageLoader("graftline.ui", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for module in (addresses, values):
        environment.globals.update(
            {name: item for name, item in vars(module).items() if not name.startswith("_") and callable(item)}
        )
    environment.globals |= {"spans": spans, "interval": models.interval, "seconds": seconds, "told": told, "flat": flat}
    return environment


def asset_bytes(name: str) -> bytes:
    return resources.files("graftline.ui").joinpath("static", name).read_bytes()


def _asked_for(ask: Ask, path: str) -> str | None:
    """Return the page of what a form asks for, if it has one of its own."""
    forms = {"compare.html": compare.pair_asked_for, "impact.html": impact.digest_asked_for}
    return forms[path](ask) if path in forms else None


_ROUTES: list[tuple[str, Callable[..., View | File]]] = [
    (r"index\.html", models.models),
    (rf"task/{_T}\.html", models.task),
    (rf"release/{_T}/{_V}\.html", lambda ask, task, n: release.release(ask, task, int(n))),
    (rf"record/{_H}\.html", record.record),
    (r"graph\.html", graph.all_graph),
    (rf"graph/{_T}\.html", graph.task_graph),
    (rf"graph/{_T}/{_V}\.html", lambda ask, task, n: graph.release_graph(ask, task, int(n))),
    (r"compare\.html", compare.compare),
    (rf"diff/{_T}@{_V}\.\.{_T}@{_V}\.html", lambda ask, a, m, b, n: compare.difference(ask, (a, int(m)), (b, int(n)))),
    (r"impact\.html", impact.search),
    (r"impact/([0-9a-f]{8,64})\.html", impact.reached),
    (r"ledger\.html", history.ledger),
    (r"verify\.html", verdicts.whole_store),
    (rf"ledger/{_V}\.html", lambda ask, n: history.ledger(ask, int(n))),
    (
        rf"files/{_T}/{_V}/([A-Za-z0-9_][A-Za-z0-9._-]{{0,199}})",
        lambda ask, task, n, name: stored.release_file(ask, task, int(n), name),
    ),
]


def pages(ask: Ask) -> Iterator[str]:
    """Yield the address of every page and file of an export."""
    yield from ("index.html", "graph.html", "compare.html", "impact.html", "verify.html")
    yield from map(addresses.ledger_page, range(1, history.page_count(ask) + 1))
    records: dict[str, None] = {}
    for task in ask.index.tasks():
        releases = ask.index.releases(task, limit=ask.newest)
        for found in releases:
            yield from _pages_of_release(ask, found)
            records |= dict.fromkeys(step.sha256 for step in ask.index.ancestors(found.records.values()))
        if releases:
            yield from filter(None, (addresses.task_page(task), addresses.graph_page(task)))
    yield from filter(None, map(addresses.record_page, records))
    for a, b in compare.pairs(ask):
        yield from filter(None, [addresses.diff_page(a.reference, b.reference)])
    for point in impact.points(ask):
        yield from filter(None, [addresses.impact_page(point.digest)])


def _pages_of_release(ask: Ask, found: IndexedRelease) -> Iterator[str]:
    task, version = found.task, found.version
    yield from filter(None, (addresses.release_page(task, version), addresses.graph_page(task, version)))
    try:
        files = stored.pictures(manifest_files(stored.manifest_of(ask.store, found)))
    except GraftlineError:
        files = []  # the release's page says so
    if stored.find_report(ask, found):
        files.append(stored.REPORT)
    yield from filter(None, (addresses.file_page(task, version, name) for name in files))
