"""Worker processes: results in order, one thread each, failures that say what to do, no orphans."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import forked
import pytest
import torch

from graftline.errors import GraftlineError, InputError
from graftline.evaluation.workers import run_all

MODULE = """
import os, signal, time
from graftline.errors import InputError

def slow_first(item):
    import torch
    time.sleep(0.3 if item == 0 else 0)
    return item * item, torch.get_num_threads()

def process(item):
    import torch
    torch.manual_seed(item)
    return os.getpid()

def place(folder):
    from graftline.learning.device import own_number, place

    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 3:  # until each worker has an item
        time.sleep(0.01)
    return place(own_number(), 2)

def refuse(item):
    raise InputError("row 3", "a stray value", expected="a digit", fix="mend it")

def die(item):
    os.kill(os.getpid(), signal.SIGKILL)

def announce(path):
    path.with_name(f"{os.getpid()}.pid").touch()
    time.sleep(600)
"""

PARENT = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from graftline.evaluation.workers import run_all
from worker_functions import announce
folder = pathlib.Path(sys.argv[1])
run_all(announce, [folder / "a", folder / "b"], workers=2, done=print)
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module that spawned workers can import by name."""
    (tmp_path / "worker_functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "worker_functions", raising=False)
    import worker_functions  # type: ignore[import-not-found]

    return worker_functions


def test_results_come_in_the_items_order_with_one_thread_each(functions) -> None:
    seen: list[tuple[int, int]] = []
    wanted = [(0, 1), (1, 1), (4, 1), (9, 1)]
    assert run_all(functions.slow_first, range(4), workers=2, done=seen.append) == wanted == sorted(seen)


def test_one_worker_is_this_process_where_that_computes_with_one_thread_too(functions) -> None:
    seen: list[int] = []
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.set_num_threads(1)
        assert run_all(functions.process, [1, 2], workers=1, done=seen.append) == [os.getpid()] * 2 == seen
        assert torch.equal(torch.get_rng_state(), state)
        torch.set_num_threads(2)
        [other] = run_all(functions.process, [1], workers=1, done=seen.append)
        assert other != os.getpid()
    finally:
        torch.set_num_threads(threads)


def test_workers_have_the_devices_in_turn(functions, tmp_path: Path) -> None:
    (folder := tmp_path / "workers").mkdir()
    found = run_all(functions.place, [folder] * 3, workers=3, done=print)
    assert sorted(found) == ["cuda:0", "cuda:0", "cuda:1"]


def test_a_workers_input_error_arrives_whole(functions) -> None:
    with pytest.raises(InputError, match="row 3: a stray value; expected a digit; mend it") as caught:
        run_all(functions.refuse, [0], workers=2, done=print)
    assert caught.value.fix == "mend it"


def test_a_killed_worker_is_an_error_that_says_what_to_do(functions) -> None:
    with pytest.raises(GraftlineError, match="worker process was killed; give the stage more memory"):
        run_all(functions.die, [0], workers=2, done=print)


def test_workers_die_with_a_parent_that_is_killed(functions, tmp_path: Path) -> None:
    parent = forked.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not any(alive(worker) for worker in workers))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
