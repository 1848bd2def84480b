"""Two stores, one with markup in every string, and an exported site of each: made once a session, read by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import page_stores
from page_sites import MARK, Shown, site_of
from session import once

from graftline.store.opening import open_store
from graftline.ui.export import export
from graftline.ui.server import Server


@once
def made(home: Path, kind: str) -> Path:
    """Return a store; beside it lie the runs with a report, and the exported site."""
    if kind == "plain":
        url = page_stores.make_store(home / "ui" / kind)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRAFTLINE_ACTOR", MARK)
            url = page_stores.make_store(home / "ui" / kind, MARK, digits=3, glosses=2)
        assert os.environ.get("GRAFTLINE_ACTOR") != MARK
    export(site_of(open_store(str(url)), url.parent / "runs"), url.parent / "site")
    return url


def shown(url: Path) -> Iterator[Shown]:
    store = open_store(str(url))
    site = site_of(store, url.parent / "runs")
    with Server(site, "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Shown(store, site, server.url, url.parent / "site")
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """digits@1 to 8, of which 7 is the champion with a report on this machine, and glosses@1 to 4."""
    yield from shown(made(tmp_path_factory.getbasetemp(), "plain"))


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The same with MARK in every string that a record, a release, a run or the ledger may hold."""
    yield from shown(made(tmp_path_factory.getbasetemp(), "planted"))
