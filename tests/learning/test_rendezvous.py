"""Processes of one start of a job meet, whatever starts before them left in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore
from torch.distributed.distributed_c10d import Store

from graftline.errors import GraftlineError
from graftline.learning.rendezvous import own_part


def meet(store: Store, ranks: int, size: int) -> list[Store]:
    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(lambda rank: own_part(store, rank, size, seconds=30), range(ranks)))


def test_a_start_reads_nothing_of_the_start_before() -> None:
    store = HashStore()
    before = meet(store, 3, 3)
    before[1].set("address", "of a process that was killed")
    assert before[2].check(["address"])
    after = meet(store, 3, 3)
    assert not any(part.check(["address"]) for part in after)
    after[1].set("address", "new")
    assert [part.get("address") for part in after] == [b"new"] * 3


def test_a_start_after_one_in_which_not_all_came() -> None:
    store = HashStore()
    with pytest.raises(GraftlineError, match="rank 0 waited 0 s for rank 1, 2; start the job again"):
        own_part(store, 0, 3, seconds=0)
    with pytest.raises(GraftlineError, match="rank 1 waited 0 s for rank 0"):
        own_part(store, 1, 3, seconds=0)
    parts = meet(store, 3, 3)
    parts[0].set("address", "new")
    assert parts[2].get("address") == b"new"
