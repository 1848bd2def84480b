"""A small world for reconcile: commits, a Kubeflow that is no cluster, processes that crash between any two calls.

What is real: all of graftline.pipelines.reconcile, the published client, the claims that a run's first step makes, the
records of begun and ended runs. What stands in: KfpBackend for Kubeflow (see kfp_server.py), a list of commits for git,
a dictionary for the store (tests/store holds the real ones to the same promises), threads in turns for processes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kfp_server_api
from kfp_server import ACTIVE, Fault, InProcess, KfpBackend, Request

from graftline import runs
from graftline.digests import sha256_bytes
from graftline.errors import BackendError
from graftline.kubeflow_api import KubeflowApi
from graftline.pipelines.reconcile import claims, planning
from graftline.pipelines.reconcile.agenda import Agenda
from graftline.pipelines.reconcile.desired import Desired
from graftline.pipelines.reconcile.kubeflow import ENDS_ITSELF, KubeflowBackend
from graftline.pipelines.reconcile.reconcile import Outcome, reconcile
from graftline.pipelines.reconcile.repository import Changed
from graftline.pipelines.reconcile.schedules import Schedule, due_slots, slot_name
from graftline.pipelines.reconcile.shift import Shift
from graftline.pipelines.runkey import Work
from graftline.store import MissingError, Stored
from graftline.store.lease import RECONCILE, Lease, LeaseLostError

IMAGES = {"data": "data@sha256:" + "1" * 64, "train": "train@sha256:" + "2" * 64}
TASKS = ("digits", "words")
PARAMETERS = ("task", "number", "version", "revision", "data_digest", "run_key", "reason")


class MemoryStore:
    """A dictionary with a store's promises; `gate` is called before each operation."""

    url = "memory"

    def __init__(self, gate: Callable[[], None] = lambda: None, content: dict[str, bytes] | None = None) -> None:
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

    @property
    def manifests(self) -> frozenset[str]:
        """What the compiled folder holds: each task's pipeline, placed by default."""
        return frozenset(self._version(task, None) for task in TASKS)

    def _version(self, task: str, profile: Any) -> str:
        tree = self.trees[-1]
        return f"retrain-{task}-{_hash((task, tree.code, tree.parameters[task], profile))[:12]}"

    def work(self, name: str) -> Work:
        schedule, tree = self.schedules[name], self.trees[-1]
        task = schedule.task
        number = schedule.set.get("finetune.epochs", tree.parameters[task])
        version = self._version(task, schedule.profile)
        return Work(
            task=task,
            pipeline=f"retrain-{task}",
            version=version,
            images=IMAGES,
            parameters={"task": task, "number": str(number), "version": version},
            data_digest=_hash(("data", task, tree.data[task])),
            revision=_sha(1),
            spec={"pipelineSpec": spec_of(task)},
        )

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
        while number > 1 and self.trees[number - 2].part(kind, task) == self.trees[number - 1].part(kind, task):
            number -= 1
        return number


def spec_of(task: str) -> dict[str, Any]:
    inputs = {name: {"parameterType": "STRING"} for name in PARAMETERS}
    return {
        "pipelineInfo": {"name": f"retrain-{task}"},
        "schemaVersion": "2.1.0",
        "root": {"inputDefinitions": {"parameters": inputs}},
    }


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
    at: str = ""
    """`change`, `start`: first make all calls up to the next one that changes something in the backend, or that starts
    a run; that is the one meant."""

    def meant(self, changes: bool, starts: bool) -> bool:
        return {"": True, "change": changes, "start": starts}[self.at]


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

    def _wait(self, changes: bool = False, starts: bool = False) -> Turn:
        if self._pending and not self._pending.meant(changes, starts):
            return Turn()
        turn, self._pending = self._pending, None
        while turn is None:
            self._parked.release()
            self._go.acquire()
            turn, self._turn = self._turn, None
            assert turn is not None
            if not turn.meant(changes, starts):
                self._pending = turn
                return Turn()
        if turn.crash == "before":
            raise Crash
        return turn

    def gate(self) -> None:
        """Before a call of the store, whose own faults tests/store covers."""
        self._wait()

    def call(self, backend: KfpBackend, changes: bool, starts: bool, act: Callable[[], Any]) -> Any:
        """Make one call of the API with the fault of this turn."""
        turn = self._wait(changes, starts)
        backend.fault = lambda request: turn.fault if request.changes or turn.fault is None else _harmless(turn.fault)
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
        starts = method == "POST" and url.endswith("/runs")
        return self._process.call(
            self._backend, method != "GET", starts, lambda: super(Transport, self).request(method, url, **arguments)
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
        self.counted: dict[str, tuple[Any, datetime]] = {}
        """By schedule its times, and when a reconcile had seen that it has these: its slots count from then."""
        self.looked = self.now
        self.over: set[str] = set()
        """Runs that have ended, perhaps before the API shows it."""
        self.keys: set[str] = set()
        """Keys of the runs that are in `ran`: a schedule that comes later may want one of them."""
        self.ran: set[tuple[str, str]] = set()
        """Schedule and slot of runs that began, or that a person took away before they did."""

    @property
    def repository(self) -> ModelRepository:
        return ModelRepository(tuple(self.trees))

    def commit(self, **changes: Any) -> None:
        self.trees.append(replace(self.trees[-1], **changes))

    def revert_to(self, number: int) -> None:
        """Commit what an earlier commit held."""
        self.trees.append(self.trees[number])

    def apply_manifests(self) -> None:
        """Let Argo CD apply what the newest commit holds compiled."""
        for version in sorted(self.repository.manifests):
            name = version.rpartition("-")[0]
            known = {one.name: one.pipeline_id for one in self.backend.pipelines.values()}
            if name not in known:
                body = {"name": name, "display_name": name} | (
                    {"namespace": self.backend.namespace} if self.backend.namespace else {}
                )
                self.backend._answer(Request("POST", "/pipelines", {}, body, f"Bearer {self.backend.token}"))
                known = {one.name: one.pipeline_id for one in self.backend.pipelines.values()}
            if version not in {one.name for one in self.backend.versions.values()}:
                spec = json.dumps(spec_of(name.removeprefix("retrain-"))).encode()
                self.backend._add_version(known[name], {}, version, spec)
        self.backend.log.clear()

    def pass_time(self, span: timedelta) -> None:
        self.now += span
        self.backend.tick()

    def first_step(self, run_id: str) -> None:
        """Let a run's first pod start: it asks whether it may do the work, and says that it has begun."""
        run = self.backend.runs[run_id]
        given = run.runtime_config.parameters
        reason = json.loads(given["reason"])
        if run.state != "PENDING" or run_id in self.backend.ghosts:
            return
        if self.hold(given["run_key"], run_id, reason["schedule"], reason["slot"]):
            self.backend.set_state(run_id, "FAILED")
            return
        told = {name: given[name] for name in ("task", "version", "revision", "data_digest")}
        begun = runs.Start(run_id, given["run_key"], reason=reason, **told)
        runs.begin(self.store, begun)
        self.backend.set_state(run_id, "RUNNING")
        self.worked.append((given["run_key"], reason["schedule"], reason["slot"], run_id))
        self._count(run)

    def _count(self, run: Any) -> None:
        """Note the slots that a run is of: two schedules of one task may want the same run."""
        given = run.runtime_config.parameters
        slot = json.loads(given["reason"])["slot"]
        self.keys.add(given["run_key"])
        for number in range(1, len(self.trees) + 1):
            repository = ModelRepository(tuple(self.trees[:number]))
            for name, schedule in repository.schedules.items():
                key = repository.work(name).run_key(slot.replace("commit-", "commit:"))
                if schedule.task == given["task"] and key == given["run_key"]:
                    self.ran.add((name, slot))

    def hold(self, key: str, run_id: str, schedule: str, slot: str) -> str | None:
        """Ask as a run's first step does; a test replaces it by a broken one."""
        return claims.hold(self.store, key, run_id, schedule=schedule, slot=slot)

    def end(self, run_id: str, state: str, *, recorded: bool, seen_after: timedelta = timedelta()) -> None:
        """Let a run end: its exit handler may record it, and the API may show it later only."""
        self.first_step(run_id)
        run = self.backend.runs[run_id]
        if run.state not in ACTIVE or run_id in self.backend.ghosts or run_id in self.over:
            return
        self.over.add(run_id)
        begun = runs.begun(self.store, run_id)
        if recorded and begun:
            canceled = run.state == "CANCELING"
            ended: runs.State = "CANCELED" if canceled else "SUCCEEDED" if state == "SUCCEEDED" else "FAILED"
            runs.conclude(self.store, runs.End(begun, ended))
        self.backend.end_later(run_id, "FAILED" if run.state == "CANCELING" else state, seen_after)
        self.backend.tick()

    def retry(self, run_id: str) -> None:
        """A person retries a run that has failed: its steps say that they are at work again."""
        run = self.backend.runs[run_id]
        if run.state == "FAILED" and any(entry[3] == run_id for entry in self.worked):
            self.backend.set_state(run_id, "RUNNING")
            self.over.discard(run_id)
            runs.begin_again(self.store, run_id)

    def take_away(self, run_id: str, *, workflow_only: bool) -> None:
        """A person deletes a run, or its workflow alone, which leaves a ghost."""
        run = self.backend.runs[run_id]
        if run.state in ("PENDING", "CANCELING"):
            self._count(run)
        if workflow_only and run.state in ACTIVE:
            self.backend.lose(run_id)
        elif not workflow_only:
            del self.backend.runs[run_id]
            self.backend._ends.pop(run_id, None)

    def cancel(self, run_id: str) -> None:
        """A person ends a run."""
        if run_id in self.over:
            return
        if self.backend.runs[run_id].state == "PENDING":
            self._count(self.backend.runs[run_id])
        self.backend._answer(Request("POST", f"/runs/{run_id}:terminate", {}, None, f"Bearer {self.backend.token}"))
        self.backend.log.clear()

    def run_all(self) -> None:
        """Let every run start, and come to its end."""
        for run in list(self.backend.runs.values()):
            self.end(run.run_id, "SUCCEEDED", recorded=True)

    def ghosts(self, asked: Collection[str]) -> set[str]:
        """Answer as the Kubernetes API does; a test replaces it by one that knows none."""
        return {run for run in asked if run in self.backend.ghosts}

    def reconcile(self, process: Process | None, *, leased: bool = True) -> Any:
        """Reconcile the newest commit as it is now; return the outcome, None if another one holds the lease."""
        repository = self.repository
        store = MemoryStore(process.gate if process else lambda: None, self.content)
        lease = Lease(store, RECONCILE, process.name if process else f"calm-{next(self.numbers)}")
        if leased and not lease.acquire(self.now):
            return None
        outcome = reconcile(
            self.kubeflow(store, process),
            WatchedAgenda(self, repository, store),
            self._clock,
            on_action=lambda action: lease.check(self.now) if leased else None,
        )
        if leased:
            lease.release()
        return outcome

    def _clock(self) -> datetime:
        self.now += timedelta(microseconds=1)  # no two looks at the same moment
        return self.now

    def kubeflow(self, store: MemoryStore | None = None, process: Process | None = None) -> KubeflowBackend:
        client = kfp_server_api.ApiClient()
        client.rest_client = Transport(self.backend, process)
        return self.backend_of(client, store or self.store, process)

    def backend_of(self, client: Any, store: MemoryStore, process: Process | None) -> KubeflowBackend:
        def ghosts(asked: Collection[str]) -> set[str]:
            if process:
                process.gate()
            return self.ghosts(asked)

        api = KubeflowApi(client, namespace=self.backend.namespace, service_account="graftline-run")
        return KubeflowBackend(api, store, ghosts=ghosts, manifests=self.repository.manifests)

    def desired(self) -> Desired:
        return Agenda(self.repository, self.store).desired(self.now)

    def plan(self) -> planning.Plan:
        desired = self.desired()
        return planning.plan(desired, self.kubeflow().observe(desired, self.now), self.now)

    def check(self) -> None:
        """What holds at every moment: no key and no slot was worked on twice."""
        for index, what in ((slice(0, 1), "key"), (slice(1, 3), "slot")):
            found: dict[Any, set[str]] = {}
            for entry in self.worked:
                found.setdefault(entry[index], set()).add(entry[3])
            twice = [name for name, ids in found.items() if len(ids) > 1]
            assert not twice, f"the {what} {twice[0]} was worked on by {len(found[twice[0]])} runs"

    def settle(self) -> None:
        """Let faults end: what was under way dies, late requests arrive, leases and graces run out."""
        for process in self.processes:
            process.kill()
        self.processes.clear()
        self.backend.land()
        self.apply_manifests()
        self.pass_time(timedelta(seconds=claims.GRACE_SECONDS + 301))
        self.run_all()
        self.pass_time(ENDS_ITSELF)

    def converge(self) -> None:
        """Reconcile until nothing waits, each run coming to its end; then a reconcile does nothing."""
        idle = 0
        for _ in range(1000):
            outcome = self.reconcile(None)
            assert outcome is not None and outcome.settled, outcome
            self.run_all()
            idle = 0 if outcome.done else idle + 1
            if not outcome.queued or idle == 10:  # nothing is at work: what ten of them do not start waits for ever
                break
        before = len(self.backend.log)
        again = self.reconcile(None)
        assert again is not None and again.done == () and again.settled and not again.queued, again
        assert len(self.backend.log) == before

    def check_converged(self) -> None:
        """After `settle`: all that should have run has, and all that ended has an end."""
        self.converge()
        self._check_all_ran()
        for _ in range(3):  # slots that come while all is well
            self.apply_manifests()
            self.pass_time(timedelta(minutes=10))
            self.converge()
            self._check_all_ran()
        assert not runs.open_runs(self.store), "a run that is over has no end in the store"
        for *_, run_id in self.worked:
            ended = runs.ends(self.store, run_id)
            assert ended, f"run {run_id} has no end in the store"
            there = self.backend.runs.get(run_id)
            if there is not None and there.state == "SUCCEEDED":
                assert ended[-1].state == "SUCCEEDED", f"run {run_id}: {ended[-1].state} in the store"

    def _check_all_ran(self) -> None:
        for run in self.desired().runs:
            intent = claims.read_intent(self.store, run.schedule, run.slot_file)
            began = {run.key, intent[0].key if intent else run.key} & self.keys
            assert began or (run.schedule, run.slot_file) in self.ran, f"{run.label} has not run"
        for name, schedule in self.repository.schedules.items():
            times, since = self.counted[name]
            assert times == times_of(schedule)
            for due in [] if schedule.paused else due_slots(schedule, since, self.now):
                assert (name, slot_name(due)) in self.ran, f"slot {slot_name(due)} of {name} was lost"


def times_of(schedule: Schedule) -> tuple[Any, ...]:
    return schedule.cron, schedule.zone, schedule.paused, schedule.catch_up


class WatchedAgenda(Agenda):
    """Tells the world from when on it may expect slots to run, by what the code promises and not by what it notes."""

    def __init__(self, world: World, repository: ModelRepository, store: MemoryStore) -> None:
        super().__init__(repository, store)
        self._world, self._model = world, repository

    def begin(self, now: datetime) -> None:
        world, times = self._world, {name: times_of(one) for name, one in self._model.schedules.items()}
        if now < world.looked:  # a look of before the last one decides nothing
            return super().begin(now)
        kept = {name: one for name, one in world.counted.items() if times.get(name) == one[0]}
        world.looked, world.counted = now, kept
        super().begin(now)  # it may die here
        if world.looked == now:
            world.counted = {name: kept.get(name, (one, world.now)) for name, one in times.items()}
        return None
