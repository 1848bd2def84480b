"""Peak memory of processes while they run, their children with them."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from types import TracebackType

import psutil

_SECONDS = 0.25
_COMPONENT = re.compile(r"graftline\.components\.(\w+)")


class ComponentMemory:
    """Samples, while it is entered, the components among a process's descendants.

    Counts proportional set sizes: memory that several processes share is counted once.
    """

    def __init__(self, pid: int) -> None:
        self.peaks: dict[str, int] = {}
        """Bytes by component."""
        self._parent, self._ended = psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> ComponentMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(_SECONDS):
            with suppress(psutil.Error):
                self._look()

    def _look(self) -> None:
        sums: dict[str, int] = {}
        for child in self._parent.children():  # each stage is a child; a shell may stand between
            family = [child, *child.children(recursive=True)]
            names = [found[1] for process in family if (found := _COMPONENT.search(" ".join(process.cmdline())))]
            if names:
                sums[names[0]] = sum(_pss(process) for process in family)
        for name, size in sums.items():
            self.peaks[name] = max(self.peaks.get(name, 0), size)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
