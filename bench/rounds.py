"""Interleaved measurement: every contender trains in a process of its own, and runs only when it is its turn.

A contender trains a few steps, then stops between two steps and waits. A round gives each of them, in turn, a window
of some seconds. So all see the same machine, none pays for its start, and caches are cold for each alike: the first
step of a window is not counted.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

_WARM_STEPS = 2
_AT_ONCE = 2
"""Contenders that start at the same time."""
_START_SECONDS = 180
_ENDLESS = 1_000_000
Rows = Literal["packed", "grouped", "lines", "padded", "labelled", "by_length", "full_length", "pictures", "pixels"]
"""How what is learned from comes."""
Form = Literal["opened", "channels_last", "own"]
"""Which code a detector is: what others open of a release, the same with its weights channels last, or Graftline's."""


@dataclass(frozen=True)
class Contender:
    """One way to train."""

    name: str
    shape: str
    """One of text_data.SHAPES or image_data.SHAPES, or a task of head_data.TASKS."""
    loop: Literal["graftline", "trainer", "control"]
    """Graftline's training; the Trainer's; Graftline's loop with the Trainer's recipe."""
    rows: Rows
    batch: int = 0
    """Rows a step; for `packed` it is given in tokens."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """`auto`: what Graftline takes of itself."""
    keeps_memory: bool = False
    """Whether the allocator is set as Graftline's components set it."""
    threads: tuple[int, ...] = (1,)
    """With how many threads it is measured."""
    form: Form = "opened"
    """Of a detector that the Trainer or the control trains."""
    data: Literal["text", "image", "head"] = "text"
    """What it learns from: the module that runs it is bench.text_contender and so on."""

    @property
    def module(self) -> str:
        return f"bench.{self.data}_contender"


@dataclass
class Measured:
    """The windows of a contender at a number of threads."""

    contender: Contender
    threads: int
    rates: list[float] = field(default_factory=list)
    """Units a second of each round: tokens that are no padding, or samples."""
    steps: list[int] = field(default_factory=list)
    """Steps counted in each round."""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def against(self, other: Measured) -> float:
        """Return the median over rounds of how many times the other's rate this one has."""
        return statistics.median(a / b for a, b in zip(self.rates, other.rates, strict=True))


class Clock:
    """Stops a training between steps until it is asked for a window."""

    def __init__(self, connection: Connection, *, of_cpu: bool) -> None:
        """Measure by the time that passes, or with `of_cpu` by what the process computes."""
        self._connection, self._now = connection, time.process_time if of_cpu else time.perf_counter
        self._warm, self._seconds = _WARM_STEPS, 0.0
        self._started: float | None = None
        self._units = self._steps = 0

    def after_step(self, units: int) -> None:
        """Count a step that learned from `units`."""
        if self._warm:
            self._warm -= 1
            if not self._warm:
                self._connection.send("ready")
                self._wait()
        elif self._started is None:
            self._started, self._units, self._steps = self._now(), 0, 0
        else:
            self._units, self._steps = self._units + units, self._steps + 1
            seconds = self._now() - self._started
            if seconds >= self._seconds:
                self._connection.send((self._units / seconds, self._steps))
                self._wait()

    def _wait(self) -> None:
        try:
            self._seconds = self._connection.recv()
        except EOFError:
            os._exit(0)  # from inside whatever loop this is
        self._started = None


def measure(
    contenders: Sequence[Contender], folder: Path, *, threads: int, rounds: int, seconds: float, of_cpu: bool = False
) -> list[Measured]:
    """Return the contenders' rates, those that are measured with so many threads.

    Args:
        contenders: who takes part.
        folder: what the `prepare` of text_data, image_data or head_data wrote.
        threads: of each process.
        rounds: windows of each.
        seconds: length of a window, at least; it ends with a step.
        of_cpu: these are seconds of CPU time, for a machine that has other work.
    """
    found = [Measured(contender, threads) for contender in contenders if threads in contender.threads]
    with _started([one.contender for one in found], folder, threads, of_cpu) as connections:
        for number in range(rounds):
            for one, connection in zip(found, connections, strict=True):
                connection.send(seconds)
                rate, steps = _answer(connection, one.contender)
                one.rates.append(rate)
                one.steps.append(steps)
            _say(f"{threads} threads, round {number + 1} of {rounds}")
    return found


@contextmanager
def _started(contenders: list[Contender], folder: Path, threads: int, of_cpu: bool) -> Iterator[list[Connection]]:
    """Start the contenders, wait until they have warmed up, and end them after the block."""
    context = get_context("forkserver")  # one process imports torch and transformers, for all of them
    context.set_forkserver_preload(sorted({contender.module for contender in contenders}))
    connections: list[Connection] = []
    processes = []
    try:
        for number, contender in enumerate(contenders):
            own, theirs = context.Pipe()
            process = context.Process(target=_run, args=(contender, folder, threads, of_cpu, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            connections.append(own)
            if number >= _AT_ONCE - 1:
                _ready(connections[number + 1 - _AT_ONCE], contenders[number + 1 - _AT_ONCE])
        for connection, contender in list(zip(connections, contenders, strict=True))[-(_AT_ONCE - 1) :]:
            _ready(connection, contender)
        yield connections
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.join(10)
            process.kill()


def _ready(connection: Connection, contender: Contender) -> None:
    if not connection.poll(_START_SECONDS):
        raise SystemExit(f"{contender.name} ({contender.shape}) did not start in {_START_SECONDS} s")
    _answer(connection, contender)


def _answer(connection: Connection, contender: Contender) -> Any:
    try:
        return connection.recv()
    except EOFError:
        raise SystemExit(f"{contender.name} ({contender.shape}) ended; its error is above") from None


def _run(contender: Contender, folder: Path, threads: int, of_cpu: bool, connection: Connection) -> None:
    clock = Clock(connection, of_cpu=of_cpu)
    import_module(contender.module).run(contender, folder, threads, clock.after_step, steps=_ENDLESS)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
