"""`graftline reconcile` and `graftline drift` as a user starts them, and what infra/local calls them with.

The commits are a list in memory (world.py) or a small git repository; Kubeflow is kfp_server.py's, over HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from kfp_server import Fault, Request, hearing, serve
from test_kubeflow import HOURLY, ON_PUSH, Wired
from test_repository import Checkout
from typer.testing import CliRunner
from world import ModelRepository

from graftline import settings
from graftline.cli import reconcile as command
from graftline.cli.app import app
from graftline.environment import ROOT
from graftline.errors import GraftlineError, InputError
from graftline.pipelines.reconcile import local
from graftline.pipelines.reconcile.desired import OneRun
from graftline.pipelines.reconcile.drift import Row
from graftline.store.lease import RECONCILE, Lease
from graftline.store.opening import open_store
from graftline.yamlfile import load_yaml


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Wired]:
    """A multi-user Kubeflow over HTTP, and a repository of two schedules in front of it."""
    made = Wired(now=datetime.now(UTC).replace(microsecond=0))
    made.commit(schedules={"hourly": HOURLY, "on-push": ON_PUSH})
    monkeypatch.setattr(command, "GitRepository", lambda **_: made.repository)
    monkeypatch.setattr(command, "_now", lambda: made.now)
    monkeypatch.setattr(command, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    made.backend.namespace = "graftline"
    with serve(made.backend) as made.url:
        monkeypatch.setenv("GRAFTLINE_KFP", made.url)
        monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
        yield made


def graftline(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_drift_reconcile_drift(world: Wired) -> None:
    assert graftline("drift").exit_code == 1
    planned = graftline("reconcile", "--dry-run")
    assert f"upload {world.repository.work('on-push').version}" in planned.output
    assert not world.backend.log
    done = graftline("reconcile")
    assert done.exit_code == 0
    assert "(on-push commit-" in done.output
    assert "nothing to do\n" in graftline("reconcile").output
    same = graftline("drift")
    assert same.exit_code == 0
    assert "drift" not in same.output


def test_json_for_programs(world: Wired) -> None:
    done = json.loads(graftline("reconcile", "--json").stdout)
    assert done["settled"] is True
    assert done["failures"] == done["left"] == done["unsettled"] == done["queued"] == done["unknown"] == []
    (row,) = json.loads(graftline("drift", "--json").stdout)
    assert row["verdict"] == "same"


def test_a_backend_that_does_not_answer_is_no_drift(world: Wired) -> None:
    world.backend.fault = lambda request: Fault("drop")
    result = graftline("drift")
    assert result.exit_code == 2
    assert "it could not be told: Kubeflow Pipelines does not answer" in result.output


def test_drift_prints_brackets_as_brackets(monkeypatch: pytest.MonkeyPatch, world: Wired) -> None:
    told = Row("on-push", "data/[mnist]/params.yaml: '[/x]' [finetune]", "", "unknown")
    monkeypatch.setattr(command, "rows", lambda *given: [told])
    assert told.desired in graftline("drift").output


def test_calls_that_fail_end_with_75(world: Wired) -> None:
    world.backend.fault = lambda request: Fault("refuse", 503) if request.changes else None
    result = graftline("reconcile")
    assert result.exit_code == 75
    assert "503 a fault of the test" in result.output
    world.backend.fault = lambda request: None
    assert graftline("reconcile").exit_code == 0


def test_without_an_endpoint_the_line_says_what_to_do(world: Wired) -> None:
    result = graftline("reconcile", "--endpoint", "")
    assert isinstance(result.exception, InputError)
    assert "or use --backend local" in str(result.exception)


def test_a_token_is_sent_and_not_shown(world: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", "a-secret")
    world.backend.token = "another"
    told, done = graftline("drift"), graftline("reconcile")
    assert "401" in told.output
    assert "401" in str(done.exception)
    assert "a-secret" not in told.output + done.output + str(done.exception)
    world.backend.token = "a-secret"
    assert graftline("reconcile").exit_code == 0


def test_a_token_that_is_not_taken_ends_both_with_2(world: Wired) -> None:
    """K27."""
    world.backend.token = "another"
    told, done = graftline("drift"), graftline("reconcile")
    assert told.exit_code == 2
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2


def test_an_older_kubeflow_is_refused_in_one_line(world: Wired) -> None:
    world.backend.version = "2.16.1"
    result = graftline("reconcile")
    assert isinstance(result.exception, InputError)
    assert "Kubeflow Pipelines: version 2.16.1; expected 2.17 or later" in str(result.exception)
    assert "version 2.16.1" in graftline("drift").output
    assert not world.backend.log


def standalone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the settings say that Kubeflow is a standalone installation."""
    told = settings.load_settings().model_copy(update={"multi_user": False})
    monkeypatch.setattr(command, "load_settings", lambda: told)


def test_what_is_made_in_a_multi_user_installation_lies_in_the_namespace(world: Wired) -> None:
    assert graftline("reconcile").exit_code == 0
    assert graftline("drift").exit_code == 0
    backend = world.backend
    made = [*backend.experiments.values(), *backend.pipelines.values()]
    assert {one.namespace for one in made} == {"graftline"}
    assert len(backend.runs) == 1


def test_without_a_namespace_a_multi_user_installation_answers_400(
    world: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    standalone(monkeypatch)
    result = graftline("drift")
    assert result.exit_code == 2
    assert "400 a resource cannot have an empty namespace in multi-user mode" in result.output


def test_a_standalone_installation_is_told_no_namespace(world: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    standalone(monkeypatch)
    world.backend.namespace = ""
    given: list[Any] = []

    def note(request: Request) -> None:
        given.append(request.query.get("namespace"))
        given.append(request.body.get("namespace") if isinstance(request.body, dict) else None)

    world.backend.fault = note
    assert graftline("reconcile").exit_code == 0
    assert graftline("drift").exit_code == 0
    assert set(given) == {None}


def test_a_login_page_is_no_empty_kubeflow(world: Wired) -> None:
    with hearing(200, b"<html>Log in</html>") as (url, _):
        told = graftline("drift", "--endpoint", url)
        done = graftline("reconcile", "--endpoint", url)
    assert told.exit_code == 2
    assert "an answer that is not Kubeflow's: text/html; charset=utf-8, not a JSON object" in told.output
    assert done.exit_code == 75


def test_while_another_reconcile_is_at_work_nothing_is_done_and_the_code_is_75(world: Wired) -> None:
    lease = Lease(open_store(os.environ["GRAFTLINE_STORE"]), RECONCILE, "another")
    assert lease.acquire(world.now)
    result = graftline("reconcile")
    assert result.exit_code == 75
    assert "another reconcile is at work; nothing done\n" in result.output
    assert not world.backend.log
    lease.release()
    assert graftline("reconcile").exit_code == 0


def test_a_reconcile_that_is_told_to_stop_gives_its_lease_back(world: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(request: Request) -> None:
        if request.changes:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        world.backend.fault = stop
        assert graftline("reconcile").exit_code == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Lease(open_store(os.environ["GRAFTLINE_STORE"]), RECONCILE, "another").acquire(world.now)


def test_a_schedule_that_cannot_be_told_is_named(world: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = ModelRepository.changed

    def broken(repository: ModelRepository, name: str) -> Any:
        if name == "on-push":
            raise GraftlineError("data/digits: a toy mistake")
        return changed(repository, name)

    monkeypatch.setattr(ModelRepository, "changed", broken)
    assert "cannot tell on-push: data/digits: a toy mistake" in graftline("reconcile", "--dry-run").output
    result = graftline("reconcile")
    assert result.exit_code == 75
    assert "cannot tell    on-push: data/digits: a toy mistake" in result.output
    assert json.loads(graftline("reconcile", "--json").stdout)["unknown"]
    assert graftline("drift").exit_code == 2


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    made = Checkout(tmp_path)
    monkeypatch.setattr(command, "GitRepository", lambda **_: made.repository())
    monkeypatch.setattr(command, "_now", lambda: made.now)
    monkeypatch.setattr(command, "lock_path", lambda: tmp_path / "outputs/reconcile")
    monkeypatch.setattr(local, "_graftline_run", lambda run, url: made._run(run))
    monkeypatch.setenv("GRAFTLINE_STORE", made.store.url)
    return made


def test_schedules_work_with_no_cluster(checkout: Checkout) -> None:
    arguments = ("--backend", "local")
    assert graftline("drift", *arguments).exit_code == 1
    assert graftline("reconcile", *arguments).exit_code == 0
    assert graftline("drift", *arguments).exit_code == 0
    checkout.now += timedelta(days=1)
    assert graftline("drift", *arguments).exit_code == 1
    assert graftline("reconcile", *arguments).exit_code == 0
    assert checkout.slots()[1:] == ["20260502T030000Z"]


def test_a_second_reconcile_of_a_checkout_ends_at_once(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    inner: list[tuple[int, str]] = []

    def run(one: OneRun, url: str) -> int:
        result = graftline("reconcile", "--backend", "local")
        inner.append((result.exit_code, result.output))
        return 0

    monkeypatch.setattr(local, "_graftline_run", run)
    graftline("reconcile", "--backend", "local")
    assert inner == [(75, "another reconcile is at work; nothing done\n")]


def test_a_local_run_is_graftline_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command itself, for a task that does not exist; tests/cli/test_run.py has one that does."""
    checkout = Checkout(tmp_path)
    (run,) = checkout.desire(checkout.now).runs
    assert local._graftline_run(run, str(tmp_path / "store")) == 2
    assert "data: no task 'digits'" in capfd.readouterr().err


def test_the_crontab_and_the_units_call_this_command() -> None:
    folder = ROOT / "infra/local"
    texts = [(folder / name).read_text() for name in ("crontab", "graftline-reconcile.service")]
    for text in texts:
        assert "graftline reconcile --backend local" in text
    (line,) = [line for line in texts[0].splitlines() if line.startswith("*/5 * * * * ")]
    assert "%" not in line  # cron ends the command there
    assert "flock -n" in line  # nothing is pulled under a run that is at work


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("runs where systemd-analyze is installed")
    for unit in ("graftline-reconcile.service", "graftline-reconcile.timer"):
        text = (ROOT / "infra/local" / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/srv/graftline/.venv/bin/graftline", "/usr/bin/env"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(str(path) for path in tmp_path.glob("*.*"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "graftline" not in done.stderr


def test_reconcile_on_a_cluster_is_called_as_it_is_spelled() -> None:
    """infra/base calls the process by name, and the process calls the command."""
    text = (ROOT / "infra/base/reconcile.yaml").read_text()
    assert "python, -m, graftline.pipelines.reconcile.serve" in text
    module = import_module("graftline.pipelines.reconcile.serve")
    assert module.RECONCILE[1:] == ("-m", "graftline.cli", "reconcile", "--backend", "kubeflow")
    settings: dict[str, Any] = load_yaml(ROOT / "pipelines/settings.yaml")
    assert settings["store"].startswith("s3://")
