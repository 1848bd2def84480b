"""The pipeline's step that trains in a TrainJob, as the pipeline starts it.

The Kubernetes API is a stand-in; the launcher and the pods are real processes: torchrun, the component, and the store
between them.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
from kubernetes_server import Backend, Kubelet, write_kubeconfig
from trainjobs import IMAGE, JOB, POD, RUN, attempt

from graftline.errors import InputError
from graftline.kubernetes_api import Kubernetes
from graftline.pipelines.trainjob import __main__ as step_module
from graftline.pipelines.trainjob.__main__ import read_step
from graftline.pipelines.trainjob.cluster import Cluster, delete_jobs
from graftline.pipelines.trainjob.handover import Handover, sweep
from graftline.pipelines.trainjob.manifest import manifest
from graftline.profiles import Pod
from graftline.records.folder import verify
from graftline.store import Store
from graftline.store.opening import open_store

STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """End what a test that failed has left running."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.dataset(tmp_path_factory.getbasetemp())


def document(epochs: int) -> str:
    return json.dumps({"task": small.TASK, "pretrain": small.PARAMS["pretrain"] | {"epochs": epochs}})


def start_launcher(
    url: str, folder: Path, dataset: Path, epochs: int, *more: str, pod: Pod = POD, run: str = RUN
) -> subprocess.Popen[str]:
    """Start the pipeline's step as the pipeline does."""
    folder.mkdir(exist_ok=True)
    environment = {
        "KUBECONFIG": str(write_kubeconfig(folder / "kubeconfig", url)),
        "GRAFTLINE_RUN": run,
        "GRAFTLINE_CHECKPOINTS": str(folder / "store"),
    }
    command = [
        sys.executable, "-m", "graftline.pipelines.trainjob", "--image", IMAGE,
        "--namespace", "graftline", "--pod", pod.model_dump_json(),
        "--", "pretrain", "--params", document(epochs), "--in-dataset", str(dataset),
        "--out-trunk", str(folder / "trunk"), "--executor-output", str(folder / "executor.json"),
        "--threads", "1", *more,
    ]  # fmt: skip
    STARTED.append(forked.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True))
    return STARTED[-1]


COMMIT = {"GRAFTLINE_COMMIT": "0" * 40, "PYTHONDONTWRITEBYTECODE": "1"}


def test_a_job_whose_node_is_taken_away_goes_on_and_makes_the_unbroken_output(
    backend: Backend, url: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes; the second gets SIGTERM; both start again elsewhere, on empty disks.

    They share each batch, so that what they make has the bits of two processes, wherever these are.
    """
    for name, value in COMMIT.items():
        monkeypatch.setenv(name, value)
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = ["--params", document(8), "--in-dataset", str(dataset), "--out-trunk", str(tmp_path / "unbroken")]
    component = ["-m", "graftline.components.pretrain", *arguments, "--threads", "1"]
    done = forked.run([*two, *component], timeout=200)
    assert done.returncode == 0, done.stderr
    launcher = start_launcher(url, tmp_path / "job", dataset, 8, "--checkpoint-seconds", "1e9")
    kubelet = Kubelet(backend, COMMIT, tmp_path / "disks")
    name = attempt(backend, 0)
    steps = tmp_path / "disks"

    def stop_when_training() -> None:
        while not any(path.stat().st_size for path in steps.rglob("metrics.jsonl")):
            time.sleep(0.01)
        kubelet.processes[1].send_signal(signal.SIGTERM)

    watcher = threading.Thread(target=stop_when_training, daemon=True)
    watcher.start()
    assert kubelet.run(name) == [75, 75], backend.logs
    shutil.rmtree(steps)
    name = attempt(backend, 1)
    kubelet = Kubelet(backend, COMMIT, tmp_path / "disks")
    assert kubelet.run(name) == [0, 0], backend.logs
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, said
    assert "pretrain digits: going on from step " in said
    record = verify(tmp_path / "job/trunk")
    assert record.content == verify(tmp_path / "unbroken").content
    assert record.environment["processes"] == "2"
    told = json.loads((tmp_path / "job/executor.json").read_text())["artifacts"]["trunk"]["artifacts"][0]
    assert told["metadata"]["sha256"] == record.content
    assert backend.jobs == {}
    assert open_store(str(tmp_path / "job/store")).list("") == [], "neither checkpoints nor hand-overs"


def test_a_launcher_that_is_cancelled_deletes_the_job(
    backend: Backend, url: str, dataset: Path, tmp_path: Path
) -> None:
    launcher = start_launcher(url, tmp_path / "job", dataset, 1)
    name = attempt(backend, 0)
    backend.start(name)
    launcher.send_signal(signal.SIGTERM)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 75, said
    assert backend.jobs == {} and backend.deleted == [name]
    assert "cancelled; its pods write a checkpoint and end" in said
    assert "Traceback" not in said
    assert not (tmp_path / "job/trunk").exists()


def test_a_job_that_fails_ends_the_step_with_its_code(
    backend: Backend, url: str, dataset: Path, tmp_path: Path
) -> None:
    """The pods are real; the parameters are ones that the component refuses."""
    pod = POD.model_copy(update={"nodes": 1})
    launcher = start_launcher(url, tmp_path / "job", dataset, 0, pod=pod)
    name = attempt(backend, 0)
    assert Kubelet(backend, COMMIT, tmp_path / "disks").run(name) == [2]
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 2, said
    assert "pretrain: epochs 0 leaves a trunk untrained" in said, "what the pod said"
    assert len(backend.created) == 1


# Cancelled: 0.2 to 0.5 s to live, and nobody at stderr (K40)

CANCELS = int(os.environ.get("GRAFTLINE_KILLS", "30" if os.environ.get("GRAFTLINE_ALL_CRASHES") == "1" else "2"))


def test_the_first_thing_after_sigterm_is_the_deletion(
    backend: Backend, url: str, dataset: Path, tmp_path: Path
) -> None:
    launcher = start_launcher(url, tmp_path / "job", dataset, 1)
    name = attempt(backend, 0)
    backend.start(name)

    def follows() -> bool:
        """Return whether it waits for a change: the pod's log may be asked for before that or after."""
        asked = [request.verb for request in backend.requests]
        looked = [n for n, request in enumerate(backend.requests) if request.path.endswith("/pods")]
        return "log" in asked and "watch" in asked[looked[-1] :]

    backend.wait_for(follows)
    assert launcher.stderr
    launcher.stderr.close()
    before = len(backend.requests)
    launcher.send_signal(signal.SIGTERM)
    backend.wait_for(lambda: backend.deleted)
    # What follows the log is another thread, which may ask at any time.
    asked = [request.verb for request in backend.requests[before:] if request.verb not in ("watch", "log")]
    assert asked[0] == "DELETE", asked
    assert launcher.wait(60) == 75
    assert open_store(str(tmp_path / "job/store")).list(f"handover/{RUN}/pretrain/note.cancelled."), "then the note"


@pytest.mark.timeout(1200)
def test_a_step_that_is_cancelled_at_any_moment_leaves_no_job_and_loses_no_checkpoint(
    backend: Backend, url: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher is killed 0.05 to 0.5 s after SIGTERM; who closes the run deletes what is left. A later run of the
    same work goes on from the newest checkpoint."""
    from kubernetes import client

    for name, value in COMMIT.items():
        monkeypatch.setenv(name, value)
    api = Cluster(Kubernetes(client.ApiClient(client.Configuration(host=url))), "graftline", pause_seconds=0.01)
    pod = POD.model_copy(update={"nodes": 1})
    draw, left, went_on, newest = random.Random(3), 0, 0, 0  # of which the first two train
    lines: list[str]
    store = open_store(str(tmp_path / "job/store"))
    for number in range(CANCELS):
        run = f"run-{number}"
        launcher = start_launcher(
            url, tmp_path / "job", dataset, 100_000, "--checkpoint-seconds", "0.2", pod=pod, run=run
        )
        name = replace(JOB, run=run, attempt=0).name
        backend.wait_for(lambda: name in backend.jobs)  # noqa: B023
        lines = []
        kubelet = Kubelet(backend, COMMIT, tmp_path / f"disk-{number}")
        runs = threading.Thread(target=kubelet.run, args=(name, lines.append), daemon=True)
        runs.start()
        began = draw.random() < 0.7  # else anywhere before it trains
        while began and not [key for key in store.list("checkpoints/") if f"/{run}/" in key and key.endswith(".json")]:
            time.sleep(0.02)
        time.sleep(draw.random() * 0.5)
        assert launcher.stderr
        launcher.stderr.close()
        launcher.send_signal(signal.SIGTERM)
        time.sleep(0.05 + draw.random() * 0.45)
        launcher.kill()
        launcher.wait(60)
        left += name in backend.jobs and "deletionTimestamp" not in backend.jobs[name]["metadata"]
        delete_jobs(api, run)
        sweep(store, run)
        runs.join(60)
        assert not backend.jobs and store.list("handover/") == []
        steps = [int(found[1]) for line in lines if (found := re.search(r"going on from step (\d+)", line))]
        went_on += bool(steps)
        assert not began or not newest or steps == [newest], lines
        kept = [int(key[-13:-5]) for key in store.list("checkpoints/") if key.endswith(".json")]
        assert max(kept, default=0) >= newest
        newest = max(kept, default=0)
    print(f"{CANCELS} cancelled, {left} jobs left by their launchers, {went_on} went on, {newest} steps")


def test_an_output_that_was_changed_on_its_way_is_refused(dataset: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    handover = Handover(store, RUN, "pretrain")
    changed = tmp_path / "changed"
    shutil.copytree(dataset, changed)
    name = handover.put_input(changed)
    assert handover.get(name, tmp_path / "arrived").content == verify(dataset).content
    handover.put_output(changed)
    part = next(iter(store.list(f"{handover.prefix}/out.dataset-")))
    path = tmp_path / "store" / part
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError):
        handover.get_output("dataset", tmp_path / "output")
    assert not (tmp_path / "output").exists()


class ReadOnlyStore:
    """A store with credentials that may not delete."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def delete(self, key: str) -> None:
        raise InputError(f"store key {key}", "403 AccessDenied")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture(scope="module")
def trunk(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pods of a job with `document(1)` make."""
    out = tmp_path_factory.mktemp("made") / "trunk"
    small.make("pretrain", json.loads(document(1)), in_dataset=dataset, out_trunk=out)
    return out


@pytest.fixture
def finish(
    backend: Backend, url: str, dataset: Path, trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Return what runs the step in this process, on a job whose pods have handed `trunk` over: to its exit code."""
    from kubernetes import client

    configuration = client.Configuration(host=url)
    configuration.retries = False
    monkeypatch.setattr(
        step_module, "connect", lambda: Kubernetes(client.ApiClient(configuration))
    )  # the client reads KUBECONFIG once a process
    store = str(tmp_path / "store")
    Handover(open_store(store), RUN, "pretrain").put_output(trunk)

    def end_the_job() -> None:
        name = attempt(backend, 0)
        backend.start(name)
        backend.end(name, [0, 0])

    def run(epochs: int = 1) -> int:
        threading.Thread(target=end_the_job, daemon=True).start()
        try:
            step_module.main([
                "--image", IMAGE, "--namespace", "graftline", "--pod", POD.model_dump_json(), "--store", store,
                "--run", RUN, "pretrain", "--params", document(epochs), "--in-dataset", str(dataset),
                "--out-trunk", str(tmp_path / "trunk"),
            ])  # fmt: skip
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def test_what_cannot_be_removed_afterwards_is_said_and_the_step_has_succeeded(
    finish: Callable[..., int], backend: Backend, trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A failure would make Kubeflow train again, from zero."""
    monkeypatch.setattr(step_module, "open_store", lambda url: ReadOnlyStore(open_store(url)))
    backend.fault = lambda request: 403 if request.method == "DELETE" else None
    assert finish() == 0
    assert verify(tmp_path / "trunk").sha256 == verify(trunk).sha256
    assert "the output is whole, but what it needed is not gone: store key" in capsys.readouterr().err


def test_an_output_of_other_parameters_or_inputs_is_refused(
    finish: Callable[..., int], dataset: Path, trunk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another run that was given the same name, say."""
    assert finish(epochs=2) == 2
    assert "made with other parameters under pretrain" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    (other / "record.json").write_bytes((other / "record.json").read_bytes() + b"\n")
    step = read_step("pretrain", ["--params", document(1), "--in-dataset", str(other), "--out-trunk", "x"])
    with pytest.raises(InputError, match="made of another dataset"):
        step_module._check_made_by(step, verify(trunk), "handover")


def test_a_steps_arguments_are_read_as_the_component_reads_them(tmp_path: Path) -> None:
    step = read_step(
        "finetune",
        ["--params", '{"task": "digits"}', "--in-dataset=a", "--in-trunk", "b", "--out-model", str(tmp_path / "c"),
         "--threads", "3", "--shard", "--executor-output", "d"],
    )  # fmt: skip
    assert (step.task, step.inputs) == ("digits", {"dataset": Path("a"), "trunk": Path("b")})
    assert (step.out, step.executor_output) == (tmp_path / "c", Path("d"))
    assert step.rest == ["--params", '{"task": "digits"}', "--threads", "3", "--shard"]


@pytest.mark.parametrize("missing", ["GRAFTLINE_RUN", "GRAFTLINE_CHECKPOINTS"])
def test_without_a_store_or_a_run_nothing_is_started(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftline.pipelines.trainjob.__main__ import main

    monkeypatch.setenv("GRAFTLINE_RUN", RUN)
    monkeypatch.setenv("GRAFTLINE_CHECKPOINTS", "store")
    monkeypatch.delenv(missing)
    with pytest.raises(SystemExit) as ended:
        main(["--image", IMAGE, "--namespace", "graftline", "--pod", "{}", "--", "pretrain"])
    assert ended.value.code == 2
    assert "the engine sets" in capsys.readouterr().err


def test_no_secret_is_in_a_manifest(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's credentials are in the launcher's environment; the pods have theirs from the runtime's secret."""
    given = {
        "AWS_ACCESS_KEY_ID": "AKIA-not-to-be-seen",
        "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
        "AWS_SESSION_TOKEN": "not-to-be-seen",
        "GRAFTLINE_GIT_TOKEN": "not-to-be-seen",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    arguments = [
        "--image", IMAGE, "--namespace", "graftline", "--pod", "{}", "--store", str(tmp_path / "store"), "--run", RUN,
        "pretrain", "--params", document(1), "--in-dataset", str(dataset), "--out-trunk", str(tmp_path / "trunk"),
    ]  # fmt: skip
    parsed = step_module._parser().parse_args(arguments)
    step = read_step(parsed.component, parsed.arguments)
    handover = Handover(open_store(parsed.store), RUN, "pretrain")
    text = json.dumps(manifest(step_module._job(parsed, Pod(), step, handover), "graftline"))
    assert "GRAFTLINE_CHECKPOINTS" in text
    assert not [name for name in (*given, "not-to-be-seen") if name in text]
