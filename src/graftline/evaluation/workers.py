"""Independent pieces of work in processes of their own, one thread each."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from graftline.errors import GraftlineError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, done: Callable[[Result], None]
) -> list[Result]:
    """Return `function` of each item, in the items' order; they start in that order, `workers` at a time.

    Workers are spawned, not forked: a fork copies the locks of torch's threads in whatever state they are in.

    Args:
        function: importable by name; it and the items travel to the workers.
        items: the work.
        workers: processes.
        done: called in this process with each result as it arrives.

    Raises:
        GraftlineError: a worker died (killed by the system for its memory, as a rule).
        Exception: the first one that `function` raised; the work not yet started is dropped.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BrokenProcessPool:
            raise GraftlineError(
                "a worker process was killed; give the stage more memory, or fewer workers with --threads"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in futures]


def _start_worker() -> None:
    """Make this process compute with one thread, and die with its parent however the parent dies."""
    import torch

    torch.set_num_threads(1)
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # Ctrl-C reaches the whole group: no stack trace from each worker
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
