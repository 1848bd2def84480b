"""Pictures that are being decoded when the process is killed, at any of its calls: what was done is found again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import psutil
import pytest
import traced

sys.path.insert(0, str(Path(__file__).parents[1] / "values"))

from pictures import encode, noise

DECODER = Path(__file__).with_name("decoder.py")
PICTURES = 48
CALLS = range(1, 40, 4) if os.environ.get("GRAFTLINE_ALL_CRASHES") == "1" else (1, 5, 9, 17, 37)
"""At which of the calls of a kind: early, late, and after the last one."""
# By the call's name on this kernel's libc; one kind at a time, for strace counts each by itself.
KILLED = ["pwritev,pwritev2", "fdatasync", "write", "rename,renameat,renameat2", "ftruncate", "link,linkat"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        inner = folder / ("cat", "dog")[number % 2]
        inner.mkdir(exist_ok=True)
        (inner / f"{number:02}.png").write_bytes(encode(noise(number), "PNG"))
    (folder / "cat/broken.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def whole(raw: Path) -> bytes:
    """The file that an unbroken run makes."""
    done, data = decode(raw, raw.parent / "unbroken")
    assert done.returncode == 0, done.stderr
    assert data is not None
    return data


def decode(
    raw: Path, folder: Path, processes: int = 0, killed_at: tuple[str, int] | None = None
) -> tuple[subprocess.CompletedProcess[str], bytes | None]:
    """Decode; `killed_at` names a call and at which one of the kind it is killed."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)  # as the component does with what a killed run left
    out.mkdir(parents=True)
    command = [sys.executable, str(DECODER), str(raw), str(folder / "work"), str(out), str(processes)]
    if killed_at:
        done = traced.run(command, killed_at[0], "signal=SIGKILL", killed_at[1], text=True)
    else:
        done = forked.run(command, text=True, timeout=120)
    file = out / "image.npy"
    return done, file.read_bytes() if file.exists() else None


@pytest.mark.strace
@pytest.mark.parametrize("calls", KILLED)
def test_a_run_that_was_killed_goes_on(calls: str, raw: Path, whole: bytes, tmp_path: Path) -> None:
    known = []
    for number in CALLS:
        folder = tmp_path / str(number)
        done, _ = decode(raw, folder, killed_at=(calls, number))
        survived = done.returncode == 0
        assert survived or done.returncode == -signal.SIGKILL, done.stderr
        again, data = decode(raw, folder)
        assert again.returncode == 0, again.stderr
        assert data == whole
        known.append(0 if survived else int(again.stdout))
        if survived:
            break
    assert survived, "killed at every call that was tried"
    assert calls == "rename,renameat,renameat2" or max(known) > 0, "what was decoded before was decoded again"


@pytest.mark.strace
def test_a_damaged_line_of_the_log_costs_its_batch_alone(raw: Path, whole: bytes, tmp_path: Path) -> None:
    decode(raw, tmp_path, killed_at=("fdatasync", 5))
    [log] = (tmp_path / "work").glob("*.jsonl")
    head, *lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) > 2
    log.write_bytes(head + lines[0] + b"\0" * 8 + b"\n" + b"".join(lines[2:]))
    done, data = decode(raw, tmp_path)
    assert done.returncode == 0, done.stderr
    kept = [json.loads(line)["batch"][1] for line in (lines[0], *lines[2:])]
    assert data == whole and int(done.stdout) == sum(kept)


def test_processes_that_decode_end_with_the_one_that_was_killed(raw: Path, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    command = [sys.executable, str(DECODER), str(raw), str(tmp_path / "work"), str(tmp_path / "out"), "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    parent, children = psutil.Process(process.pid), []
    while process.poll() is None and len(children) < 3:  # the third tracks shared resources
        children = parent.children(recursive=True)
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert psutil.wait_procs(children, timeout=30)[1] == []
    done, data = decode(raw, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    assert data == whole, "made by two processes or by one"


def test_other_data_begins_anew(raw: Path, whole: bytes, tmp_path: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    decode(tmp_path / "raw", tmp_path)
    (tmp_path / "raw/cat/00.png").write_bytes(encode(noise(99), "PNG"))
    done, data = decode(tmp_path / "raw", tmp_path)
    assert done.returncode == 0 and data is not None
    assert np.flatnonzero(np.frombuffer(data, np.uint8) != np.frombuffer(whole, np.uint8)).size > 0
