"""`graftline submit` against an HTTP server that follows Kubeflow Pipelines' API; kfp_server.py says how far."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from click.testing import Result
from kfp_server import Fault, KfpBackend, Request, hearing, serve
from kfp_server_api import models
from typer.testing import CliRunner

from graftline.cli import app
from graftline.environment import ROOT
from graftline.errors import GraftlineError, InputError
from graftline.pipelines import compile as compiling
from graftline.pipelines import data, settings
from graftline.pipelines.compile import CompiledPipeline, compiled

TASK = "mnist"
HEAD = "c" * 40


@dataclass
class Server:
    """The server, and how the command is run against it."""

    backend: KfpBackend
    url: str

    def submit(self, *arguments: str) -> Result:
        return CliRunner().invoke(
            app, ["submit", TASK, "--endpoint", self.url, "--every", "0.01", *arguments]
        )

    @property
    def run(self) -> Any:
        (run,) = self.backend.runs.values()
        return run


@cache
def _compiled(task: str, profiles: tuple[tuple[str, str], ...], overrides: str) -> CompiledPipeline:
    return compiled(task, profiles=dict(profiles), overrides=json.loads(overrides))


def once_each(
    task: str, *, profiles: dict[str, str] | None = None, overrides: dict[str, Any] | None = None
) -> CompiledPipeline:
    """Compile each pipeline once for all tests: that takes a second."""
    return _compiled(task, tuple(sorted((profiles or {}).items())), json.dumps(overrides or {}))


@pytest.fixture(scope="module")
def pipeline() -> CompiledPipeline:
    return compiled(TASK)


@pytest.fixture
def server(pipeline: CompiledPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A multi-user server without anything on it; the checkout stands at HEAD with nothing changed."""
    monkeypatch.setattr(data, "committed_revision", lambda task: HEAD)
    monkeypatch.setattr(compiling, "compiled", once_each)
    monkeypatch.delenv("GRAFTLINE_KFP_TOKEN", raising=False)
    backend = KfpBackend(namespace="graftline")
    with serve(backend) as url:
        yield Server(backend, url)


def finish(server: Server, steps: dict[str, str], state: str, message: str = "") -> threading.Thread:
    """Let the run that is submitted next pass through `steps` and end in `state`, in the background."""

    def act() -> None:
        for _ in range(4000):  # a command that fails submits nothing
            if server.backend.runs:
                break
            time.sleep(0.005)
        (run_id,) = server.backend.runs
        details = []
        for name, step_state in steps.items():
            error = models.GoogleRpcStatus(message=message) if step_state == "FAILED" else None
            details.append(models.V2beta1PipelineTaskDetail(display_name=name, state=step_state, error=error))
            run = server.backend.runs[run_id]
            run.run_details = models.V2beta1RunDetails(task_details=list(details))
            server.backend.set_state(run_id, "RUNNING")
            time.sleep(0.03)
        server.backend.set_state(run_id, state)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_a_run_is_made_of_a_version_that_it_names(server: Server, pipeline: CompiledPipeline) -> None:
    done = server.submit()
    assert done.exit_code == 0, done.output
    (uploaded,) = server.backend.versions.values()
    assert (uploaded.name, uploaded.pipeline_spec["pipeline_spec"]) == (
        pipeline.version, pipeline.spec["pipelineSpec"],
    )  # fmt: skip
    assert uploaded.pipeline_spec["platform_spec"] == pipeline.spec["platformSpec"]
    run = server.run
    assert run.pipeline_version_reference.pipeline_version_id == uploaded.pipeline_version_id
    assert run.service_account == "graftline-run"
    given = run.runtime_config.parameters
    assert given["revision"] == HEAD
    assert given["data_digest"] == data.task_digest(TASK)
    assert json.loads(given["reason"])["kind"] == "person"
    assert run.display_name == f"{TASK}-{given['run_key'][:16]}"
    assert run.display_name in done.output
    assert f"{server.url}/#/runs/details/{run.run_id}" in done.output


def test_the_same_run_is_not_started_twice_unless_asked(server: Server) -> None:
    server.submit()
    again = server.submit()
    assert again.exit_code == 0
    assert "was submitted before: pending; --again starts another" in again.output
    assert server.run.run_id in again.output
    assert server.submit("--again").exit_code == 0
    assert len(server.backend.runs) == 2
    assert (
        len(server.backend.versions) == len(server.backend.pipelines) == len(server.backend.experiments) == 1
    )
    keys = {run.runtime_config.parameters["run_key"] for run in server.backend.runs.values()}
    assert len(keys) == 2, "another run has another key, name and record"


def test_parameters_of_the_run_and_a_profile(server: Server, pipeline: CompiledPipeline) -> None:
    server.submit()
    params = (ROOT / f"data/{TASK}/params.yaml").read_bytes()
    done = server.submit("--set", "finetune.epochs=3", "--profile", "cpu", "--store", "s3://other/place")
    assert done.exit_code == 0, done.output
    assert (ROOT / f"data/{TASK}/params.yaml").read_bytes() == params
    first, second = server.backend.runs.values()
    given = second.runtime_config.parameters
    assert json.loads(given["finetune_params"])["finetune"]["epochs"] == 3
    assert given["store"] == "s3://other/place"
    assert given["pretrain_params"] == first.runtime_config.parameters["pretrain_params"]
    assert len(server.backend.versions) == 2, "another place is another version"
    assert given["version"] != pipeline.version


def test_watching_shows_each_step_and_ends_with_the_run(server: Server) -> None:
    steps = dict.fromkeys(
        ("fetch", "validate", "exit-handler-1", "pretrain", "publish", "conclude"), "SUCCEEDED"
    )
    thread = finish(server, steps, "SUCCEEDED")
    done = server.submit("--watch")
    thread.join()
    assert done.exit_code == 0, done.output
    lines = [tuple(line.split()) for line in done.output.splitlines()]
    shown = [line for line in lines if len(line) == 2 and line[1] == "succeeded"]
    assert shown == [
        *((step, "succeeded") for step in ("fetch", "validate", "pretrain", "publish", "conclude")),
        ("ended", "succeeded"),
    ]


@pytest.mark.parametrize(
    ("step", "message", "code"),
    [
        ("pretrain", "Error (exit code 1): no space", 1),
        ("publish", "Error (exit code 3)", 3),
        ("publish", "Error (exit code 1)", 1),
        ("evaluate", "Error (exit code 3)", 1),
    ],
)
def test_the_exit_code_is_the_runs_outcome(server: Server, step: str, message: str, code: int) -> None:
    thread = finish(server, {"fetch": "SUCCEEDED", step: "FAILED"}, "FAILED", message)
    done = server.submit("--watch")
    thread.join()
    assert done.exit_code == code
    assert message in done.output


def test_watching_a_run_that_was_submitted_before(server: Server) -> None:
    server.submit()
    thread = finish(server, {"fetch": "SUCCEEDED"}, "SUCCEEDED")
    done = server.submit("--watch")
    thread.join()
    assert done.exit_code == 0
    assert len(server.backend.runs) == 1


def test_looks_that_fail_do_not_end_the_watch(server: Server) -> None:
    looks = iter(range(1000))

    def flaky(request: Request) -> Fault | None:
        look = request.method == "GET" and re.fullmatch("/runs/[^/]+", request.path)
        return Fault("refuse", 503) if look and next(looks) % 2 == 0 else None

    server.backend.fault = flaky
    thread = finish(server, {"fetch": "SUCCEEDED"}, "SUCCEEDED")
    assert server.submit("--watch").exit_code == 0
    thread.join()


@pytest.mark.parametrize("path", ["/experiments", "/pipelines", "/pipelines/upload_version", "/runs"])
def test_an_answer_that_was_lost_is_settled_by_the_same_command(server: Server, path: str) -> None:
    lost: list[str] = []

    def once(request: Request) -> Fault | None:
        if request.changes and request.path == path and not lost:
            lost.append(path)
            return Fault("act-then-drop")
        return None

    server.backend.fault = once
    first = server.submit()
    assert isinstance(first.exception, GraftlineError)
    assert not isinstance(first.exception, InputError)
    assert server.submit().exit_code == 0
    backend = server.backend
    assert [
        len(each) for each in (backend.experiments, backend.pipelines, backend.versions, backend.runs)
    ] == [1] * 4


def test_the_token_is_sent_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "a-secret-token"
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", token)
    with hearing() as (url, headers):
        done = CliRunner().invoke(app, ["submit", TASK, "--endpoint", url])
    assert set(headers) == {f"Bearer {token}"}
    assert isinstance(done.exception, GraftlineError)
    assert token not in done.output + str(done.exception)
    assert "401" in str(done.exception)


@pytest.mark.parametrize("multi_user", [True, False])
def test_a_multi_user_installation_is_told_the_namespace_and_a_standalone_one_is_not(
    server: Server, multi_user: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = settings.load_settings().model_copy(update={"multi_user": multi_user})
    monkeypatch.setattr(settings, "load_settings", lambda: told)
    assert isinstance(server.submit().exception, GraftlineError) != multi_user
    server.backend.namespace = ""
    done = server.submit()
    assert done.exit_code == 0
    assert ("was submitted before" in done.output) == multi_user
    (experiment,) = server.backend.experiments.values()
    (made,) = server.backend.pipelines.values()
    assert experiment.namespace == made.namespace == ("graftline" if multi_user else None)


def test_a_login_page_is_no_kubeflow(server: Server) -> None:
    with hearing(200, b"<html>Log in</html>") as (url, _):
        done = CliRunner().invoke(app, ["submit", TASK, "--endpoint", url])
    assert isinstance(done.exception, GraftlineError)
    assert "an answer that is not Kubeflow's: text/html" in str(done.exception)


@pytest.mark.parametrize("endpoint", ["", "kubeflow.example.com"])
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    done = CliRunner().invoke(app, ["submit", TASK, "--endpoint", endpoint], env={"GRAFTLINE_KFP": ""})
    assert isinstance(done.exception, InputError)
    assert "$GRAFTLINE_KFP" in str(done.exception)


@pytest.mark.parametrize("place", ["raw.dvc", "expectations.yaml"])
def test_data_that_is_not_committed_cannot_be_submitted(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A cluster clones the commit: it would not find what lies here."""
    from graftline import environment

    folder = tmp_path / "data/toy"
    folder.mkdir(parents=True)
    for name in ("raw.dvc", "expectations.yaml"):
        (folder / name).write_text("a: 1\n")
    git: Callable[..., Any] = lambda *arguments: subprocess.run(  # noqa: E731
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "data")
    assert data.committed_revision("toy") == git("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "unrelated.txt").write_text("new")
    assert data.committed_revision("toy")
    (folder / place).write_text("a: 2\n")
    with pytest.raises(InputError, match=f"data/toy/{place}: differs from the commit"):
        data.committed_revision("toy")
