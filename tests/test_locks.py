"""What a lock says."""

from __future__ import annotations

import pytest

from graftline.environment import ROOT
from graftline.locks import Pin, pins, versions

LOCK = b"""# made by a tool
Torch==2.13.0
    # via x
ruamel.yaml[jinja2]==0.1 ; python_version < '4'  # with a marker
local==1!2.0.post1+cpu \\
    --hash=sha256:00
-r other.txt
not a pin
wild==1.*
ranged==1.0,<2
arbitrary===1.0
"""


def test_a_lock_is_read_as_its_pins() -> None:
    assert pins(LOCK) == [
        Pin("Torch", "2.13.0", None),
        Pin("ruamel.yaml", "0.1", "python_version < '4'"),
        Pin("local", "1!2.0.post1+cpu", None),
    ]


def test_names_are_compared_in_one_spelling() -> None:
    assert versions(LOCK) == {"torch": "2.13.0", "ruamel-yaml": "0.1", "local": "1!2.0.post1+cpu"}


@pytest.mark.parametrize("line", [b"a==1;", b"a", b"a[", b"a==1", b"a=="])
def test_a_hostile_line_takes_no_time_to_speak_of(line: bytes) -> None:
    """Locks are what a store holds. Of a pattern that tries every split of the blanks this takes hours."""
    assert len(pins(line + b" " * 1_000_000)) == line.startswith(b"a==1")


def test_every_line_of_the_lock_of_this_repository_is_read() -> None:
    lock = (ROOT / "requirements.lock").read_bytes()
    lines = [line for line in lock.decode().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(pins(lock)) == len(lines) > 100
    assert all(line.startswith(f"{pin.name}==") for line, pin in zip(lines, pins(lock), strict=True))
