"""pretrain and finetune killed on one machine and started on another: the first one's disk is deleted, and the run goes
on from the store to the digest of an unbroken run.

GRAFTLINE_ALL_CRASHES=1 does each with both components, and kills at more places: at GRAFTLINE_KILLS (30) moments where
SIGTERM comes as a cancelled run's step gets it, without it at one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import controls
import pytest
from controls import Control
from kills import Outcome, desk_folder, finish, newest_checkpoint, start
from servers import Proxy

from graftline.store import Store
from graftline.store.bundles import list_bundles
from graftline.store.opening import open_store

RUN = "0123456789abcdef" * 4
ALL = os.environ.get("GRAFTLINE_ALL_CRASHES") == "1"
KILLS = int(os.environ.get("GRAFTLINE_KILLS", "30" if ALL else "1"))
COMPONENTS = ("pretrain", "finetune")


@pytest.fixture
def control(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Control:
    """The component that the test names, with how it ends when nobody kills it."""
    return controls.control(tmp_path_factory.getbasetemp(), request.param)


@pytest.fixture(autouse=True)
def switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRAFTLINE_RUN", "GRAFTLINE_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)


def switch_on(url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("GRAFTLINE_RUN", RUN)
    monkeypatch.setenv("GRAFTLINE_CHECKPOINTS", url)
    return open_store(url)


def in_store(store: Store) -> int:
    """Return the steps of the newest whole checkpoint in the store, or 0."""
    prefixes = {key.rpartition("/")[0] for key in store.list("checkpoints/")}
    assert len(prefixes) <= 1, "one training"
    return max((int(name) for prefix in prefixes for name in list_bundles(store, prefix)), default=0)


def until(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, "it ended before the moment came"
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.01)


def check_elsewhere(control: Control, machine: Path, store: Store) -> None:
    """Delete the disk, run to the end on another machine; it goes on from what is in the store."""
    shutil.rmtree(machine)
    step, outcome = in_store(store), Outcome()
    finish(control.case, machine.with_name("another") / control.case.output, outcome)
    assert outcome.resumed_from == [step]
    assert outcome.digest == control.unbroken.digest
    assert store.list("") == [], "the checkpoints of a run that is done"


@pytest.mark.parametrize("number", [1, 3] if ALL else [2])
@pytest.mark.parametrize("control", COMPONENTS if ALL else COMPONENTS[:1], indirect=True)
def test_a_killed_run_goes_on_elsewhere_to_the_digest_of_an_unbroken_one(
    number: int, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = switch_on(str(tmp_path / "store"), monkeypatch)
    machine = tmp_path / "one"
    process = start(control.case, machine / control.case.output, 0.02)
    until(process, lambda: in_store(store) >= number)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert in_store(store) > 0
    check_elsewhere(control, machine, store)


@pytest.mark.parametrize("control", COMPONENTS if ALL else COMPONENTS[1:], indirect=True)
@pytest.mark.parametrize("heard", [True, False], ids=["heard", "nobody at stderr"])
def test_a_pre_empted_run_loses_no_step(
    heard: bool, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes no checkpoint but the one that SIGTERM asks for, and uploads that before it ends. K7: so it does where
    whoever reads stderr is gone."""
    store = switch_on(str(tmp_path / "store"), monkeypatch)
    out = tmp_path / "one" / control.case.output
    process = start(control.case, out, 1e9)
    until(process, lambda: bool(list(desk_folder(out).glob("metrics.jsonl"))))
    if not heard:
        assert process.stderr
        process.stderr.close()
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1] if heard else ""
    assert process.wait(60) == 75, error
    step = newest_checkpoint(out)
    assert 0 < step == in_store(store)
    assert not heard or error.endswith(f"; the store has that of step {step}\n")
    check_elsewhere(control, tmp_path / "one", store)


@pytest.mark.timeout(300 + 60 * KILLS)
@pytest.mark.parametrize("control", COMPONENTS[:1], indirect=True)
def test_sigterm_with_nobody_at_stderr_and_a_kill_after_it_cost_one_interval_at_most(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K7: launcher and container get SIGTERM at once, stderr has no reader any more, and there are 0.3 s to live."""
    store = switch_on(str(tmp_path / "store"), monkeypatch)
    draw = random.Random(KILLS)
    ends = []
    for number in range(KILLS):
        out = tmp_path / str(number) / control.case.output
        process = start(control.case, out, 0.1)
        step = 1 + int(draw.random() * 0.6 * control.unbroken.steps)  # the next checkpoint may come 0.1 s later
        until(process, lambda: newest_checkpoint(out) >= step and in_store(store) > 0)  # noqa: B023
        time.sleep(draw.random() * 0.1)
        assert process.stderr
        process.stderr.close()
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.kill()
        ends.append(process.wait(60))
        last = sorted(int(path.name) for path in desk_folder(out).glob("checkpoints/0*"))
        assert in_store(store) >= last[-2], "all but the newest, which may have been on its way"
        check_elsewhere(control, out.parent, store)
        shutil.rmtree(out.parent.with_name("another"))
        print(f"{number + 1} of {KILLS}: the same digest; {ends.count(75)} ended with 75 before they were killed")
    assert set(ends) <= {75, -signal.SIGKILL}


@pytest.mark.parametrize("upload", [5, 6, 7, 8] if ALL else [7])
@pytest.mark.parametrize("control", COMPONENTS if ALL else COMPONENTS[:1], indirect=True)
def test_a_run_killed_between_uploads_to_s3_goes_on_elsewhere(
    upload: int, control: Control, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the second checkpoint's four uploads, and after them."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    store = switch_on(s3_url, monkeypatch)
    started: list[subprocess.Popen[str]] = []
    fault = lambda put: "kill-after" if put == upload else ""  # noqa: E731
    with Proxy(endpoint, fault, lambda: started[0].kill()) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        started.append(start(control.case, tmp_path / "one" / control.case.output, 0.02))
        started[0].communicate(timeout=120)
    assert started[0].returncode == -signal.SIGKILL
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    check_elsewhere(control, tmp_path / "one", store)
