"""SIGTERM: the machine is needed elsewhere. Training ends after its step, with a checkpoint; other work ends at once.

Both end with exit code 75, by which an orchestrator tells a pre-emption from a failure and tries again. Whoever reads
stderr may be gone before the process that it starts: on a cluster Argo ends both at once. Nothing depends on it.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from graftline.errors import EXIT_PREEMPTED, InputError

GRACE_SECONDS = 25.0
"""How long after SIGTERM a run may still upload its checkpoint: less than the 30 s after which Kubernetes kills.
GRAFTLINE_GRACE_SECONDS replaces it where a pod has another `terminationGracePeriodSeconds`."""


@dataclass
class Notice:
    """Whether the process was asked to end."""

    asked: bool = False
    until: float = 0.0
    """The monotonic time when it should have ended, once it was asked to."""


class _Unheard(io.FileIO):
    """A file that takes everything, also when nobody reads it any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def outlive_readers() -> None:
    """From here on, a reader of stdout or stderr that is gone is no error: not of a print, and not at the exit, where
    it would turn the exit code into 120. What is printed is UTF-8, whatever the locale."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is getattr(sys, f"__{name}__") is not None:  # else a test or a notebook reads it
            stream = io.BufferedWriter(_Unheard(number, "w", closefd=False))
            text = io.TextIOWrapper(stream, "utf-8", "backslashreplace", line_buffering=True)
            setattr(sys, name, text)


@contextmanager
def ends_at_once(name: str) -> Iterator[None]:
    """Within, SIGTERM ends the process with exit code 75 and a line that begins with `name`; clean-up runs."""

    def end() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one does not interrupt the clean-up
        _end_workers()
        _say(f"{name}: pre-empted by SIGTERM; run it again")
        raise SystemExit(EXIT_PREEMPTED)  # no Exception: nothing on the way may take it for a failure

    with _on_sigterm(end):
        yield


@contextmanager
def noted(name: str) -> Iterator[Notice]:
    """Within, SIGTERM is only noted; a second one changes nothing, and so does one after it until the process ends."""
    notice = Notice()
    grace = _grace_seconds()

    def note() -> None:
        if notice.asked:
            return
        notice.asked, notice.until = True, time.monotonic() + grace
        _say(f"{name}: SIGTERM; a checkpoint follows this step")

    with _on_sigterm(note):
        try:
            yield notice
        finally:
            if notice.asked:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _grace_seconds() -> float:
    given = os.environ.get("GRAFTLINE_GRACE_SECONDS")
    if given is None:
        return GRACE_SECONDS
    if not given.isdecimal():
        raise InputError("GRAFTLINE_GRACE_SECONDS", repr(given), expected="a whole number of seconds")
    return float(given)


@contextmanager
def _on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # the only one that may set a handler
        yield
        return
    owner = os.getpid()

    def handle(number: int, _: FrameType | None) -> None:
        if os.getpid() == owner:
            action()
        else:  # a forked worker has inherited this: it ends as it would have without
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, before)


def _end_workers() -> None:
    """End the worker processes of this one: leaving a pool waits for what they are doing."""
    if "multiprocessing" in sys.modules:
        for worker in sys.modules["multiprocessing"].active_children():
            worker.terminate()


def _say(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # its reader is gone, it is closed, or there is none
        os.write(sys.stderr.fileno(), f"{line}\n".encode())  # print may be what the signal interrupted
