"""Many writers of one ledger over a network that loses answers: nothing is lost, nothing is doubled."""

from __future__ import annotations

import json
import os
import random
import sys
from hashlib import sha256
from pathlib import Path

import forked
import pytest
from servers import Proxy

from graftline.ledger.log import read_chain
from graftline.store import Store
from graftline.store.opening import open_store

RACERS = Path(__file__).with_name("racers.py")
FAULTS = ("drop-before", "drop-after", "500-before", "500-after")
WRITERS = {"directory": 24, "moto": 12, "real": 50}
"""moto serves one request at a time, so that fewer writers are as many at once as it can take."""
FACTS = 2


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))


def enter(url: str, writers: int, endpoint: str = "") -> list[list[object]]:
    """Let so many processes enter FACTS facts each, all at once; return the sequence and id that each was told."""
    environment = os.environ | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})
    command = [sys.executable, str(RACERS), "enter", url, str(writers), str(FACTS)]
    done = forked.run(command, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [entered for line in done.stdout.splitlines() for entered in json.loads(line)]


def check(store: Store, told: list[list[object]], writers: int) -> None:
    """Each fact is in the ledger once, where its writer was told; chain, signatures and root are right."""
    chain = read_chain(store)
    wanted = sorted(f"child-{child}-{number}" for child in range(writers) for number in range(FACTS))
    assert [entry.event for entry in chain.entries] == ["key", *["release"] * (writers * FACTS)]
    assert sorted(entry.id for entry in chain.entries[1:]) == wanted
    assert sorted(told) == [[entry.sequence, entry.id] for entry in chain.entries[1:]]
    leaves = [store.get(key).data for key in store.list("ledger/")]
    assert chain.tree.root() == defined_root(leaves)


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1."""
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\1" + defined_root(leaves[:split]) + defined_root(leaves[split:])).digest()


def test_many_writers_of_a_directory(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    check(open_store(url), enter(url, WRITERS["directory"]), WRITERS["directory"])


def test_many_writers_while_a_fifth_of_the_answers_is_lost_or_an_error(
    s3_url: str, request: pytest.FixtureRequest
) -> None:
    writers = WRITERS[request.node.callspec.params["s3_url"]]
    dice = random.Random(5)
    with Proxy(
        os.environ["AWS_ENDPOINT_URL"],
        lambda _: dice.choice(FAULTS) if dice.random() < 0.2 else "",
        methods=("GET", "PUT", "HEAD"),
    ) as proxy:
        told = enter(s3_url, writers, proxy.endpoint)
        assert proxy.faults > 0.15 * proxy.counted
    check(open_store(s3_url), told, writers)
