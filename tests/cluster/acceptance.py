"""The product's acceptance on the cluster of kubectl's context: `make cluster-test`.

    .venv/bin/python tests/cluster/acceptance.py [--only ROW]... [--minutes 20] [--profile all=dev] [--json]

It uses the product's own commands, with a small task, a store of its own below the settings' one, and a right of its
own to end and delete runs; nothing of that is left when it ends, however it ends. What it needs: the commit that is
checked out is where the cluster clones from, its images are pushed (docs/cluster.md), GRAFTLINE_KFP and
GRAFTLINE_KFP_TOKEN, and the store's credentials in the environment.

Exit codes: 0 rows passed, and others were skipped at most; 1 a row failed, none passed, or something is left; 2 it
could not begin; 130 interrupted.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import forked

from graftline import runs
from graftline.environment import ROOT
from graftline.errors import GraftlineError, InputError
from graftline.kubeflow_api import TOKEN, KubeflowApi, check_endpoint
from graftline.kubeflow_api import connect as connect_kubeflow
from graftline.kubernetes_api import Kubernetes, RefusedError
from graftline.kubernetes_api import connect as connect_cluster
from graftline.settings import Settings, load_settings
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
DEV = {"all": "dev"}
"""The pool of what reconcile starts."""
LONG = {"pretrain.epochs": 2000}
"""Trains until it is ended."""
CACHED = ("fetch", "validate", "pretrain", "finetune")
RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Kubeflow's id of a run."""
PROGRAM = "graftline.components.pretrain"
KILL = """import os, signal, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    try: words = open(f"/proc/{pid}/cmdline").read().split(chr(0))
    except OSError: continue
    if sys.argv[1] in words and int(pid) != os.getpid(): os.kill(int(pid), signal.SIGKILL); print("killed")
"""
"""Ends the step's own program, inside its container: the runner sees a failure, the cluster sees none."""


class Failed(Exception):  # noqa: N818  (what a row found)
    """A row does not hold."""


class Skipped(Exception):  # noqa: N818  (a row that was not asked)
    """A row cannot be looked at here."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    state: str
    """passed, failed or skipped."""
    seconds: float
    said: str


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


# The rows, in the order of the table


def row_doctor(bench: Bench) -> str:
    done = bench.graftline("doctor", "--profile", bench.profile, "--json")
    try:
        points = json.loads(done.stdout)["points"]
    except ValueError:
        raise Failed(last_line(done)) from None
    wrong = [f"{point['name']}: {point['found']}" for point in points if point["counts"]]
    if wrong:
        raise Failed("; ".join(wrong))
    return f"{len(points)} points"


def row_release(bench: Bench) -> str:
    """A run from submit to release."""
    done = expect(bench.submit({}), 0)
    if not bench.store.list(f"releases/{TASK}/"):
        raise Failed("the run ended well, and the store has no release")
    return f"run {run_of(done)} released {TASK}@1"


def row_trace(bench: Bench) -> str:
    """The lineage of that release shows the run, its steps and their pods."""
    done = expect(bench.graftline("trace", TASK, "--store", bench.store.url), 0)
    found = bench.graftline("trace", TASK, "--store", bench.store.url, "--json")
    text = found.stdout + done.stdout
    run = next((run for run in sorted(bench.runs) if f"run {run}" in done.stdout), "")
    if not run:
        raise Failed(f"trace names no run: {done.stdout.splitlines()[:4]}")
    said = runs.attempts(bench.store, run)
    missing = sorted({attempt.pod for attempt in said if attempt.pod and attempt.pod not in text})
    if missing or not said:
        raise Failed(f"trace does not show the pods {', '.join(missing[:3])}" if said else "no step left a word")
    return f"run {run}, {len(said)} steps with their pods"


def row_cache(bench: Bench) -> str:
    """The same work once more takes fetch to finetune from the cache."""
    done = expect(bench.submit({}, "--again"), 0)
    missed = [step for step in CACHED if not re.search(rf"^{step} +from the cache$", done.stdout, re.MULTILINE)]
    if missed:
        raise Failed(f"not from the cache: {', '.join(missed)}")
    return f"{', '.join(CACHED)} from the cache"


def row_twice(bench: Bench) -> str:
    """Two submits of one run at once: one works, the other follows it."""
    changes = {"evaluate.lift_seeds": 3}
    with ThreadPoolExecutor(2) as pool:
        both = [future.result() for future in [pool.submit(bench.submit, changes) for _ in range(2)]]
    for done in both:
        expect(done, 0)
    keys = {end.start.key: end for run in {run_of(done) for done in both} if (end := bench.end(run))}
    released = [end for end in keys.values() if end.state == "SUCCEEDED"]
    if len(keys) > 1 or len(released) > 1:
        raise Failed(f"{len(released)} runs did the work of {len(keys)} keys")
    return "one worked; " + (
        "the other followed it" if "does this work" in both[0].stdout + both[1].stdout else "the other found it there"
    )


def row_refusal(bench: Bench) -> str:
    """A gate that no model passes: exit code 3, REFUSED in the store, nothing released."""
    gate = dict(SMALL["evaluate.gate"]) | {"floors": {"accuracy": 1.0}}  # type: ignore[call-overload]
    done = expect(bench.submit({"evaluate.gate": gate}), 3)
    return ended_as(bench, "refusal", run_of(done), "REFUSED")


def row_bad_data(bench: Bench) -> str:
    """Data that is not what the run was promised: exit code 2, tried once."""
    run = begin_by_hand(bench, {"data_digest": "0" * 64})
    said = ended_as(bench, "bad data", run, "FAILED")
    attempts = runs.attempts(bench.store, run, "fetch")
    if [attempt.code for attempt in attempts] != [2]:
        raise Failed(f"fetch ended with {[attempt.code for attempt in attempts]}, not once with 2")
    return said


def row_fails_once(bench: Bench) -> str:
    """A step whose program is killed is tried again in the same pod."""
    with bench.trains:
        run = bench.started({"pretrain.epochs": 30, "pretrain.seed": 11})
        bench.wait("fails once", "pretrain's program to be killed", lambda: killed(bench, run), 300)
        first, second, *_ = bench.wait("fails once", "its second try", lambda: second_word(bench, run), 240)
        bench.terminate(run)
    if second.code or first.code in (0, 2, 3):
        raise Failed(f"tries ended with {first.code}, {second.code}: {second.line}")
    if first.pod != second.pod:
        raise Failed(f"it was tried again in another pod: {first.pod}, {second.pod}")
    return f"code {first.code}, then 0, both in {first.pod}"


def row_cancel(bench: Bench) -> str:
    """Cancelled while it trains: CANCELED, no jobs left, and the next submit goes on from the checkpoint."""
    changes = LONG | {"pretrain.seed": 12}
    with bench.trains:
        before = set(bench.store.list("checkpoints/"))
        run = bench.started(changes)
        bench.training("cancel", run, before)
        bench.terminate(run)
        ended_as(bench, "cancel", run, "CANCELED")
        bench.wait("cancel", "the run's TrainJobs to go", lambda: not bench.jobs(run), 120)
        following = bench.started(changes, "--again")
        line = bench.goes_on("cancel", following)
        bench.terminate(following)
    return f"CANCELED; the next one: {line}"


def row_pod_lost(bench: Bench) -> str:
    """A pod that is taken away while it trains is made again, and goes on from its checkpoint."""
    with bench.trains:
        before = set(bench.store.list("checkpoints/"))
        run = bench.started(LONG | {"pretrain.seed": 13})
        pod = bench.training("pod lost", run, before)
        bench.kubernetes.delete(f"{bench.place}/pods/{pod}")
        line = bench.goes_on("pod lost", run)
        bench.terminate(run)
    return f"{pod} deleted: {line}"


def row_slots(bench: Bench) -> str:
    """Three slots a minute apart, each started by reconcile and run once."""
    name, bench = f"acceptance-{bench.id}", bench.part("slots")
    clone = cloned(bench, "slots")
    declare(clone, name, cron="* * * * *", concurrency=3)

    def slots() -> list[str]:
        reconcile(bench, clone)
        return sorted(key.rpartition("/")[2] for key in bench.store.list(f"runs/intents/{name}/"))

    bench.wait("three slots", "three slots to be started", lambda: len(slots()) >= 3, 280)
    declare(clone, name, cron="* * * * *", concurrency=3, paused=True)
    reconcile(bench, clone)

    def concluded() -> list[str]:
        found = [end for run in run_ids(bench) if (end := bench.end(run)) and end.start.reason.get("schedule") == name]
        return [str(end.start.reason.get("slot")) for end in found if end.state == "SUCCEEDED"]

    done = bench.wait("three slots", "three runs to end", lambda: len(concluded()) >= 3 and concluded(), 420)
    if len(set(done)) != len(done):
        raise Failed(f"a slot was run twice: {sorted(done)}")
    return ", ".join(sorted(done))


def row_change(bench: Bench) -> str:
    """A commit that changes parameters starts a run of a new version; after its revert nothing is left to do."""
    from graftline.pipelines.compile import compiled

    name, bench = f"change-{bench.id}", bench.part("change")
    clone = cloned(bench, "change")
    declare(clone, name, cron="0 0 1 1 *", on_change=["parameters"], concurrency=3)
    before = compiled(TASK, profiles=DEV, overrides=SMALL).version
    reconcile(bench, clone)
    parameters = clone / f"data/{TASK}/params.yaml"
    changed = parameters.read_text().replace("mask_ratio: 0.5", "mask_ratio: 0.4")
    parameters.write_text(changed)
    expect(bench.graftline("compile", TASK, place=clone), 0)
    commit(clone, "Change")

    def begun() -> runs.Start | None:
        reconcile(bench, clone)
        known = [runs.begun(bench.store, run) or bench.end(run) for run in run_ids(bench)]
        starts = [one.start if isinstance(one, runs.End) else one for one in known]
        return next((start for start in starts if start and start.version != before), None)

    start = bench.wait("a change", "a run of the change", begun, 240)
    bench.versions.add(start.version)
    bench.terminate(start.run)
    git(clone, "revert", "--no-edit", "HEAD")
    reverted = time.monotonic()

    def same() -> bool:
        reconcile(bench, clone)
        return not bench.graftline("drift", "--store", bench.store.url, place=clone).returncode

    bench.wait("a change", "no drift after the revert", same, 180)
    return f"{start.version} started; its revert took hold in {time.monotonic() - reverted:.0f} s"


@dataclass(frozen=True)
class Test:
    """A row and what it waits for."""

    name: str
    look: Callable[[Bench], str]
    after: str = ""
    """The row that must have passed."""
    seconds: float = 200.0
    """About what it takes: with less time left it is not begun."""

    __test__ = False  # no class of pytest's


TESTS = (
    Test("doctor", row_doctor, seconds=60),
    Test("release", row_release, seconds=300),
    Test("bad data", row_bad_data),
    Test("cancel", row_cancel, seconds=300),
    Test("trace", row_trace, after="release", seconds=20),
    Test("refusal", row_refusal, after="release"),
    Test("cache", row_cache, after="release"),
    Test("twice at once", row_twice, after="release"),
    Test("fails once", row_fails_once),
    Test("pod lost", row_pod_lost, after="cancel"),
    Test("three slots", row_slots, after="release", seconds=420),
    Test("a change", row_change, after="release"),
)
"""In the order in which they are begun; as many at once as `--at-once` says."""


# What the rows share


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


def begin_by_hand(bench: Bench, changes: Mapping[str, str]) -> str:
    """Start a run with parameters that `submit` would not give it; return its id."""
    from graftline.engines.local import task_digest
    from graftline.images import load_images
    from graftline.pipelines.compile import compiled
    from graftline.pipelines.runkey import Run, work_of
    from graftline.profiles import parse_choices
    from graftline.task_data import committed_revision

    pipeline = compiled(TASK, profiles=parse_choices([bench.profile]), overrides=SMALL)
    pipeline = replace(pipeline, parameters=pipeline.parameters | {"store": bench.store.url})
    given = {"data_digest": task_digest(TASK)} | dict(changes)
    work = work_of(pipeline, load_images(), data_digest=given["data_digest"], revision=committed_revision(TASK))
    run = Run(work, f"manual:{uuid.uuid4()}", {"kind": "person", "who": "acceptance"})
    with bench.kubeflow() as api:
        version = api.versions(pipeline.pipeline).get(pipeline.version) or api.upload(
            pipeline.pipeline, pipeline.version, pipeline.spec
        )
        made = api.create_run(run.name, version, run.parameters)
    bench.runs.add(made)
    bench.versions.add(pipeline.version)
    return made


def killed(bench: Bench, run: str) -> str:
    """Kill the program of a run's pretrain inside its pod; return the pod, or "" if it does not run yet."""
    from kubernetes import client, stream

    for pod in bench.pods(run, "pretrain"):
        if (pod.get("status") or {}).get("phase") == "Running":
            name = str(pod["metadata"]["name"])
            api = client.CoreV1Api(client.ApiClient(bench.kubernetes.api.configuration))  # a stream changes its client
            with suppress(client.ApiException):
                said = stream.stream(
                    api.connect_get_namespaced_pod_exec, name, bench.settings.namespace, container="main",
                    command=["python", "-c", KILL, PROGRAM], stdout=True, stderr=True, stdin=False, tty=False,
                )  # fmt: skip
                if "killed" in said:
                    return name
    return ""


def second_word(bench: Bench, run: str) -> list[runs.Attempt]:
    said = runs.attempts(bench.store, run, "pretrain")
    return said if len(said) >= 2 else []


def run_ids(bench: Bench) -> list[str]:
    """Return the runs that the acceptance's store knows of."""
    return sorted({found[0] for key in bench.store.list("runs/") if (found := RUN.search(key))})


def git(place: Path, *arguments: str) -> None:
    who = ["-c", "user.name=acceptance", "-c", "user.email=acceptance@localhost"]
    subprocess.run(["git", "-C", str(place), *who, *arguments], check=True, capture_output=True)


def commit(place: Path, message: str) -> None:
    git(place, "commit", "--quiet", "--all", "--message", message)


def cloned(bench: Bench, name: str) -> Path:
    """Return a clone of this checkout's commit whose own code is what runs in it."""
    place = bench.folder / name
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True, capture_output=True)
    package = place / "build/package/graftline"
    package.mkdir(parents=True)
    for part in [*(place / "src/graftline").iterdir(), place / "components", place / "pipelines"]:
        (package / part.name).symlink_to(part)
    return place


def declare(place: Path, name: str, *, cron: str, on_change: list[str] | None = None, **more: Any) -> None:
    """Commit one schedule, in place of all."""
    import yaml

    schedule = {"task": TASK, "cron": cron, "profile": dict(DEV), "set": dict(SMALL), "on_change": on_change or []}
    path = place / "pipelines/schedules.yaml"
    path.write_text(yaml.safe_dump({"schedules": {name: schedule | more}}))
    commit(place, f"Schedule {name}")


def reconcile(bench: Bench, place: Path) -> None:
    """Let a clone reconcile once; another one at work, or a call that failed, is for the next time."""
    done = bench.graftline("reconcile", "--store", bench.store.url, place=place)
    if done.returncode not in (0, 75):
        raise Failed(f"reconcile ended with {done.returncode}: {last_line(done)}")


# Before and after


def opened(arguments: argparse.Namespace, folder: Path) -> Bench:
    """Look at what is needed, and make what is this acceptance's own. Raises InputError."""
    settings = load_settings()
    endpoint = os.environ.get("GRAFTLINE_KFP", "")
    check_endpoint(endpoint)
    kubernetes = connect_cluster()
    kubernetes.get("/version")
    name = uuid.uuid4().hex[:8]
    store = open_store(f"{(arguments.store or settings.store).rstrip('/')}/acceptance-{name}")
    store.list("")
    bench = Bench(
        settings, kubernetes, endpoint, store, name, arguments.profile, folder / "keys",
        time.monotonic() + 60 * arguments.minutes, arguments.pause, folder=folder, quiet=arguments.json,
    )  # fmt: skip
    bench.known = version_names(bench)
    trust(bench)
    grant(bench)
    return bench


def version_names(bench: Bench, named: set[str] | None = None) -> set[str]:
    """Return the names of the pipeline versions that the cluster holds; of those of `named` only, if it is given.

    Kubeflow gives one that is uploaded another object's name, and keeps its own as the display name.
    """
    path = f"/apis/pipelines.kubeflow.org/v2beta1/namespaces/{bench.settings.namespace}/pipelineversions"
    return {
        each["metadata"]["name"]
        for each in bench.kubernetes.items(path)
        if named is None or named & {each["metadata"]["name"], (each.get("spec") or {}).get("displayName")}
    }


def trust(bench: Bench) -> None:
    """Make a keyring that trusts the keys which the cluster signs with; the person's own if they may not be read."""
    path = f"{bench.place}/secrets/{bench.settings.signing_secret}"
    try:
        data = (bench.kubernetes.get(path) or {}).get("data") or {}
        keys = json.loads(base64.b64decode(data.get("keyring.json", "")) or "{}").get("keys", [])
    except (RefusedError, ValueError):
        keys = []
    if not keys:
        from graftline.signing.keyring import keys_folder

        bench.keys = keys_folder()
        return
    for number, key in enumerate(keys):
        pem = bench.folder / f"cluster-{number}.pem"
        pem.write_text(key["pem"])
        done = bench.graftline("keys", "trust", str(pem), "--only-here")
        if done.returncode:
            raise InputError("the cluster's keys", last_line(done), fix="see docs/cluster.md, step 5")


def grant(bench: Bench) -> None:
    """Let our token end and delete runs for the time of the test; the product's own may not."""
    subject = token_subject(os.environ.get(TOKEN, ""))
    if subject is None:
        return
    space = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{bench.settings.namespace}"
    name = f"graftline-acceptance-{bench.id}"
    about = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    rules = [{"apiGroups": ["pipelines.kubeflow.org"], "resources": ["runs"], "verbs": ["terminate", "delete", "get"]}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    with suppress(RefusedError):  # then workflows are ended instead, and runs stay in Kubeflow's list
        bench.kubernetes.create(f"{space}/roles", about | {"kind": "Role", "rules": rules})
        bench.grants += (f"{space}/roles/{name}",)
        binding = about | {"kind": "RoleBinding", "roleRef": reference, "subjects": [subject]}
        bench.kubernetes.create(f"{space}/rolebindings", binding)
        bench.grants += (f"{space}/rolebindings/{name}",)


def token_subject(token: str) -> dict[str, str] | None:
    """Return the service account that a token is of; None if it is of none."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        _, _, space, name = claims["sub"].split(":")
    except (IndexError, ValueError, KeyError):
        return None
    return {"kind": "ServiceAccount", "namespace": space, "name": name}


def clean(bench: Bench) -> str:
    """Remove what was made, whatever part of it fails. Returns what is left, "" for nothing."""
    bench.say("clean-up", "ends and removes what was made; it is not interrupted")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for store in (bench.store, *bench.parts):
        attempt(partial(lambda one: bench.runs.update(run_ids(replace(bench, store=one))), store))
    ours = sorted(bench.runs)
    for run in ours:
        attempt(partial(terminated, bench, run))
    until(bench, 60, lambda: all(bench.end(run) or not bench.workflows(run) for run in ours))
    left = []
    for run in ours:
        if problem := attempt(partial(bench.call_kubeflow, "DELETE", f"/apis/v2beta1/runs/{run}")):
            left.append(f"run {run} in Kubeflow's list ({problem})")
        attempt(partial(deleted, bench, run))
    until(bench, 45, lambda: not any(bench.pods(run) for run in ours))  # one on its way out may still write
    attempt(partial(empty, bench.store))
    space = f"/apis/pipelines.kubeflow.org/v2beta1/namespaces/{bench.settings.namespace}/pipelineversions"
    for version in sorted(made_versions(bench)):
        attempt(partial(bench.kubernetes.delete, f"{space}/{version}"))
    for path in reversed(bench.grants):
        left += [f"{path} ({problem})" for problem in [attempt(partial(bench.kubernetes.delete, path))] if problem]
    for look in (still_there, lambda one: [f"key {key} in {one.store.url}" for key in one.store.list("")[:3]]):
        try:
            left += look(bench)
        except GraftlineError as error:
            left.append(f"it cannot be told: {error}")
    return "; ".join(left)


def terminated(bench: Bench, run: str) -> None:
    if not bench.end(run):
        bench.terminate(run)


def deleted(bench: Bench, run: str) -> None:
    """Delete a run's TrainJobs, workflows and pods."""
    for path in [*map(path_of, bench.jobs(run)), *map(bench.workflow_path, bench.workflows(run))]:
        bench.kubernetes.delete(path)
    for pod in bench.pods(run):
        bench.kubernetes.delete(path_of(pod))


def still_there(bench: Bench) -> list[str]:
    jobs = [f"TrainJob {job['metadata']['name']}" for run in bench.runs for job in bench.jobs(run)]
    pods = [f"pod {pod['metadata']['name']}" for run in bench.runs for pod in bench.pods(run)]
    return jobs + pods + [f"version {name}" for name in sorted(made_versions(bench))]


def made_versions(bench: Bench) -> set[str]:
    return version_names(bench, bench.versions) - bench.known


def until(bench: Bench, seconds: float, found: Callable[[], bool]) -> None:
    """Return once something is found, after so long at the latest; not to see is not to find."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(GraftlineError):
            if found():
                return
        time.sleep(bench.pause)


def attempt(deed: Callable[[], object]) -> str:
    """Do something that may be done already; return why it failed, "" if it did not."""
    try:
        deed()
    except RefusedError as error:
        return "" if error.status == 404 else str(error)
    except GraftlineError as error:
        return str(error)
    return ""


def path_of(item: dict[str, Any]) -> str:
    """Return the path of a pod or a TrainJob."""
    space, name = item["metadata"]["namespace"], item["metadata"]["name"]
    job = "apis/trainer.kubeflow.org/v1alpha1" in f"apis/{item.get('apiVersion', 'v1')}"
    group, plural = ("/apis/trainer.kubeflow.org/v1alpha1", "trainjobs") if job else ("/api/v1", "pods")
    return f"{group}/namespaces/{space}/{plural}/{name}"


def empty(store: Store) -> None:
    """Delete every key of the acceptance's own store; a pod on its way out may still write one."""
    for _ in range(3):
        for key in store.list(""):
            store.delete(key)


def looked(bench: Bench, test: Test, passed: Mapping[str, Future[Row]]) -> Row:
    """Return a test's row."""
    began = time.monotonic()

    def row(state: str, said: str) -> Row:
        bench.say(test.name, f"{state}: {said}")
        return Row(test.name, state, round(time.monotonic() - began, 1), said)

    if test.after in passed and passed[test.after].result().state != "passed":
        return row("skipped", f"{test.after} did not pass")
    began = time.monotonic()
    if bench.left < test.seconds:
        return row("skipped", f"it takes about {test.seconds:.0f} s, and {max(0, bench.left):.0f} s are left")
    bench.say(test.name, "begins")
    try:
        return row("passed", test.look(bench))
    except Skipped as reason:
        return row("skipped", str(reason))
    except subprocess.CalledProcessError as error:
        return row("failed", f"{' '.join(error.cmd)}: {(error.stderr or b'').decode(errors='replace').strip()}")
    except (Failed, GraftlineError, OSError) as error:
        return row("failed", " ".join(str(error).split()))


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    chosen = [test for test in TESTS if not arguments.only or test.name in arguments.only]
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell has what it starts in the background ignore the latter
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="graftline-acceptance-"))
    code, table = 0, list[Row]()
    try:
        try:
            bench = opened(arguments, folder)
        except GraftlineError as error:
            print(f"cluster-test: {error}", file=sys.stderr)
            return 2
        try:
            table = _all(bench, chosen, arguments.at_once)
        except KeyboardInterrupt:
            code = 130
        finally:
            began, left = time.monotonic(), clean(bench)
            said = left or "nothing is left"
            table.append(Row("clean-up", "failed" if left else "passed", round(time.monotonic() - began, 1), said))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(table, arguments.json)
    states = {row.state for row in table[:-1]}
    return code or int("failed" in states | {table[-1].state} or "passed" not in states)


def _all(bench: Bench, chosen: list[Test], at_once: int) -> list[Row]:
    """Return the rows; when interrupted, end what runs and raise KeyboardInterrupt."""
    pool = ThreadPoolExecutor(at_once)
    futures: dict[str, Future[Row]] = {}
    try:
        for test in chosen:
            futures[test.name] = pool.submit(looked, bench, test, dict(futures))
        return [future.result() for future in futures.values()]
    except BaseException:
        bench.stopped.set()  # every wait ends at its next look
        for child in list(bench.children):
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _print(table: list[Row], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(row) for row in table], indent=2))
        return
    for row in table:
        print(f"{row.name:16}{row.state:9}{row.seconds:7.1f} s  {row.said}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make cluster-test", description=__doc__.split("\n")[0])
    names = [test.name for test in TESTS]
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help=f"one of: {', '.join(names)}")
    parser.add_argument("--minutes", type=float, default=20.0, help="for the rows together; clean-up comes on top")
    parser.add_argument("--profile", default="all=dev", metavar="[STEP=]NAME", help="the pool of the runs")
    parser.add_argument("--store", default="", metavar="s3://BUCKET/PREFIX", help="default: pipelines/settings.yaml")
    parser.add_argument("--at-once", type=int, default=3, metavar="N", help="rows at once")
    parser.add_argument("--pause", type=float, default=2.0, metavar="SECONDS", help="between two looks at the cluster")
    parser.add_argument("--json", action="store_true", help="print JSON, and no progress")
    return parser


if __name__ == "__main__":
    sys.exit(main())
