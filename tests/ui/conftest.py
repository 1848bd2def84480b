"""Two stores, one with markup in every string, a server and an exported site of each: made once, read by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import page_stores
from page_sites import MARK, Shown, site_of

from graftline.store.opening import open_store
from graftline.ui.export import export
from graftline.ui.server import Server


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the session's."""
    return tmp_path_factory.mktemp("ui")


def shown(url: Path) -> Iterator[Shown]:
    store = open_store(str(url))
    site = site_of(store, url.parent / "runs")
    folder = url.parent / "site"
    export(site, folder)
    with Server(site, "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Shown(store, site, server.url, folder)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def plain(home: Path) -> Iterator[Shown]:
    """digits@1 to 8, of which 7 is the champion with a report on this machine, and glosses@1 to 4."""
    yield from shown(page_stores.make_store(home / "plain"))


@pytest.fixture(scope="session")
def planted(home: Path) -> Iterator[Shown]:
    """The same with MARK in every string that a record, a release, a run or the ledger may hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFTLINE_ACTOR", MARK)
        store = page_stores.make_store(home / "planted", MARK, digits=3, glosses=2)
    assert os.environ.get("GRAFTLINE_ACTOR") != MARK
    yield from shown(store)
