"""How the processes of one start of a job find one another, and not those of the start before.

torchrun keeps one key-value store over the restarts of a job, with the addresses that killed processes left there: the
new ones wait for them, or are refused (pytorch issue 135712). TORCHELASTIC_RESTART_COUNT does not tell starts
apart, as each machine counts for itself. So the leader draws a name for the start, and hands it to processes that live.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from graftline.errors import GraftlineError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_LOOK_SECONDS = 0.05


def own_part(store: Store, rank: int, size: int, seconds: float = 600.0) -> Store:
    """Return the part of the job's store that belongs to this start alone.

    Args:
        store: shared by all processes of the job, with what earlier starts left in it.
        rank: of this process.
        size: the number of processes; each must call this.
        seconds: how long to wait for the others.

    Raises:
        GraftlineError: some have not come after `seconds`.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    me = uuid.uuid4().hex
    end = time.monotonic() + seconds

    def pause(missing: set[int]) -> None:
        if time.monotonic() > end:
            ranks = ", ".join(map(str, sorted(missing)))
            raise GraftlineError(f"rank {rank} waited {seconds:.0f} s for rank {ranks}; start the job again")
        time.sleep(_LOOK_SECONDS)

    store.set(f"process/{rank}", me)
    if rank:
        while not store.check([f"start/{me}"]):
            pause({0})
        name = store.get(f"start/{me}").decode()
        store.set(f"came/{name}/{rank}", "")
        return PrefixStore(name, store)
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            if store.check([f"process/{other}"]):  # perhaps of one that was killed: that one will not come
                store.set(f"start/{store.get(f'process/{other}').decode()}", me)
        missing = {other for other in missing if not store.check([f"came/{me}/{other}"])}
        if missing:
            pause(missing)
    return PrefixStore(me, store)
