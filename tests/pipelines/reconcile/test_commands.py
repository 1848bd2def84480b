"""`graftline reconcile` and `graftline drift` as a user starts them, and what infra/local calls them with.

The commits are a list in memory (world.py) or a small git repository; Kubeflow is kfp_server.py's, over HTTP.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from kfp_server import Fault, serve
from test_kubeflow import HOURLY, ON_PUSH, Wired
from test_repository import Checkout
from typer.testing import CliRunner

from graftline.cli import app
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.pipelines.reconcile import local, repository
from graftline.pipelines.reconcile.desired import OneRun
from graftline.yamlfile import load_yaml

command = import_module("graftline.cli.reconcile")  # the package names the function alike


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Wired]:
    """A Kubeflow over HTTP, and a repository of two schedules in front of it."""
    made = Wired(now=datetime.now(UTC).replace(microsecond=0))
    made.commit(schedules={"hourly": HOURLY, "on-push": ON_PUSH})
    monkeypatch.setattr(repository, "GitRepository", lambda **_: made.repository)
    monkeypatch.setattr(command, "_now", lambda: made.now)
    monkeypatch.setattr(command, "PAUSE_SECONDS", 0.0)
    with serve(made.backend) as made.url:
        monkeypatch.setenv("GRAFTLINE_KFP", made.url)
        monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
        yield made


def graftline(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_drift_reconcile_drift(world: Wired) -> None:
    assert graftline("drift").exit_code == 1
    planned = graftline("reconcile", "--dry-run")
    assert planned.output.splitlines() == [f"upload {world.repository.work('hourly').version}"]
    assert not world.backend.log
    done = graftline("reconcile")
    assert done.exit_code == 0
    assert "unpause hourly." in done.output
    assert graftline("reconcile").output == "nothing to do\n"
    same = graftline("drift")
    assert same.exit_code == 0
    assert "drift" not in same.output


def test_json_for_programs(world: Wired) -> None:
    done = json.loads(graftline("reconcile", "--json").output)
    assert done["settled"] is True
    assert done["failures"] == done["left"] == done["unsettled"] == done["queued"] == []
    found = json.loads(graftline("drift", "--json").output)
    assert {row["verdict"] for row in found} == {"same"}
    assert len(found) == 2


def test_a_backend_that_does_not_answer_is_no_drift(world: Wired) -> None:
    world.backend.fault = lambda request: Fault("drop")
    result = graftline("drift")
    assert result.exit_code == 2
    assert "it could not be told: no answer" in result.output


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
    from graftline.pipelines.reconcile.kubeflow import connect

    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", "a-secret")
    world.backend.fault = lambda request: Fault("refuse", 401)
    assert "a-secret" not in graftline("drift").output
    with connect(world.url, "a-secret") as client:
        headers: dict[str, str] = {}
        client.update_params_for_auth(headers, [], ["Bearer"])
    assert headers == {"authorization": "Bearer a-secret"}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    made = Checkout(tmp_path)
    monkeypatch.setattr(repository, "GitRepository", lambda **_: made.repository())
    monkeypatch.setattr(command, "_now", lambda: made.now)
    monkeypatch.setattr(local, "lock_path", lambda: tmp_path / "outputs/reconcile")
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


def test_a_second_reconcile_of_a_checkout_ends_at_once(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: list[str] = []

    def run(one: OneRun, url: str) -> int:
        inner.append(graftline("reconcile", "--backend", "local").output)
        return 0

    monkeypatch.setattr(local, "_graftline_run", run)
    graftline("reconcile", "--backend", "local")
    assert inner == ["another reconcile is at work; nothing done\n"]


def test_a_local_run_is_graftline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command itself, for a task that does not exist: it ends with its own exit code."""
    checkout = Checkout(tmp_path)
    (run,) = checkout.desire(checkout.now).runs
    assert run.work.task == "digits"
    assert local._graftline_run(run, str(tmp_path / "store")) == 2


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
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "graftline" not in done.stderr


def test_reconcile_on_a_cluster_is_called_as_it_is_spelled() -> None:
    """infra/base calls the commands by name."""
    text = (ROOT / "infra/base/reconcile.yaml").read_text()
    assert "graftline.cli reconcile --backend kubeflow" in text
    settings: dict[str, Any] = load_yaml(ROOT / "pipelines/settings.yaml")
    assert settings["store"].startswith("s3://")
