"""Independent pieces of work in processes of their own: one thread each, and where there are GPUs one GPU each."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

import torch

from graftline.errors import GraftlineError
from graftline.learning.device import at_once, be_worker, count
from graftline.processes import die_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, done: Callable[[Result], None]
) -> list[Result]:
    """Return `function` of each item, in the items' order; they start in that order, `workers` at a time.

    Workers are spawned, not forked: a fork copies the locks of torch's threads in whatever state they are in. A single
    worker would spend seconds on its imports to do what this process can: where this one computes with one thread too,
    and there is no GPU to give, the work is done here, with the same bits.

    Args:
        function: importable by name; it and the items travel to the workers.
        items: the work.
        workers: processes, at most; no more than there are GPUs, where there are some.
        done: called in this process with each result as it arrives.

    Raises:
        GraftlineError: a worker died (killed by the system for its memory, as a rule).
        Exception: the first one that `function` raised; the work not yet started is dropped.
    """
    context, workers = get_context("spawn"), at_once(workers, count())
    if workers == 1 and torch.get_num_threads() == 1 and not count():
        return _run_here(function, items, done)
    numbers: SimpleQueue[int] = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    with ProcessPoolExecutor(workers, context, _start_worker, (numbers,)) as pool:
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


def _run_here(
    function: Callable[[Item], Result], items: Iterable[Item], done: Callable[[Result], None]
) -> list[Result]:
    results = []
    with torch.random.fork_rng(devices=[]):  # the items seed it
        for item in items:
            results.append(function(item))
            done(results[-1])
    return results


def _start_worker(numbers: SimpleQueue[int]) -> None:
    """Make this process compute with one thread on a device of its own, and die with its parent however that dies."""
    torch.set_num_threads(1)
    be_worker(numbers.get())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group: no stack trace from each worker
    die_with_parent()
