"""The coordinator or a site is killed at random moments of the rounds; run again, the same model comes of it.

GRAFTLINE_KILLS is how many moments are tried (20 for docs/figures.md).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import forked
import psutil
import pyarrow as pa
import pytest
from parts import thirds, write_site, write_sites

from graftline.audit.verify.verifying import verify as verify_store
from graftline.errors import EXIT_PREEMPTED
from graftline.ledger.log import read_chain
from graftline.store.opening import open_store

RUNNER = str(Path(__file__).with_name("runner.py"))
KILLS = int(os.environ.get("GRAFTLINE_KILLS", "2"))
_PATIENCE = 300.0
_TRIES = 3
Unbroken = tuple[str, float, Path]


def start(folder: Path, dataset: Path, trunk: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"GRAFTLINE_COMMIT": "0" * 40, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, RUNNER, str(folder), str(dataset), str(trunk)]
    return forked.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return exit code and what it printed, or said last."""
    out, error = process.communicate(timeout=_PATIENCE)
    return process.returncode, out.strip() or error


def run_to_the_end(folder: Path, dataset: Path, trunk: Path) -> str:
    """Return the last model's digest. Processes of a run that was killed may need a moment to end."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        code, said = finish(start(folder, dataset, trunk))
        if code == 0:
            return said
        assert code == EXIT_PREEMPTED and time.monotonic() < deadline, said


def strike(process: subprocess.Popen[str], whom: str, after: float, draw: random.Random) -> bool:
    """Kill the coordinator, or one of the processes that it has started, after so many seconds or as soon as there is
    one; return whether something was alive until then."""
    time.sleep(after)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            victims = [parent] if whom == "coordinator" else parent.children(recursive=True)
            if alive := [one for one in victims if one.status() != psutil.STATUS_ZOMBIE]:
                draw.choice(alive).send_signal(signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def two(table: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of two sites."""
    return {name: rows for name, rows in thirds(table).items() if name != "north"}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, dataset: Path, trunk: Path, table: pa.Table) -> Unbroken:
    """The digest of a run that nobody killed, its seconds, and its folder."""
    folder = tmp_path_factory.mktemp("unbroken")
    write_sites(folder, two(table))
    began = time.monotonic()
    digest = run_to_the_end(folder, dataset, trunk)
    return digest, time.monotonic() - began, folder


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment_and_run_again_the_same_model_comes_of_it(
    number: int, unbroken: Unbroken, dataset: Path, trunk: Path, table: pa.Table, tmp_path: Path
) -> None:
    digest, seconds, unbroken_folder = unbroken
    draw = random.Random(number)
    whom = ("coordinator", "a process of its")[number % 2]
    moment, struck, code, said = draw.uniform(0.05, 0.95) * seconds, False, 0, ""
    for attempt in range(_TRIES):  # where the run was over before, as on a machine that is busy at times: earlier
        folder = tmp_path / str(attempt)
        for name, rows in two(table).items():  # with the same keys: the account in the model's metrics names them
            write_site(folder / name, rows)
            shutil.copytree(unbroken_folder / name / "keys", folder / name / "keys")
        write_sites(folder, two(table))
        process = start(folder, dataset, trunk)
        struck = strike(process, whom, moment / 2**attempt, draw)
        code, said = finish(process)
        if struck:
            break
    assert struck, "nothing was killed: each run had ended before"
    assert code == (-signal.SIGKILL if whom == "coordinator" else 0), said
    assert run_to_the_end(folder, dataset, trunk) == digest
    store = open_store(str(folder / "c" / "store"))
    rounds = [entry.detail for entry in read_chain(store).entries if entry.event == "round"]
    assert [(one["round"], one["updates"], one["left_out"]) for one in rounds] == [(1, 2, []), (2, 2, [])]
    assert verify_store(store).findings == ()
    shutil.rmtree(tmp_path)
