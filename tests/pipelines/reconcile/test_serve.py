"""The process that calls reconcile: real git, real processes, a real directory store.

What it calls is a script that notes at which commit it was called, with which token; one test calls reconcile itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_repository import Checkout

from graftline.pipelines.reconcile import serve
from graftline.store.lease import SERVE
from graftline.store.opening import open_store

PATIENCE = 90.0
"""Seconds that a test waits for what must come; none of them is a measure."""
SCRIPT = """
import json, os, subprocess, sys
commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
with open({calls!r}, "a") as file:
    file.write(json.dumps([commit, os.environ.get("GRAFTLINE_KFP_TOKEN", ""), os.getppid()]) + "\\n")
sys.exit({code})
"""
SERVER = """
import sys
from datetime import timedelta
from pathlib import Path
from graftline.pipelines.reconcile import serve
from graftline.store import lease
lease.SECONDS, lease.RENEWED, serve.IDLE_SECONDS = 3.0, 0.5, 0.05
serve.LOOK, serve.AGAIN = timedelta(seconds=0.2), timedelta(seconds=0.3)
checkout, store, alive, script = sys.argv[1:]
serve.Server(Path(checkout), "main", store, Path(alive), (sys.executable, script)).run()
"""
QUIET = """
schedules:
  digits: {task: digits, cron: "0 0 1 1 *"}
"""


class Place:
    """A repository that is pushed to, its clones, a store, and what the calls of reconcile noted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.origin = folder, Checkout(folder)
        self.origin.change("pipelines/schedules.yaml", QUIET)
        self.store = str(folder / "store")
        self.token, self.noted = folder / "token", folder / "calls"
        self.token.write_text("first\n")
        self.processes: list[subprocess.Popen[str]] = []
        self.ends_with(0)

    def ends_with(self, code: int) -> None:
        (self.folder / "script.py").write_text(SCRIPT.format(calls=str(self.noted), code=code))

    def start(self, name: str) -> subprocess.Popen[str]:
        """Start a process with a clone of its own."""
        clone = self.folder / name
        if not clone.exists():
            subprocess.run(["git", "clone", "--quiet", str(self.origin.root), str(clone)], check=True)
        (self.folder / "server.py").write_text(SERVER)
        command = [
            sys.executable,
            str(self.folder / "server.py"),
            str(clone),
            self.store,
            str(self.folder / f"{name}.alive"),
            str(self.folder / "script.py"),
        ]
        environment = os.environ | {serve.TOKEN_FILE: str(self.token)}
        process = subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.processes.append(process)
        threading.Thread(target=lambda: list(process.stdout or ()), daemon=True).start()
        return process

    def calls(self) -> list[tuple[str, str, int]]:
        text = self.noted.read_text() if self.noted.exists() else ""
        return [tuple(json.loads(line)) for line in text.splitlines()]

    def until(self, holds: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := holds():
                return found
            time.sleep(0.05)
        raise AssertionError(f"it never came; calls: {self.calls()}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def test_it_reconciles_at_its_start_and_again_at_a_push_with_the_token_of_that_moment(place: Place) -> None:
    """K49: a revert is a push like any other; nothing has to be applied for it to be seen."""
    first = place.origin.git("rev-parse", "HEAD")
    process = place.start("one")
    place.until(place.calls)
    assert place.calls()[0] == (first, "first", process.pid)
    place.token.write_text("second\n")
    pushed = place.origin.change("README.md", "words\n")
    place.until(lambda: [call for call in place.calls() if call[0] == pushed])
    assert place.calls()[-1] == (pushed, "second", process.pid), "the process has started itself anew"
    place.origin.git("revert", "--no-edit", "HEAD")
    reverted = place.origin.git("rev-parse", "HEAD")
    place.until(lambda: place.calls()[-1][0] == reverted)


@pytest.mark.parametrize("code", [75, 1])
def test_a_reconcile_that_leaves_something_to_do_is_called_again(place: Place, code: int) -> None:
    """K20: 75 is no failure of the pod."""
    place.ends_with(code)
    process = place.start("one")
    place.until(lambda: len(place.calls()) >= 3)
    assert process.poll() is None


def test_the_leader_is_killed_and_the_other_leads_once_its_lease_has_run_out(place: Place) -> None:
    one = place.start("one")
    place.until(place.calls)
    two = place.start("two")
    place.until(lambda: (place.folder / "two.alive").exists())
    assert {call[2] for call in place.calls()} == {one.pid}
    one.kill()
    place.until(lambda: place.calls()[-1][2] == two.pid)


def test_told_to_stop_it_gives_its_lease_back(place: Place) -> None:
    process = place.start("one")
    place.until(place.calls)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    held = json.loads(open_store(place.store).get(SERVE).data)
    assert held["holder"] == ""


def test_a_git_that_cannot_be_reached_stops_nothing(place: Place) -> None:
    place.ends_with(75)
    place.start("one")
    place.until(place.calls)
    place.origin.root.rename(place.folder / "away")
    before = len(place.calls())
    place.until(lambda: len(place.calls()) > before + 1)


def test_healthy_says_whether_the_loop_turns(tmp_path: Path) -> None:
    alive = tmp_path / "alive"

    def code() -> int:
        with pytest.raises(SystemExit) as ended:
            serve.main(["--healthy", "--alive", str(alive)])
        return int(ended.value.code or 0)

    assert code() == 1
    alive.touch()
    assert code() == 0
    old = time.time() - serve.ILL_SECONDS - 1
    os.utime(alive, (old, old))
    assert code() == 1


def test_the_probe_loads_nothing_heavy() -> None:
    """It is started every few seconds beside the process."""
    heavy = "{'boto3', 'pydantic', 'kfp', 'torch', 'kubernetes', 'numpy'} & set(sys.modules)"
    code = f"import sys; import graftline.pipelines.reconcile.serve; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_next_call_is_at_the_next_slot_and_after_ten_minutes_at_the_latest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 5, 1, 12, 3, tzinfo=UTC)
    monkeypatch.setattr(serve, "_now", lambda: now)
    done = ("true",)
    server = serve.Server(place.origin.root, "main", place.store, place.folder / "alive", done)
    assert server._reconcile() == now + serve.ANYWAY
    place.origin.write("pipelines/schedules.yaml", QUIET.replace("0 0 1 1 *", "*/5 * * * *"))
    assert server._reconcile() == now + timedelta(minutes=2)
    waits = serve.Server(place.origin.root, "main", place.store, place.folder / "alive", ("echo", "waits    a"))
    assert waits._reconcile() == now + serve.AGAIN, "a run that concurrency holds back"
    place.origin.write("pipelines/schedules.yaml", QUIET.replace("0 0 1 1 *", "* * * * *"))
    now = datetime(2026, 5, 1, 12, 3, 40, tzinfo=UTC)
    assert waits._reconcile() == now + timedelta(seconds=20), "no slot waits for what is left"
