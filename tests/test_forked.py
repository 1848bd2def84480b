"""A process that tests fork is one as any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from subprocess import PIPE
from typing import Any

import forked
import pytest


def test_it_has_what_it_was_given_and_ends_by_itself(tmp_path: Path) -> None:
    code = "import json, os, sys; print(json.dumps([sys.argv, os.getcwd(), dict(os.environ)])); sys.exit(input())"
    done = forked.run([sys.executable, "-c", code, "a"], input="why\n", cwd=tmp_path, env={"B": "c"}, text=True)
    assert (done.returncode, done.stderr) == (1, "why\n")
    assert json.loads(done.stdout) == [["-c", "a"], str(tmp_path), {"B": "c"}]


@pytest.mark.parametrize(
    ("last", "code", "error"),
    [("", 0, ""), ("sys.exit()", 0, ""), ("sys.exit(3)", 3, ""), ("1 / 0", 1, "ZeroDivisionError: division by zero\n")],
)
def test_it_ends_as_python_does(last: str, code: int, error: str) -> None:
    """With what waits for the end: threads, functions, what was not written yet."""
    program = f"""
import atexit, sys, threading, time
atexit.register(print, "at the end", end="")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
print("first")
{last}
"""
    done = forked.run([sys.executable, "-c", program], text=True)
    assert (done.returncode, done.stdout) == (code, "first\na thread\nat the end")
    assert done.stderr.endswith(error) and bool(done.stderr) == bool(error)


def test_an_end_that_nobody_reads_is_as_pythons() -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read(); print('to nobody')"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ends = []
    for popen in (forked.Popen, subprocess.Popen):
        process = popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment)
        process.stdout.close()
        process.stdin.close()
        ends.append((process.wait(30), b"BrokenPipeError" in process.stderr.read()))
        process.stderr.close()
    assert ends == [(120, True)] * 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(number: signal.Signals) -> None:
    process = forked.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=PIPE)
    assert process.stdout and process.stdout.readline() == b"1\n"
    process.send_signal(number)
    assert process.wait(30) == -number
    process.stdout.close()


@pytest.mark.parametrize("option", ["", "-I"])
def test_another_checkouts_code_is_its_own(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after forks that loaded this checkout's, which later ones find there."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for _ in range(2):
        loads = "import graftline; print(graftline.__file__)"
        here = forked.run([sys.executable, "-c", f"import sys; print('graftline' in sys.modules); {loads}"], text=True)
    assert here.stdout.splitlines()[0] == "True"
    (tmp_path / "graftline").mkdir()
    (tmp_path / "graftline/__init__.py").touch()
    path = {} if option else {"PYTHONPATH": str(tmp_path)}
    command = [part for part in (sys.executable, option, "-c", "import sys; print('graftline' in sys.modules)") if part]
    assert forked.run(command, env=path, text=True).stdout == "False\n"
    if path:
        found = forked.run([sys.executable, "-c", loads], env=path, text=True)
        assert found.stdout.strip() == str(tmp_path / "graftline/__init__.py"), found.stderr


def test_another_checkouts_code_is_kept_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    code = "import sys; print('graftline' in sys.modules); import graftline; print(graftline.WORD)"

    def said(checkout: Path) -> list[str]:
        done = forked.run([sys.executable, "-c", code], env={"PYTHONPATH": str(checkout)}, text=True)
        return str(done.stdout).split()

    one, other = tmp_path / "one", tmp_path / "other"
    for checkout in (one, other):
        (checkout / "graftline").mkdir(parents=True)
        (checkout / "graftline/__init__.py").write_text(f"WORD = '{checkout.name}'\n")
    assert [said(one) for _ in range(3)] == [["False", "one"], ["True", "one"], ["True", "one"]]
    (one / "graftline/__init__.py").write_text("WORD = 'changed'\n")
    assert said(one) == ["False", "changed"]
    assert [said(other), said(one)] == [["False", "other"], ["True", "changed"]]


def test_variables_that_are_read_at_the_start_count() -> None:
    """Also after forks that loaded a library without them: such a process is a new one."""
    code = "from huggingface_hub.constants import HF_HUB_OFFLINE; print(hash('graft'), HF_HUB_OFFLINE)"
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    set_ = plain | {"HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "7"}

    def said(environment: dict[str, str], by: Any = forked.run) -> list[str]:
        return str(by([sys.executable, "-c", code], env=environment, text=True).stdout).split()

    new = said(set_, by=partial(subprocess.run, capture_output=True))
    assert said(plain)[1] == "False"
    assert said(set_) == new and new[1] == "True"


def test_workers_that_torchrun_starts_in_a_fork_are_forks_too(tmp_path: Path) -> None:
    """Children of torchrun, in sessions of their own, that ended as it is told; and with what was loaded before."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys\n"
        "print(os.getppid(), os.getsid(0) == os.getpid(), 'torch' in sys.modules, os.environ['RANK'], sys.argv[1:])\n"
        "sys.exit(3 * int(os.environ['RANK']))\n"
    )
    assert forked.run([sys.executable, "-c", "import torch.distributed.run"]).returncode == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), "a b"]
    with forked.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        out, error = process.communicate(timeout=60)
    assert sorted(out.splitlines()) == [f"{process.pid} True True {rank} ['a b']" for rank in range(2)], error
    assert process.returncode == 1 and "exitcode  : 3" in error


def test_a_worker_that_multiprocessing_spawns_is_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child with the ends of its pipes, that knows its parent, finds its modules and ends; with what was loaded."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for _ in range(2):
        assert forked.run([sys.executable, "-c", "import graftline.errors"]).returncode == 0
    code = (
        "[__import__('os').getpid(), __import__('os').getppid(), __import__('multiprocessing').parent_process().pid,"
        " 'graftline.errors' in __import__('sys').modules]"
    )
    with get_context("spawn").Pool(1) as pool:
        own, parent, told, loaded = pool.apply(eval, [code])
        assert (parent, told, loaded) == (os.getpid(), os.getpid(), True)
        assert pool.apply(Path, ["a"]) == Path("a")
        pool.close()
        pool.join()
    assert not Path(f"/proc/{own}").exists()
