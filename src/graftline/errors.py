"""The ways a command ends when it does not succeed, and the exit code of each."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

_LONGEST = 300
EXIT_INPUT = 2
EXIT_REFUSED = 3
EXIT_PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, try again later."""


class GraftlineError(Exception):
    """An end that the user can act on: shown as one line, never as a stack trace."""

    exit_code = 1


class InputError(GraftlineError):
    """The input is at fault (exit code 2).

    The line names the place (file, field or row), what was found, what was expected and what to do.
    """

    exit_code = EXIT_INPUT

    def __init__(self, where: object, found: str, *, expected: str = "", fix: str = "") -> None:
        self.where, self.found, self.expected, self.fix = str(where), found, expected, fix
        parts = [f"{where}: {found}"]
        if expected:
            parts.append(f"expected {expected}")
        if fix:
            parts.append(fix)
        super().__init__("; ".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel whole from a worker process: an exception's own way would call it with the message alone."""
        return partial(type(self), expected=self.expected, fix=self.fix), (self.where, self.found)


class BusyError(InputError):
    """Another process is at work in the same place (exit code 75): the same command succeeds once it has ended."""

    exit_code = EXIT_PREEMPTED


class RefusalError(GraftlineError):
    """A gate said no (exit code 3): nothing is wrong with the input, and nothing was released."""

    exit_code = EXIT_REFUSED


class PreemptedError(GraftlineError):
    """SIGTERM ended the work (exit code 75): what was done is kept, and the same command goes on from there."""

    exit_code = EXIT_PREEMPTED


class LostPeerError(GraftlineError):
    """Another process of the job has ended (exit code 75): whichever that was says why, by its own code."""

    exit_code = EXIT_PREEMPTED


class BackendError(GraftlineError):
    """The backend that runs happen in refused a call, or its answer was lost."""


def brief(error: object) -> str:
    """Return another library's message on one line, cut to a length that a person reads; the kind of error where it
    says nothing."""
    reason = " ".join(str(error).split()).rstrip(". ") or type(error).__name__
    return reason if len(reason) <= _LONGEST else reason[: _LONGEST - 3] + "..."


def nearest(name: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
