"""`tools/install`: what `make setup` says while pip works. A script plays pip: it prints what pip prints."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from graftline.environment import ROOT

PIP = """#!/bin/sh
touch "$TMPDIR/fetched"
echo "Looking in indexes: https://user:secret@index.example/simple"
echo "Requirement already satisfied: one==1 in .venv"
echo "Collecting two==2 (from -r lock (line 2))"
echo "Processing /wheels/three-3-py3-none-any.whl (from -r lock (line 4))"
sleep 0.05  # or its time may be that of the script's start: they count in ticks of some milliseconds
mkdir -p .venv/lib/python3.11/site-packages/two-2.dist-info
sleep 1.5
echo "ERROR: no matching distribution" >&2
exit CODE
"""
STUCK = """#!/bin/sh
touch "$TMPDIR/fetched"
echo $$ >pid
exec sleep 60
"""
LOCK = "one==1\n    # via two\ntwo==2\nthree==3\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/lib/python3.11/site-packages/one-1.dist-info").mkdir(parents=True)
    (tmp_path / "lock").write_text(LOCK)
    return tmp_path


def install(folder: Path, code: int, stderr: int) -> subprocess.CompletedProcess[bytes]:
    pip = folder / ".venv/bin/pip"
    pip.write_text(PIP.replace("CODE", str(code)))
    pip.chmod(0o755)
    return subprocess.run([ROOT / "tools/install", "lock"], cwd=folder, stdout=subprocess.PIPE, stderr=stderr)


def left_over(folder: Path) -> list[Path]:
    """Return what is left of what pip fetched, and of what the script needed."""
    return list((folder / "temporary").iterdir())


def screen(said: str) -> list[str]:
    """Return the lines that a terminal shows."""
    lines, at = [""], 0
    for part in re.split(r"(\r|\n|\x1b\[K)", said):
        if part in "\r\n":
            lines += [""] * part.count("\n")
            at = 0 if part else at
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:at]
        else:
            lines[-1] = lines[-1][:at] + part + lines[-1][at + len(part) :]
            at += len(part)
    return lines


def read_all(terminal: int) -> bytes:
    """Return what was written to the other end, which is closed."""
    said = b""
    with open(terminal, "rb", buffering=0) as stream, suppress(OSError):  # which is how Linux says so
        while part := stream.read(10_000):
            said += part
    return said


def test_on_a_terminal_a_line_says_how_far_it_is_and_how_long_it_still_takes(folder: Path) -> None:
    ours, theirs = pty.openpty()
    done = install(folder, 0, theirs)
    os.close(theirs)
    said = read_all(ours).decode()
    assert done.returncode == 0
    assert "packages: 3 of 3 fetched, 2 installed, about " in said and " s left\x1b[K\r" in said
    error, last, _ = screen(said)
    assert error == "ERROR: no matching distribution", "nothing is left of the line that was there"
    assert re.fullmatch(r"packages: 3 installed in \d+ s", last)
    assert not left_over(folder)


def test_a_log_gets_few_lines_and_no_address_of_the_index(folder: Path) -> None:
    done = install(folder, 0, subprocess.PIPE)
    assert done.stdout == b""
    error, last = done.stderr.decode().splitlines()
    assert error.startswith("ERROR") and last.startswith("packages: 3 installed in ")
    assert "index.example" in (folder / ".venv/install.log").read_text(), "where one can look"


def test_pips_failure_is_its_failure(folder: Path) -> None:
    done = install(folder, 7, subprocess.PIPE)
    assert done.returncode == 7
    assert done.stderr.decode().splitlines() == ["ERROR: no matching distribution"]
    assert not left_over(folder)


def test_where_it_is_ended_pip_ends_too_and_nothing_is_left_of_what_it_fetched(folder: Path) -> None:
    pip = folder / ".venv/bin/pip"
    pip.write_text(STUCK)
    pip.chmod(0o755)
    with subprocess.Popen([ROOT / "tools/install", "lock"], cwd=folder) as process:
        while not (folder / "pid").is_file() or not (folder / "pid").read_text():
            time.sleep(0.02)
        assert left_over(folder)
        process.terminate()
    assert process.returncode == 143
    assert not Path("/proc", (folder / "pid").read_text().strip()).exists()
    assert not left_over(folder)


def test_setup_installs_by_it() -> None:
    done = subprocess.run(["make", "-n", "-B", ".venv/.setup"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tools/install requirements.lock" in done.stdout
