from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from servers import moto_endpoint, moto_url, real_url, s3_url, store_url

from graftline.store import Store
from graftline.store.opening import open_store

__all__ = ["moto_endpoint", "moto_url", "real_url", "s3_url", "store_url"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of its own: its keys, what it has seen, its cache."""
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFTLINE_ACTOR", "anna")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A ledger of four entries: the key and three releases."""
    from facts import release

    store = open_store(str(tmp_path / "store"))
    release(store, 1, 2, 3)
    return store
