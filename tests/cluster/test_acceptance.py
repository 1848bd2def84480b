"""`make cluster-test` against stand-ins: what it says, what it leaves, how it ends. No pod runs: a script plays the
cluster, and does to each run what a real one was seen to do. What only a real cluster shows is left to it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
import pytest
from cluster_api import Api
from cluster_api import serve as serve_cluster
from kfp_server import KfpBackend
from kfp_server import serve as serve_kubeflow

from graftline import runs
from graftline.environment import ROOT
from graftline.store import Store
from graftline.store.opening import open_store

HERE = Path(__file__).parent
STAGES = ("claim", "fetch", "validate", "pretrain", "finetune", "evaluate", "publish")


class Script(threading.Thread):
    """Plays the cluster: takes each new run to the end that its parameters ask for."""

    def __init__(self, api: Api, backend: KfpBackend) -> None:
        super().__init__(daemon=True)
        self.api, self.backend, self.over = api, backend, threading.Event()
        self.refused_as: runs.State = "REFUSED"
        self.stores_checkpoints = True
        self._begun: dict[str, runs.Start] = {}
        self._stores: dict[str, Store] = {}
        self._trained: set[str] = set()
        self._versions: set[str] = set()
        self.faults: list[BaseException] = []

    def run(self) -> None:
        while not self.over.wait(0.1):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001  (the test shows it)
                self.faults.append(error)

    def _look(self) -> None:
        for version in list(self.backend.versions.values()):
            if version.name not in self._versions:
                self._versions.add(version.name)
                self._add("pipelines.kubeflow.org/v2beta1", "PipelineVersion", version.name)
        for run_id, run in list(self.backend.runs.items()):
            if run_id not in self._begun:
                self._begin(run_id, run.runtime_config.parameters)
            elif run.state == "CANCELING":
                self._end(run_id, "CANCELED")
            elif run.state == "RUNNING":
                self._train(run_id)

    def _begin(self, run_id: str, given: dict[str, str]) -> None:
        reason = json.loads(given.get("reason") or "{}")
        start = runs.Start(run_id, given["run_key"], given["task"], given["version"], reason=reason)
        store = self._stores[run_id] = open_store(given["store"])
        self._begun[run_id] = start
        self.backend.set_state(run_id, "RUNNING")
        self._add("argoproj.io/v1alpha1", "Workflow", f"w-{run_id}", {"pipeline/runid": run_id})
        runs.begin(store, start)
        if given["data_digest"] == "0" * 64:
            self._say(run_id, "fetch", 2, "fetch: raw data and contract have another sha256")
            self._end(run_id, "FAILED", "fetch", "fetch: raw data and contract have another sha256")
        elif json.loads(given["evaluate_params"])["evaluate"]["gate"]["floors"]["accuracy"] == 1.0:
            self._say(run_id, "publish", 3, "publish: refused by the gate")
            self._end(run_id, self.refused_as, "publish", "publish: refused by the gate")
        elif json.loads(given["pretrain_params"])["pretrain"]["epochs"] < 1000:
            cached = given["evaluate_params"] in self._trained
            self._trained.add(given["evaluate_params"])
            for stage in STAGES:
                self._say(run_id, stage, 0, "")
            done = {stage: "CACHED" if cached and stage in STAGES[1:5] else "SUCCEEDED" for stage in STAGES}
            self.backend.set_steps(run_id, done)
            store.put_if_absent("releases/mnist/1/manifest.json", b"{}")
            self._end(run_id, "SUCCEEDED")

    def _train(self, run_id: str) -> None:
        """A run that trains: its pod is made, again when it is lost, and goes on where there is a checkpoint."""
        name, store = f"pretrain-{run_id}", self._stores[run_id]
        if any(each["metadata"]["name"] == name for each in self.api.objects):
            return
        going_on = bool(store.list("checkpoints/")) and (name in self.api.logs or len(self._begun) > 1)
        self.api.logs[name] = "pretrain: going on from step 12 of 95\n" if going_on else "pretrain: step 0\n"
        if self.stores_checkpoints:
            store.put_if_absent(f"checkpoints/pretrain/{run_id}", b"1")
        pod = self._add("v1", "Pod", name, {"graftline.dev/run": run_id})
        pod["spec"] = {"containers": [{"name": "main", "args": ["graftline.pipelines.step", "pretrain"]}]}
        pod["status"] = {"phase": "Running"}

    def _end(self, run_id: str, state: runs.State, step: str = "", line: str = "") -> None:
        runs.conclude(self._stores[run_id], runs.End(self._begun[run_id], state, step, line))
        self.backend.set_state(run_id, "SUCCEEDED" if state == "SUCCEEDED" else "FAILED")

    def _say(self, run_id: str, step: str, code: int, line: str) -> None:
        word = runs.Attempt(run_id, step, code, line, "2026-11-29T00:00:00Z", "2026-11-29T00:00:01Z")
        runs.add_attempt(self._stores[run_id], word)

    def _add(self, version: str, kind: str, name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
        made = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "namespace": "graftline", "labels": labels or {}},
        }
        self.api.objects.append(made)
        return made


class Place:
    """A scripted cluster, and the command against it."""

    def __init__(self, script: Script, environment: dict[str, str], store: str) -> None:
        self.script, self.environment, self.store = script, environment, store

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "acceptance.py"), "--store", self.store, "--pause", "0.1", *arguments]
        return forked.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        process = self.start("--json", *arguments)
        out, err = process.communicate(timeout=280)
        assert not self.script.faults, self.script.faults
        rows = json.loads(out) if out else pytest.fail(err)
        return process.returncode, {row["name"]: row for row in rows}

    def assert_nothing_is_left(self) -> None:
        assert self.script.backend.runs == {}
        assert self.script.api.objects == []
        assert open_store(self.store).list("") == []


@pytest.fixture(scope="module")
def loaded() -> None:
    """What its commands load, a process has loaded already that they are forked from."""
    modules = ("kfp.compiler", "kfp_server_api", "kubernetes", "boto3", "graftline.cli.submit", "graftline.cli.trace")
    forked.run([sys.executable, "-c", "\n".join(f"import {name}" for name in modules)])


@pytest.fixture
def place(loaded: None, tmp_path: Path, moto_url: str) -> Iterator[Place]:
    with scripted(tmp_path, moto_url) as found:
        yield found


@contextmanager
def scripted(folder: Path, store: str) -> Iterator[Place]:
    api, backend = Api([], {}), KfpBackend(namespace="graftline")
    script = Script(api, backend)
    with serve_cluster(api) as cluster, serve_kubeflow(backend) as kubeflow:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": cluster}}],
            "users": [{"name": "test", "user": {}}],
        }
        (folder / "kubeconfig").write_text(json.dumps(document))
        claims = base64.urlsafe_b64encode(b'{"sub": "system:serviceaccount:graftline:graftline-reconcile"}').decode()
        environment = os.environ | {
            "KUBECONFIG": str(folder / "kubeconfig"),
            "GRAFTLINE_KFP": kubeflow,
            forked.STARTS: "1",
            "OMP_NUM_THREADS": "1",
            "GRAFTLINE_KFP_TOKEN": f"x.{claims.rstrip('=')}.x",
        }
        script.start()
        yield Place(script, environment, store)
        script.over.set()
        script.join()


def only(*rows: str) -> list[str]:
    return [text for row in rows for text in ("--only", row)]


def test_rows_pass_against_a_cluster_that_does_as_a_real_one_did(place: Place) -> None:
    rows = ("release", "bad data", "cancel", "refusal", "cache", "twice at once", "pod lost")
    code, table = place.run(*only(*rows))
    assert {name: (row["state"], row["said"]) for name, row in table.items() if row["state"] != "passed"} == {}
    assert code == 0
    assert set(table) == {*rows, "clean-up"}
    assert "going on from step 12" in table["cancel"]["said"]
    assert "going on from step 12" in table["pod lost"]["said"]
    place.assert_nothing_is_left()


def test_a_row_that_does_not_hold_fails_and_its_followers_are_skipped(place: Place) -> None:
    """A refusal that is stored as a failure, as it was before steps left their word (K4)."""
    place.script.refused_as = "FAILED"
    code, table = place.run(*only("release", "refusal", "three slots"), "--minutes", "6")
    assert code == 1
    assert table["release"]["state"] == "passed"
    assert table["refusal"]["state"] == "failed"
    assert table["three slots"]["state"] == "skipped"
    assert "s are left" in table["three slots"]["said"]
    place.assert_nothing_is_left()


def test_an_interrupt_leaves_nothing(place: Place) -> None:
    place.script.stores_checkpoints = False
    process = place.start(*only("cancel"))
    end = time.monotonic() + 120
    while not any(each["kind"] == "Pod" for each in list(place.script.api.objects)):
        assert time.monotonic() < end, process.communicate(timeout=5)
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "nothing is left" in out
    place.assert_nothing_is_left()


def test_the_kill_finds_the_steps_own_program_and_nothing_else() -> None:
    """What `fails once` runs inside the pod."""
    sys.path.insert(0, str(HERE))
    from rows_losses import KILL

    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    name = f"graftline.components.test-{os.getpid()}"  # all of this machine is in one PID namespace: other tests train
    runner = subprocess.Popen([*sleep, "graftline.pipelines.step", "pretrain"])
    program = subprocess.Popen([*sleep, "-m", name])
    try:
        done = subprocess.run([sys.executable, "-c", KILL, name], capture_output=True, text=True, check=True)
        assert "killed" in done.stdout
        assert program.wait(10) == -signal.SIGKILL
        assert runner.poll() is None
    finally:
        runner.kill()
        program.kill()


def test_without_what_it_needs_it_says_so_in_one_line(place: Place) -> None:
    place.environment.pop("GRAFTLINE_KFP")
    process = place.start()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = err.splitlines()
    assert "GRAFTLINE_KFP" in line
