"""Random histories of a world, for hypothesis: what people, clocks, Kubeflow and two reconciles do to one another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kfp_server import ACTIVE, Fault
from world import TASKS, Process, Tree, Turn, World

from graftline.pipelines.reconcile.schedules import Schedule


def _sound(cron: str | None, on_change: frozenset[str], catch_up: bool, **_: Any) -> dict[str, Any]:
    """Mend what no schedule may be, and catch up on no more than a few slots a day."""
    return {
        "on_change": on_change if cron or on_change else frozenset({"code"}),
        "catch_up": catch_up and cron not in ("15 * * * *", "*/20 * * * *"),
    }


NAMES = ("nightly", "hourly", "on-push")
SCHEDULES = st.builds(
    lambda **given: Schedule(**given | _sound(**given)),
    task=st.sampled_from(TASKS),
    cron=st.sampled_from(["15 * * * *", "*/20 * * * *", "30 2 * * *", "0 */6 * * 1-5", "0 1 1 * *", None]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]),
    profile=st.sampled_from([None, "cpu"]),
    set=st.sampled_from([{}, {"finetune.epochs": 3}]),
    on_change=st.sets(st.sampled_from(["data", "parameters", "code"])).map(frozenset),
    catch_up=st.booleans(),
    concurrency=st.integers(1, 3),
    paused=st.sampled_from([False, False, False, True]),
)
Edit = Callable[[Tree], dict[str, Any]]
"""From what a commit holds to what the next one changes."""


def _write(name: str, schedule: Schedule) -> Edit:
    return lambda tree: {"schedules": dict(tree.schedules) | {name: schedule}}


def _adjust(name: str, change: dict[str, Any]) -> Edit:
    def edit(tree: Tree) -> dict[str, Any]:
        there = dict(tree.schedules)
        if name in there:
            there[name] = there[name].model_copy(update=change)
        return {"schedules": there}

    return edit


def _delete(name: str) -> Edit:
    return lambda tree: {"schedules": {key: value for key, value in tree.schedules.items() if key != name}}


def _task(kind: str, task: str, value: int) -> Edit:
    return lambda tree: {kind: dict(getattr(tree, kind)) | {task: value}}


EDITS = st.one_of(
    st.builds(_write, st.sampled_from(NAMES), SCHEDULES),
    st.builds(
        _adjust,
        st.sampled_from(NAMES),
        st.sampled_from(
            [{"concurrency": 2}, {"concurrency": 3}, {"paused": True}, {"paused": False}, {"profile": "cpu"}]
        ),
    ),
    st.builds(_delete, st.sampled_from(NAMES)),
    st.builds(_task, st.sampled_from(["data", "parameters"]), st.sampled_from(TASKS), st.integers(0, 2)),
    st.builds(lambda code: lambda tree: {"code": code}, st.integers(0, 2)),
    st.just(lambda tree: {}),
)
FAULTS = st.sampled_from([
    Fault("refuse", 409), Fault("refuse", 429), Fault("refuse", 500), Fault("refuse", 503), Fault("act-then-fail", 500),
    Fault("act-then-fail", 409), Fault("drop"), Fault("act-then-drop"), Fault("late"), Fault("late"),
])  # fmt: skip
TURNS = st.one_of(
    st.builds(Turn, fault=FAULTS, at=st.sampled_from(["", "change", "start"])),
    st.builds(Turn, crash=st.sampled_from(["before", "after"]), at=st.sampled_from(["", "change", "start"])),
)
SPANS = st.sampled_from([timedelta(minutes=1), timedelta(minutes=6), timedelta(hours=1), timedelta(days=1)])


class Machine(RuleBasedStateMachine):
    """Two processes at most reconcile at once, each stopping before every call that it makes."""

    steps: ClassVar[int] = 0
    world_class: ClassVar[type[World]] = World

    @initialize(schedules=st.dictionaries(st.sampled_from(NAMES), SCHEDULES, min_size=1))
    def start(self, schedules: dict[str, Schedule]) -> None:
        self._begin(schedules)

    def _begin(self, schedules: dict[str, Schedule]) -> None:
        self.world = self.world_class()
        self.world.commit(schedules=schedules)
        self.world.reconcile(None)
        self.since_calm = 0

    @rule(edit=EDITS)
    def someone_commits(self, edit: Edit) -> None:
        self.world.commit(**edit(self.world.trees[-1]))

    @rule(back=st.integers(1, 4))
    def revert(self, back: int) -> None:
        self.world.revert_to(max(0, len(self.world.trees) - 1 - back))

    @rule(span=SPANS)
    def time_passes(self, span: timedelta) -> None:
        self.world.pass_time(span)

    @rule()
    def pods_start(self) -> None:
        for run_id in list(self.world.backend.runs):
            self.world.first_step(run_id)

    @rule(
        number=st.integers(0, 9),
        state=st.sampled_from(["SUCCEEDED", "FAILED"]),
        recorded=st.booleans(),
        after=st.sampled_from([timedelta(), timedelta(minutes=5)]),
    )
    def a_run_ends(self, number: int, state: str, recorded: bool, after: timedelta) -> None:
        """Its last step may have recorded that or not; the API may show it later."""
        if run_id := self._pick(number, *ACTIVE):
            self.world.end(run_id, state, recorded=recorded, seen_after=after)

    @rule(number=st.integers(0, 9), deed=st.sampled_from(["cancel", "retry", "delete", "delete workflow"]))
    def someone_meddles(self, number: int, deed: str) -> None:
        """A person cancels a run in Kubeflow's page, retries or deletes it; or deletes a workflow: a ghost is left."""
        world = self.world
        run_id = self._pick(number, *(("FAILED",) if deed == "retry" else (*ACTIVE, "FAILED")))
        if run_id is None:
            return
        if deed == "retry":
            world.retry(run_id)
        elif deed == "cancel":
            world.cancel(run_id)
        else:
            world.take_away(run_id, workflow_only=deed == "delete workflow")

    def _pick(self, number: int, *states: str) -> str | None:
        found = [run.run_id for run in self.world.backend.runs.values() if run.state in states]
        return found[number % len(found)] if found else None

    @rule()
    def argo_cd_applies(self) -> None:
        self.world.apply_manifests()

    @precondition(lambda self: len(self.world.processes) < 2)
    @rule(leased=st.booleans(), changes=st.integers(0, 5), turn=st.one_of(st.none(), TURNS))
    def begin_reconcile(self, leased: bool, changes: int, turn: Turn | None) -> None:
        """It makes some changes, and then something may go wrong. Without a lease: it slept past the end of its own."""
        process = Process(self.world, leased=leased)
        for _ in range(changes):
            process.step(Turn(at="change"))
        if turn is not None:
            process.step(turn)
        if process.alive:
            self.world.processes.append(process)

    @precondition(lambda self: self.world.processes)
    @rule(which=st.integers(0, 1), turn=TURNS)
    def something_goes_wrong(self, which: int, turn: Turn) -> None:
        self.go_on(which, 1, turn)

    @precondition(lambda self: self.world.processes)
    @rule(which=st.integers(0, 1), calls=st.integers(1, 12), turn=st.just(Turn(at="change")))
    def go_on(self, which: int, calls: int, turn: Turn) -> None:
        """One of them makes some calls, and goes on to the next that changes something."""
        process = self.world.processes[which % len(self.world.processes)]
        for _ in range(calls - 1):
            process.step(Turn())
        process.step(turn)
        self.world.processes = [one for one in self.world.processes if one.alive]

    @precondition(lambda self: self.world.processes)
    @rule()
    def finish(self) -> None:
        self.world.processes.pop(0).run()

    @rule()
    def late_requests_arrive(self) -> None:
        self.world.backend.land()

    @precondition(lambda self: self.since_calm > 20)
    @rule()
    def faults_end(self) -> None:
        self._converges()
        self.since_calm = 0

    @invariant()
    def no_key_twice(self) -> None:
        type(self).steps += 1
        if hasattr(self, "world"):
            self.since_calm += 1
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self._converges()

    def _converges(self) -> None:
        self.world.settle()
        self.world.check_converged()
        self.world.check()
