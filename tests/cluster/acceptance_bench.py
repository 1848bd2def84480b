"""The cluster as the acceptance sees it, what it has made there, and what its rows share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import forked

from graftline import runs
from graftline.environment import ROOT
from graftline.kubeflow_api import KubeflowApi
from graftline.kubeflow_api import connect as connect_kubeflow
from graftline.kubernetes_api import Kubernetes, RefusedError
from graftline.settings import Settings
from graftline.store import Store
from graftline.store.opening import open_store

TASK = "mnist"
SMALL = {
    "pretrain.epochs": 2,
    "finetune.epochs": 1,
    "finetune.min_steps": 10,
    "evaluate.lift_labels": [5],
    "evaluate.lift_seeds": 2,
    "evaluate.gate": {"floors": {"accuracy": 0.0}, "ceilings": {"ece": 1.0}, "min_lift": {}, "max_champion_loss": 1.0},
}
"""Seconds of training: what is looked at is the machinery, so the gate lets everything in."""
RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Kubeflow's id of a run."""


class Failed(Exception):  # noqa: N818  (what a row found)
    """A row does not hold."""


@dataclass
class Bench:
    """The cluster, the store of this acceptance, and what was made."""

    settings: Settings
    kubernetes: Kubernetes
    endpoint: str
    store: Store
    id: str
    profile: str
    keys: Path
    """The folder of a keyring that trusts the cluster's."""
    ends_at: float
    """On the monotonic clock."""
    pause: float
    """Seconds between two looks."""
    runs: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    """Pipeline versions that were used."""
    known: set[str] = field(default_factory=set)
    """Objects of versions that were there before."""
    folder: Path = Path()
    quiet: bool = False
    grants: tuple[str, ...] = ()
    """Kubernetes objects that were made for the time of the test."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when somebody has interrupted it."""
    children: list[subprocess.Popen[str]] = field(default_factory=list)
    """Commands at work."""
    parts: list[Store] = field(default_factory=list)
    """Stores below this one, for rows whose reconcile must see nothing of the others."""
    trains: threading.Lock = field(default_factory=threading.Lock)
    """Held by a row whose run trains for long: on two cores one at a time, and every new checkpoint is that row's."""
    _said: threading.Lock = field(default_factory=threading.Lock)

    @property
    def left(self) -> float:
        return 0.0 if self.stopped.is_set() else self.ends_at - time.monotonic()

    def say(self, row: str, text: str) -> None:
        """Print a line of progress, with the time that is left."""
        if not self.quiet:
            minutes, seconds = divmod(max(0, int(self.left)), 60)
            with self._said:
                print(f"[{minutes:2}:{seconds:02} left] {row:18} {text}", file=sys.stderr, flush=True)

    def wait(self, row: str, what: str, found: Callable[[], Any], seconds: float) -> Any:
        """Return what `found` returns once that is something. Raises Failed after so long, or when time is up."""
        end = time.monotonic() + min(seconds, self.left)
        said = time.monotonic()
        while not (value := found()):
            if time.monotonic() > end or self.stopped.is_set():
                raise Failed(f"{what}: not within {seconds:.0f} s")
            if time.monotonic() - said > 15:
                self.say(row, f"waits for {what}")
                said = time.monotonic()
            time.sleep(self.pause)
        return value

    # The product's commands

    def graftline(self, *arguments: str, place: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of this checkout, or of the clone at `place`."""
        environment = os.environ | {"GRAFTLINE_KEYS": str(self.keys), "GRAFTLINE_KFP": self.endpoint}
        command = [sys.executable, "-m", "graftline.cli"]
        if place:
            environment["PYTHONPATH"] = str(place / "build/package")
        process = forked.Popen(
            [*command, *arguments],
            cwd=place or ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(process)
        try:
            out, err = process.communicate(timeout=max(1.0, self.left))
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err = f"{err}\ntime is up"
        finally:
            self.children.remove(process)
        done = subprocess.CompletedProcess([*command, *arguments], process.returncode, out, err)
        self.runs |= set(re.findall(r"^id +(\S+)$", done.stdout, re.MULTILINE))
        self.versions |= set(re.findall(r"\bretrain-[\w-]+-[0-9a-f]{12}\b", done.stdout))
        return done

    def submit(self, changes: Mapping[str, Any], *more: str, watch: bool = True) -> subprocess.CompletedProcess[str]:
        """Start a run with the small budgets and `changes`; with `watch` follow it to its end."""
        values = SMALL | dict(changes)
        sets = [text for key, value in values.items() for text in ("--set", f"{key}={json.dumps(value)}")]
        where = ["--store", self.store.url, "--profile", self.profile]
        follow = ["--watch", "--every", str(self.pause)] if watch else []
        return self.graftline("submit", TASK, *where, *sets, *follow, *more)

    def started(self, changes: Mapping[str, Any], *more: str) -> str:
        """Start a run and return its id."""
        done = self.submit(changes, *more, watch=False)
        found = re.search(r"^id +(\S+)$", done.stdout, re.MULTILINE)
        if done.returncode or not found:
            raise Failed(f"submit ended with {done.returncode}: {last_line(done)}")
        return found[1]

    @contextmanager
    def kubeflow(self) -> Iterator[KubeflowApi]:
        with connect_kubeflow(self.endpoint) as client:
            yield KubeflowApi(
                client, namespace=self.settings.api_namespace, service_account=self.settings.service_account
            )

    def call_kubeflow(self, method: str, path: str) -> None:
        """Make a call that the product itself never makes. Raises RefusedError."""
        from kfp_server_api.exceptions import ApiException

        with connect_kubeflow(self.endpoint) as client:
            try:
                client.call_api(path, method, auth_settings=["Bearer"], _request_timeout=30)
            except ApiException as error:
                raise RefusedError(error.status or 0, str(error.reason)) from None

    # What is seen in the cluster

    @property
    def place(self) -> str:
        return f"/api/v1/namespaces/{self.settings.namespace}"

    def pods(self, run: str, step: str = "") -> list[dict[str, Any]]:
        """Return a run's pods; those of one step's container if it is named."""
        found = self.kubernetes.items(f"{self.place}/pods", labelSelector=f"graftline.dev/run={run}")
        wanted = f'"{step}"'
        return [pod for pod in found if not step or wanted in json.dumps(pod["spec"].get("containers"))]

    def jobs(self, run: str) -> list[dict[str, Any]]:
        path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{self.settings.namespace}/trainjobs"
        return self.kubernetes.items(path, labelSelector=f"graftline.dev/run={run}")

    def log(self, pod: str) -> str:
        """Return what a pod has printed so far; "" if it is gone."""
        from kubernetes.client import ApiException, CoreV1Api

        try:
            api = CoreV1Api(self.kubernetes.api)
            return str(api.read_namespaced_pod_log(pod, self.settings.namespace, container="main"))
        except ApiException:
            return ""

    def end(self, run: str) -> runs.End | None:
        """Return how a run ended, from whichever store it wrote to."""
        found = [end for store in (self.store, *self.parts) for end in runs.ends(store, run)]
        return found[-1] if found else None

    def part(self, name: str) -> Bench:
        """Return the same bench with a store of its own below this one's."""
        self.parts.append(open_store(f"{self.store.url}/{name}"))
        return replace(self, store=self.parts[-1])

    def terminate(self, run: str) -> None:
        """Cancel a run as Kubeflow's page does; where our token may not, do to its workflow what Kubeflow does."""
        try:
            self.call_kubeflow("POST", f"/apis/v2beta1/runs/{run}:terminate")
        except RefusedError as error:
            if error.status != 403:
                raise
            for workflow in self.workflows(run):
                self.kubernetes.patch(self.workflow_path(workflow), {"spec": {"activeDeadlineSeconds": 0}})

    def workflows(self, run: str) -> list[str]:
        found = self.kubernetes.items(self.workflow_path(), labelSelector=f"pipeline/runid={run}")
        return [each["metadata"]["name"] for each in found]

    def workflow_path(self, name: str = "") -> str:
        return f"/apis/argoproj.io/v1alpha1/namespaces/{self.settings.namespace}/workflows/{name}".rstrip("/")

    def training(self, row: str, run: str, before: set[str]) -> str:
        """Wait until a run trains and has stored a checkpoint besides those of `before`; return the pod."""

        def stored() -> bool:
            if end := self.end(run):
                raise Failed(f"run {run} ended before it trained: {end.state} {end.step} {end.line}")
            return bool(set(self.store.list("checkpoints/")) - before)

        self.wait(row, "a checkpoint in the store", stored, 300)
        alive = [
            pod["metadata"]["name"]
            for pod in self.pods(run, "pretrain")
            if (pod.get("status") or {}).get("phase") == "Running"
        ]
        if not alive:
            raise Failed(f"run {run} has a checkpoint and no pod that trains")
        return str(alive[0])

    def goes_on(self, row: str, run: str) -> str:
        """Wait until a run's training says from which step it goes on; return that line."""

        def told() -> str:
            said = (self.log(pod["metadata"]["name"]) for pod in self.pods(run, "pretrain"))
            lines = [line for text in said for line in text.splitlines() if "going on from step" in line]
            return lines[-1] if lines else ""

        return str(self.wait(row, "training to go on from its checkpoint", told, 300))


def expect(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    """Return a command that ended with `code`. Raises Failed."""
    if done.returncode != code:
        raise Failed(f"{' '.join(done.args[3:5])} ended with {done.returncode}, not {code}: {last_line(done)}")
    return done


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command said last, on both streams."""
    said = [text.strip().splitlines()[-1].strip() for text in (done.stdout, done.stderr) if text.strip()]
    return "; ".join(said) or "it said nothing"


def run_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the id of the run that a submit followed last."""
    found = re.findall(r"^(?:id +(\S+)|run +(\S+) does this work)", done.stdout, re.MULTILINE)
    if not found:
        raise Failed(f"submit names no run: {last_line(done)}")
    return str(found[-1][0] or found[-1][1])


def ended_as(bench: Bench, row: str, run: str, state: str) -> str:
    end: runs.End = bench.wait(row, f"the end of run {run} in the store", lambda: bench.end(run), 300)
    if end.state != state:
        raise Failed(f"run {run} is {end.state} in the store, not {state}: {end.line}")
    return f"{state}, {end.step}: {end.line}" if end.step else state


def run_ids(bench: Bench) -> list[str]:
    """Return the runs that the acceptance's store knows of."""
    return sorted({found[0] for key in bench.store.list("runs/") if (found := RUN.search(key))})
