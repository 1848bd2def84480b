"""The cache's folder: by the environment, else below the home, and a user without one is told what to set."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftline.cache import cache_folder
from graftline.errors import InputError
from graftline.index.opening import index_path
from graftline.ledger.log import Ledger
from graftline.store.opening import open_store


def test_the_environment_names_it_and_else_it_lies_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("GRAFTLINE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "graftline"


def test_a_user_without_a_home_is_told_what_to_set_and_reads_a_ledger_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRAFTLINE_CACHE", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # a user id without a name, as in many containers
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(InputError, match="GRAFTLINE_CACHE: not set, and this user has no home"):
        index_path(store)
    assert Ledger(store).entries == []
