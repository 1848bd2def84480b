"""Locks of Python packages, as uv and pip write them: a line `name==version ; marker` for each (PEP 440, PEP 508)."""

from __future__ import annotations

import re
from typing import NamedTuple

_PIN = re.compile(
    r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*==\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"(?=[\s;#\\]|$)(?:\s*;(?P<marker>[^#\\]*))?"
)


class Pin(NamedTuple):
    """One line of a lock."""

    name: str
    """As the lock spells it."""
    version: str
    marker: str | None
    """Where it is to be installed (https://peps.python.org/pep-0508/#environment-markers); None for everywhere."""


def pins(lock: bytes) -> list[Pin]:
    """Return the packages that a lock pins, in the lock's order."""
    lines = lock.decode(errors="replace").splitlines()
    found = filter(None, map(_PIN.match, lines))
    return [Pin(match["name"], match["version"], (match["marker"] or "").strip() or None) for match in found]


def versions(lock: bytes) -> dict[str, str]:
    """Return the version of each package, by its PEP 503 name."""
    return {package_name(pin.name): pin.version for pin in pins(lock)}


def package_name(name: str) -> str:
    """Return the one spelling that equal names share (https://peps.python.org/pep-0503/#normalized-names)."""
    return re.sub(r"[-_.]+", "-", name).lower()
