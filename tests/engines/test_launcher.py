"""The launcher's stand-in in a container: real processes, signals and pipes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graftline.engines import launcher

STEP = """
import signal, sys, time
from pathlib import Path
def deed(*_):
    try:
        print("the last word", flush=True)
    except BrokenPipeError:
        Path(sys.argv[1]).write_text("no reader")
    time.sleep(5)
    sys.exit()
signal.signal(signal.SIGTERM, deed)
print("ready", flush=True)
time.sleep(60)
"""


def start(log: Path, *code: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, launcher.__file__, str(log), sys.executable, "-c", *code]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 1), (2, 1), (3, 1), (75, 1)])
def test_it_ends_with_1_however_the_step_failed_and_keeps_what_it_said(tmp_path: Path, code: int, ends: int) -> None:
    """K4."""
    process = start(tmp_path / "log", f"import sys; print('why', file=sys.stderr); sys.exit({code})")
    said, _ = process.communicate(timeout=30)
    assert process.returncode == ends
    assert said == (tmp_path / "log").read_bytes() == b"why\n"


def test_sigterm_takes_the_reader_first_and_the_container_a_moment_later(tmp_path: Path) -> None:
    """K7: the step is signalled at once, has no reader, and lives under a second."""
    process = start(tmp_path / "log", STEP, str(tmp_path / "deed"))
    assert process.stdout and process.stdout.readline() == b"ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert time.monotonic() - began >= launcher.LIVES_SECONDS[0]
    assert (tmp_path / "deed").read_text() == "no reader"
    assert b"the last word" not in (tmp_path / "log").read_bytes()
