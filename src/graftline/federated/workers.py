"""Processes for the coordinator and for sites that run on its machine: each does all of its steps, one after another.

They are forked from a server that has loaded the libraries and has computed nothing: a round of ten sites starts no
interpreter, and no lock of torch's threads is copied. A worker ends with its parent, however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from graftline.errors import GraftlineError
from graftline.processes import die_with_parent

LOADED = [
    "graftline.components.aggregate.aggregate",
    "graftline.components.finetune.finetune",
    "graftline.components.validate.validate",
    "graftline.federated.loaded",
    "graftline.federated.taking_part",
]
"""What the server loads, by name."""
_context = get_context("forkserver")
_context.set_forkserver_preload(LOADED)


@dataclass(frozen=True)
class Done:
    """How a step of a worker ended."""

    code: int
    """Its exit code; minus the signal's number if the process was killed."""
    line: str
    """What it said last, if it failed."""


class Worker:
    """A process that is started when there is work, and again when it has died."""

    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        """Take what all of its work has in common: environment variables, and the file that holds all that is said."""
        self.name, self._environment, self._log = name, dict(environment), log
        self._process: Any = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        return self._process.pid if self._process is not None else None

    def begin(self, call: Callable[..., None], *given: object) -> None:
        """Have `call`, a function of a module, called with picklable arguments."""
        if self._process is None:
            self._connection, theirs = _context.Pipe()
            arguments = (theirs, self._environment, str(self._log))
            self._process = _context.Process(target=_serve, args=arguments, name=self.name, daemon=False)
            self._process.start()
            theirs.close()
        assert self._connection is not None
        with suppress(OSError):  # it has died meanwhile, which `done` tells
            self._connection.send((call, given))

    def done(self, seconds: float) -> Done | None:
        """Return how the work ended; None if it has not in so many seconds."""
        assert self._connection is not None
        if not self._connection.poll(seconds):
            return None
        try:
            code, line = self._connection.recv()
        except (EOFError, OSError):
            return self._died()
        return Done(code, line or self.last_line() if code else "")

    def run(self, call: Callable[..., None], *given: object) -> Done:
        """Return how a call ended."""
        self.begin(call, *given)
        while (done := self.done(60.0)) is None:
            continue
        return done

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._died()

    def _died(self) -> Done:
        self._process.join()
        code = self._process.exitcode
        assert self._connection is not None
        self._connection.close()
        self._process = self._connection = None
        code = -signal.SIGKILL if code is None else code or 1
        return Done(code, self.last_line() if code > 0 else f"killed by signal {-code}")

    def last_line(self) -> str:
        """Return what the process said last; with a component that failed, why."""
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.is_file() else ""
        return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _serve(connection: Connection, environment: dict[str, str], log: str) -> None:
    """Do what is asked until nobody can ask any more."""
    die_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(said, number)
    while True:
        try:
            call, given = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(call, given))


def _outcome(call: Callable[..., None], given: tuple[object, ...]) -> tuple[int, str]:
    try:
        call(*given)
    except GraftlineError as error:
        return error.exit_code, str(error)
    except SystemExit as end:  # a component, which has said why
        return (end.code if isinstance(end.code, int) else 1), ""
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0, ""
