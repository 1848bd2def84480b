"""A small world for reconcile: commits, a Kubeflow that is no cluster, processes that crash between any two calls.

What is real: all of graftline.pipelines.reconcile, the published client, the claims that a run's first step makes.
What stands in: KfpBackend for Kubeflow (see kfp_server.py), a list of commits for git, a dictionary for the store
(tests/store holds the real ones to the same promises), threads that take turns for processes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kfp_server_api
from kfp_server import ACTIVE, Fault, InProcess, KfpBackend

from graftline.digests import sha256_bytes
from graftline.pipelines.kubeflow_api import KubeflowApi
from graftline.pipelines.reconcile import claims, planning
from graftline.pipelines.reconcile.desired import Desired, desired_on_kubeflow
from graftline.pipelines.reconcile.kubeflow import KubeflowBackend
from graftline.pipelines.reconcile.lease import Lease, LeaseLostError
from graftline.pipelines.reconcile.reconcile import BackendError, Outcome, reconcile
from graftline.pipelines.reconcile.repository import Changed, Shift, Work
from graftline.pipelines.reconcile.schedules import Schedule
from graftline.store import MissingError, Stored

IMAGES = {"data": "data@sha256:" + "1" * 64, "train": "train@sha256:" + "2" * 64}
TASKS = ("digits", "words")
PARAMETERS = ("task", "number", "version", "revision", "data_digest", "run_key", "reason")


class MemoryStore:
    """A dictionary with a store's promises; `gate` is called before each operation."""

    url = "memory"

    def __init__(
        self, gate: Callable[[], None] = lambda: None, content: dict[str, bytes] | None = None
    ) -> None:
        self.content: dict[str, bytes] = {} if content is None else content
        self._gate = gate

    def get(self, key: str) -> Stored:
        self._gate()
        if key not in self.content:
            raise MissingError(self.url, key)
        return Stored(self.content[key], sha256_bytes(self.content[key]))

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        self._gate()
        assert isinstance(content, bytes)
        return self.content.setdefault(key, content) == content

    def replace(self, key: str, data: bytes, tag: str | None) -> bool:
        self._gate()
        there = sha256_bytes(self.content[key]) if key in self.content else None
        if there == tag:
            self.content[key] = data
        return there == tag

    def list(self, prefix: str) -> list[str]:
        self._gate()
        return sorted(key for key in self.content if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self._gate()
        self.content.pop(key, None)

    def download(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key).data)

    def local_path(self, key: str) -> Path | None:
        return None


@dataclass(frozen=True)
class Tree:
    """What a commit holds."""

    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    data: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(TASKS, 0))
    parameters: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(TASKS, 0))
    code: int = 0

    def part(self, kind: str, task: str) -> Any:
        return {"data": self.data.get(task), "parameters": self.parameters.get(task), "code": self.code}[kind]


@dataclass(frozen=True)
class ModelRepository:
    """The commits up to one of them, oldest first."""

    trees: tuple[Tree, ...]

    @property
    def commit(self) -> str:
        return _sha(len(self.trees))

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        return self.trees[-1].schedules

    def work(self, name: str) -> Work:
        schedule, tree = self.schedules[name], self.trees[-1]
        task = schedule.task
        number = schedule.set.get("finetune.epochs", tree.parameters[task])
        version = f"retrain-{task}-{_hash((task, tree.code, tree.parameters[task], schedule.profile))[:12]}"
        inputs = {name: {"parameterType": "STRING"} for name in PARAMETERS}
        spec = {
            "pipelineInfo": {"name": f"retrain-{task}"}, "schemaVersion": "2.1.0",
            "root": {"inputDefinitions": {"parameters": inputs}},
        }  # fmt: skip
        return Work(
            task=task, pipeline=f"retrain-{task}", version=version, images=IMAGES,
            parameters={"task": task, "number": str(number), "version": version},
            data_digest=_hash(("data", task, tree.data[task])), revision=_sha(1), spec={"pipelineSpec": spec},
        )  # fmt: skip

    def changed(self, name: str) -> Changed | None:
        schedule = self.schedules[name]
        watched = sorted(schedule.on_change - {"shift"})
        last = {kind: self._last(kind, schedule.task) for kind in watched}
        if not last:
            return None
        newest = max(last.values())
        return Changed(_sha(newest), tuple(kind for kind in watched if last[kind] == newest))

    def shift(self, name: str) -> Shift | None:
        return None

    def _last(self, kind: str, task: str) -> int:
        """Return the number of the commit, from 1, that changed a part last."""
        number = len(self.trees)
        while number > 1 and self.trees[number - 2].part(kind, task) == self.trees[number - 1].part(
            kind, task
        ):
            number -= 1
        return number


def _sha(number: int) -> str:
    return f"{number:040x}"


def _hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


class Crash(BaseException):
    """The process is gone."""


@dataclass(frozen=True)
class Turn:
    """What a process may do next: one call, with this fault, and perhaps die before or after it."""

    fault: Fault | None = None
    crash: str = ""
    """`before`, `after` or empty."""
    at_change: bool = False
    """First make all calls up to the next one that changes something in the backend; that is the one meant."""


class Process:
    """A reconcile that stops before each of its calls until it is told to go on."""

    def __init__(self, world: World, *, leased: bool) -> None:
        self._turn: Turn | None = None
        self._pending: Turn | None = None
        self._go, self._parked = threading.Semaphore(0), threading.Semaphore(0)
        self.alive, self.error = True, None
        self.outcome: Outcome | None = None
        self.name = f"process-{next(world.numbers)}"
        self._thread = threading.Thread(target=self._main, args=(world, leased), daemon=True)
        self._thread.start()
        self._parked.acquire()

    def step(self, turn: Turn) -> None:
        """Let it make its next call; afterwards it waits before another, or has ended."""
        if not self.alive:
            return
        self._turn = turn
        self._go.release()
        self._parked.acquire()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        """Let it go on to its end without faults."""
        while self.alive:
            self.step(Turn())

    def kill(self) -> None:
        while self.alive:
            self.step(Turn(crash="before"))
        self._thread.join()

    def _main(self, world: World, leased: bool) -> None:
        try:
            self._wait()
            self.outcome = world.reconcile(self, leased=leased)
        except (Crash, BackendError, LeaseLostError):
            pass
        except BaseException as error:  # noqa: BLE001  (shown by the step that it happened in)
            self.error = error
        self.alive = False
        self._parked.release()

    def _wait(self, changes: bool = False) -> Turn:
        if self._pending and not changes:
            return Turn()
        turn, self._pending = self._pending, None
        while turn is None:
            self._parked.release()
            self._go.acquire()
            turn, self._turn = self._turn, None
            assert turn is not None
            if turn.at_change and not changes:
                self._pending = turn
                return Turn()
        if turn.crash == "before":
            raise Crash
        return turn

    def gate(self) -> None:
        """Before a call of the store, whose own faults tests/store covers."""
        self._wait()

    def call(self, backend: KfpBackend, changes: bool, act: Callable[[], Any]) -> Any:
        """Make one call of the API with the fault of this turn."""
        turn = self._wait(changes)
        backend.fault = lambda request: (
            turn.fault if request.changes or turn.fault is None else _harmless(turn.fault)
        )
        try:
            return act()
        finally:
            backend.fault = lambda request: None
            if turn.crash == "after":
                raise Crash


def _harmless(fault: Fault) -> Fault:
    """A request that changes nothing cannot come late."""
    return Fault("drop") if fault.kind == "late" else fault


class Transport(InProcess):
    """The client's way to the backend, one turn a request."""

    def __init__(self, backend: KfpBackend, process: Process | None) -> None:
        super().__init__(backend)
        self._process = process

    def request(self, method: str, url: str, **arguments: Any) -> Any:
        if self._process is None:
            return super().request(method, url, **arguments)
        return self._process.call(
            self._backend, method != "GET", lambda: super(Transport, self).request(method, url, **arguments)
        )


@dataclass
class World:
    """Everything, and what has happened."""

    trees: list[Tree] = field(default_factory=lambda: [Tree()])
    now: datetime = datetime(2026, 3, 27, 12, tzinfo=UTC)
    content: dict[str, bytes] = field(default_factory=dict)
    worked: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(run key, schedule, slot, run id) of each run whose first step went on to do the work."""

    def __post_init__(self) -> None:
        self.backend = KfpBackend(clock=lambda: self.now)
        self.store = MemoryStore(content=self.content)
        self.processes: list[Process] = []
        self.numbers = iter(range(1, 1_000_000))

    @property
    def repository(self) -> ModelRepository:
        return ModelRepository(tuple(self.trees))

    def commit(self, **changes: Any) -> None:
        self.trees.append(replace(self.trees[-1], **changes))

    def revert_to(self, number: int) -> None:
        """Commit what an earlier commit held."""
        self.trees.append(self.trees[number])

    def pass_time(self, span: timedelta) -> None:
        """Let time go by; Kubeflow starts what is due on the way."""
        end = self.now + span
        while self.now < end:
            self.now = min(end, self.now + timedelta(minutes=30))
            self.backend.tick()

    def first_step(self, run_id: str) -> None:
        """Let a run's first pod start: it asks whether it may do the work."""
        run = self.backend.runs[run_id]
        given = run.runtime_config.parameters
        reason = json.loads(given["reason"])
        refusal = self.hold(given["run_key"], run_id, reason["schedule"], reason["slot"])
        self.backend.set_state(run_id, "FAILED" if refusal else "RUNNING")
        if refusal is None:
            self.worked.append((given["run_key"], reason["schedule"], reason["slot"], run_id))

    def hold(self, key: str, run_id: str, schedule: str, slot: str) -> str | None:
        """Ask as a run's first step does; a test replaces it by a broken one."""
        return claims.hold(self.store, key, run_id, schedule=schedule, slot=slot)

    def run_all(self) -> None:
        """Let every run start, and come to its end."""
        for run in list(self.backend.runs.values()):
            if run.state == "PENDING":
                self.first_step(run.run_id)
            if run.state in ACTIVE:
                self.backend.set_state(run.run_id, "SUCCEEDED")

    def reconcile(self, process: Process | None, *, leased: bool = True) -> Outcome | None:
        """Reconcile the newest commit as it is now; None if another one holds the lease."""
        repository = self.repository
        gate = process.gate if process else lambda: None
        store = MemoryStore(gate, self.content)
        lease = Lease(store, process.name if process else f"calm-{next(self.numbers)}")
        if leased and not lease.acquire(self.now):
            return None
        backend = self.kubeflow(store, process)
        outcome = reconcile(
            backend, lambda now: desired_on_kubeflow(repository, now), lambda: self.now,
            on_action=lambda action: lease.check(self.now) if leased else None,
        )  # fmt: skip
        if leased:
            lease.release()
        return outcome

    def kubeflow(self, store: MemoryStore | None = None, process: Process | None = None) -> KubeflowBackend:
        client = kfp_server_api.ApiClient()
        client.rest_client = Transport(self.backend, process)
        return KubeflowBackend(KubeflowApi(client), store or self.store)

    def desired(self) -> Desired:
        return desired_on_kubeflow(self.repository, self.now)

    def plan(self) -> planning.Plan:
        desired = self.desired()
        return planning.plan(desired, self.kubeflow().observe(desired, self.now), self.now)

    def check(self) -> None:
        """What holds at every moment: no key and no slot was worked on twice."""
        for index, what in ((0, "key"), (slice(1, 3), "slot")):
            counts = Counter(entry[index] for entry in self.worked)
            twice = [name for name, count in counts.items() if count > 1]
            assert not twice, f"the {what} {twice[0]} was worked on {counts[twice[0]]} times"

    def settle(self) -> None:
        """Let faults end: what was under way dies, late requests arrive, leases and graces run out."""
        for process in self.processes:
            process.kill()
        self.processes.clear()
        self.backend.land()
        self.pass_time(timedelta(seconds=max(claims.GRACE_SECONDS, 600) + 1))
        self.run_all()

    def check_converged(self) -> None:
        """After `settle`: one reconcile makes what is there what is wanted, and a second does nothing."""
        outcome = self.reconcile(None)
        assert outcome is not None and outcome.settled and not outcome.queued, outcome
        self.run_all()
        desired = self.desired()
        ours = {
            one.display_name: one
            for one in self.backend.recurring_runs.values()
            if one.display_name != "by-hand"
        }
        assert set(ours) == {one.name for one in desired.recurring}
        for one in desired.recurring:
            there = ours[one.name]
            pinned = there.pipeline_version_reference.pipeline_version_id
            assert pinned, f"{one.name} is not pinned to a version"
            version = self.backend.versions[pinned]
            assert (there.status, version.name) == ("DISABLED" if one.paused else "ENABLED", one.work.version)
        for run in desired.runs:
            intent = claims.read_intent(self.store, run.schedule, run.slot_file)
            assert any(
                claims.holder(self.store, key) for key in (run.key, intent[0].key if intent else run.key)
            )
        before = len(self.backend.log)
        again = self.reconcile(None)
        assert again is not None and again.done == () and len(self.backend.log) == before
