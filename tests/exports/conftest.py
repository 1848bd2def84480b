"""One release in a directory store, read by all tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made import release

from graftline.exports.facts import Facts, read_facts
from graftline.releases.catalogue import resolve
from graftline.store import Store
from graftline.store.opening import open_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("exports")
    opened = open_store(str(folder / "store"))
    release(opened, folder / "run")
    return opened


@pytest.fixture(scope="session")
def facts(store: Store) -> Facts:
    return read_facts(store, resolve(store, "digits@1"))
