"""A process that strace follows from its first call on, and kills or fails at one of its calls (strace(1), -e inject).

It is a fork, as other processes of tests (forked.py), which stops until strace is there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import forked

_STOPPED = """\
import ctypes, os, runpy, signal, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: strace is not its parent
kind, name = sys.argv[1:3]
sys.argv[:] = sys.argv[2:]
if kind == "file":
    sys.path[0] = os.path.dirname(name)
os.kill(os.getpid(), signal.SIGSTOP)
runpy.run_path(name, run_name="__main__") if kind == "file" else runpy.run_module(name, run_name="__main__")
"""
_PATIENCE = 60.0


def start(command: list[str], calls: str, what: str, number: int, **how: Any) -> subprocess.Popen[Any]:
    """Start `[sys.executable, FILE or "-m", ...]`, to meet `what` at its n-th call of a kind.

    Args:
        command: the process.
        calls: one or more names of a call, as this kernel's libc may name it: `rename,renameat`.
        what: `signal=SIGKILL` or `error=EIO`.
        number: at which call, from 1.
        how: as `subprocess.Popen` takes it.
    """
    program = ["module", *command[2:]] if command[1] == "-m" else ["file", *command[1:]]
    process = forked.Popen([command[0], "-c", _STOPPED, *program], **how)
    try:
        _wait(process, "State:\tT")
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:{what}:when={number}"]
        strace = [shutil.which("strace") or "strace", "-f", "-qq", "-o", os.devnull, *inject, "-p", str(process.pid)]
        threading.Thread(target=subprocess.Popen(strace).wait, daemon=True).start()  # it ends with the process
        _wait(process, "TracerPid:\t0", gone=True)
    except BaseException:
        process.kill()
        raise
    process.send_signal(signal.SIGCONT)
    return process


def run(command: list[str], calls: str, what: str, number: int, **how: Any) -> subprocess.CompletedProcess[Any]:
    """Do as `start`, to the end; return what it said as well."""
    process = start(command, calls, what, number, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)
    try:
        out, error = process.communicate(timeout=2 * _PATIENCE)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def _wait(process: subprocess.Popen[Any], line: str, *, gone: bool = False) -> None:
    """Wait until /proc has this line of the process, or has it no longer."""
    end = time.monotonic() + _PATIENCE
    while (line in Path(f"/proc/{process.pid}/status").read_text()) == gone:
        assert time.monotonic() < end, f"{line!r} {'still' if gone else 'not yet'}"
        time.sleep(0.002)
