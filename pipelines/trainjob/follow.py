"""Start a TrainJob, follow it to its end, and start it again as often as its budgets say.

Which attempt a job is, and how many before it were pre-empted or failed, is in its annotations: a launcher that is
started again finds the job that runs, or the one that has ended, and goes on counting. That someone else deleted the
job is noted in the hand-over, where nothing else of it is left to find.

A launcher that is cancelled has 0.2 to 0.5 s to live and nobody at stderr: it deletes first, then notes, then speaks.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED, GraftlineError
from graftline.pipelines.trainjob.cluster import Cluster
from graftline.pipelines.trainjob.handover import Handover, silent_seconds
from graftline.pipelines.trainjob.manifest import JOB_LABEL, QUEUE, Job, counts, manifest

LOOK_SECONDS = 10.0
"""A change of the job is seen at once; one of its pods alone after this time."""
_LOG_END_SECONDS = 20.0
_GONE_SECONDS = 25.0
"""How long a launcher that is cancelled waits for the pods: less than the 30 s that it has itself."""
_CONTAINER = "node"
_LEADER = "0"
_INDEX = "batch.kubernetes.io/job-completion-index"
_KILLED, _TOLD_TO_END = 137, (EXIT_PREEMPTED, 143)
_MACHINE_LOST = ("ContainerStatusUnknown", "Unknown")
"""Reasons with which the kubelet reports a container that its node's restart has ended."""
_LAST_LINES = 20
_STOPPED = "stopped"
"""The note that someone deleted the job while it was followed: it is not made again."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    code: int
    """0, or the exit code that stands for it: 75 for a pre-emption."""
    why: str
    final: bool = False
    """Whether no budget allows another attempt."""


class Launch:
    """One step's job, over all its attempts."""

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        handover: Handover,
        *,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
        look_seconds: float = LOOK_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`job` is the first attempt; the cluster may have it, or a later one."""
        self._cluster, self._job, self._handover = cluster, job, handover
        self._say, self._look, self._beat, self._sleep = say, look_seconds, silent_seconds() / 10, sleep
        self._uid = ""
        self._over, self._stopping = threading.Event(), threading.Event()
        self._reaper = threading.Thread(target=self._stand_by, name="reaper", daemon=True)

    def run(self) -> int:
        """Bring the job to its end; return 0, or the exit code of the last attempt.

        2 and 3 (bad input, a refusal) are not tried again: the same input gives the same.
        """
        self._try("say that the run goes on", self._handover.beat)
        self._reaper.start()
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        try:
            return self._run()
        finally:
            self._over.set()

    def _run(self) -> int:
        if self._handover.noted(_STOPPED):
            self._say(
                f"trainjob {self._job.base}: was deleted by someone, and is not made again; to train again, remove "
                f"{self._handover.note_key(_STOPPED)} from the store"
            )
            return 1
        self._adopt()
        while True:
            ending = self._attempt()
            if ending is None:
                continue
            if ending.code == 0:
                return 0
            self._say(f"trainjob {self._job.name}: {ending.why}")
            if not self._may_go_on(ending):
                return ending.code
            before = self._job
            self._job = before.again(preempted=ending.code == EXIT_PREEMPTED)
            self._pause(ending)
            self._create()
            self._cluster.delete(before.name)

    def clear(self) -> None:
        """Delete every attempt."""
        for found in self._attempts():
            self._cluster.delete(found["metadata"]["name"])

    def stop(self) -> None:
        """Have the job deleted at once; for a signal handler: it takes no lock that its thread may hold."""
        self._stopping.set()

    def cancel(self) -> None:
        """Delete every attempt, the one that is just being made too, and wait a while for the pods to end."""
        self.stop()
        if self._reaper.is_alive():
            self._reaper.join(_GONE_SECONDS)
        uids = {self._uid} - {""}
        for uid in uids:  # before they can be seen to be gone
            self._try("note that it is cancelled", lambda uid=uid: self._handover.note(_cancelled(uid)))
        with suppress(OSError):  # whoever reads may be gone
            self._say(f"trainjob {self._job.name}: cancelled; its pods write a checkpoint and end")
        attempts = self._attempts()
        names = {found["metadata"]["name"] for found in attempts} | {self._job.name}
        for name in sorted(names):
            self._cluster.delete(name)
        for uid in {found["metadata"]["uid"] for found in attempts} - uids:
            self._try("note that it is cancelled", lambda uid=uid: self._handover.note(_cancelled(uid)))
        end = time.monotonic() + _GONE_SECONDS
        while any(self._cluster.get(name) for name in names) and time.monotonic() < end:
            time.sleep(0.2)

    def _stand_by(self) -> None:
        """Wait for `stop`, with a warm connection to the API server, and delete the job: its name is known."""
        while not self._stopping.wait(self._beat):
            if self._over.is_set():
                return
            with suppress(GraftlineError):
                self._cluster.get(self._job.name)
        self._cluster.delete_at_once(self._job.name)

    def _keep_beating(self) -> None:
        while not self._over.wait(self._beat) and not self._stopping.is_set():
            self._try("say that the run goes on", self._handover.beat)

    def _attempts(self) -> list[dict[str, Any]]:
        """Return the attempts that the cluster has and is not about to delete, the newest last."""
        found = self._cluster.find(f"{JOB_LABEL}={self._job.base}")
        living = [job for job in found if "deletionTimestamp" not in job["metadata"]]
        return sorted(living, key=lambda job: counts(job)["attempt"])

    def _adopt(self) -> None:
        """Go on with the newest attempt that the cluster has, or make the first one."""
        attempts = self._attempts()
        if not attempts:
            self._create()
            return
        self._job = replace(self._job, **counts(attempts[-1]))
        self._say(f"trainjob {self._job.name}: there already; following it")
        for older in attempts[:-1]:  # left by a launcher that ended between making the next and deleting this
            self._cluster.delete(older["metadata"]["name"])

    def _create(self) -> None:
        """Make the job, unless it is there: by another launcher of this step, or by a try whose answer was lost."""
        body = manifest(self._job, self._cluster.namespace)
        while not self._cluster.create(body):
            there = self._cluster.get(self._job.name)
            if there and "deletionTimestamp" not in there["metadata"]:
                self._say(f"trainjob {self._job.name}: there already; following it")
                return
            self._sleep(1.0)  # one of that name is being deleted
        self._say(f"trainjob {self._job.name}: created, {self._job.pod.nodes} nodes of {self._job.image}")

    def _may_go_on(self, ending: Ending) -> bool:
        """Return whether a budget has an attempt left for this ending, and say if not."""
        if ending.final or ending.code in (EXIT_INPUT, EXIT_REFUSED):
            return False
        retries = self._job.pod.retries
        preempted = ending.code == EXIT_PREEMPTED
        spent = self._job.preemptions if preempted else self._job.failures
        budget = retries.preemptions if preempted else retries.limit
        if spent < budget:
            return True
        what = "pre-emptions" if preempted else "retries"
        self._say(
            f"trainjob {self._job.name}: its budget of {budget} {what} is used up; to begin a new one, delete the "
            f"TrainJob {self._job.name} in namespace {self._cluster.namespace}"
        )
        return False

    def _pause(self, ending: Ending) -> None:
        """Wait before the next attempt after a failure; after a pre-emption the queue does the waiting."""
        if ending.code != EXIT_PREEMPTED:
            self._sleep(self._job.pod.retries.wait(self._job.failures))

    def _attempt(self) -> Ending | None:
        """Follow one attempt to its end; return None where another launcher has gone on to the next one."""
        name, said = self._job.name, ""
        logs: dict[str, _Log] = {}
        seen: dict[str, Any] = {}  # each pod as it was last: one that vanishes may have ended before
        last: dict[str, Any] = {}
        while True:
            job = self._cluster.get(name)
            if job is None:
                return self._gone(last)
            last, self._uid = job, job["metadata"].get("uid", "")
            pods = self._cluster.pods(name)
            for pod in pods:
                seen[pod.metadata.name] = pod
                if _leads(pod) and _started(pod) and pod.metadata.name not in logs:
                    logs[pod.metadata.name] = _Log(self._cluster, pod.metadata.name)
            if (now := self._state(job, pods)) != said:
                said = now
                self._say(f"trainjob {name}: {now}")
            if (condition := _end(job)) is not None:
                for log in logs.values():
                    log.finish(_LOG_END_SECONDS)
                return self._ending(condition, pods, seen)
            self._cluster.wait(job, self._look)

    def _gone(self, last: dict[str, Any]) -> Ending | None:
        """Return how an attempt ended that was deleted, `last` as it was seen last; None if there is a later one."""
        later = [job for job in self._attempts() if counts(job)["attempt"] > self._job.attempt]
        if later:
            self._job = replace(self._job, **counts(later[-1]))
            self._say(f"trainjob {self._job.name}: made by another launcher of this step; following it")
            return None
        note = _cancelled(self._uid)
        if last and self._try(f"read whether '{note}' is noted", lambda: self._handover.noted(note)):
            return Ending(
                EXIT_PREEMPTED, "another launcher of this step was cancelled, and deleted it", final=True
            )
        self._try(f"note '{_STOPPED}'", lambda: self._handover.note(_STOPPED))
        return Ending(1, "it was deleted, and not by this launcher", final=True)

    def _try(self, what: str, act: Callable[[], Result]) -> Result | None:
        """Return what `act` returns; where the store does not let it, say so: what the launch comes to stands."""
        try:
            return act()
        except (GraftlineError, OSError) as error:
            with suppress(OSError):
                self._say(f"trainjob {self._job.name}: cannot {what}: {error}")
            return None

    def _state(self, job: dict[str, Any], pods: list[Any]) -> str:
        if _end(job):
            return "ended"
        if job["spec"].get("suspend"):  # by Kueue, six seconds before its condition says so
            why = self._cluster.why_waiting(job)
            return f"waits in the queue {QUEUE}" + (f": {why}" if why else "")
        running = sum(pod.status.phase == "Running" for pod in pods)
        return f"{running} of {self._job.pod.nodes} nodes run"

    def _ending(self, condition: dict[str, Any], pods: list[Any], seen: dict[str, Any]) -> Ending:
        """Return how the attempt counts; show what other pods than the leader said before they failed."""
        if condition["type"] == "Complete":
            return Ending(0, "done")
        present = {pod.metadata.name for pod in pods}
        vanished = any(_terminated(pod) is None for name, pod in seen.items() if name not in present)
        for pod in pods:
            if not _leads(pod) and _fault(pod):
                self._show_last_lines(pod.metadata.name)
        return judge(condition, list(seen.values()), vanished=vanished)

    def _show_last_lines(self, pod: str) -> None:
        """Show how the log of a pod that does not lead ends: it may say what the leader's cannot know."""
        lines = list(self._cluster.log(pod, _CONTAINER, None, follow=False))
        for line in lines[-_LAST_LINES:]:
            self._say(f"{pod}: {line.partition(' ')[2]}")


def judge(condition: dict[str, Any], pods: list[Any], *, vanished: bool = False) -> Ending:
    """Return how a failed attempt counts.

    Args:
        condition: the job's condition `Failed`.
        pods: its pods, each as it was last seen.
        vanished: whether some of them are gone that had not ended.

    A pod that ended by a fault of its own decides: bad input, a refusal, a bug, too little memory or disk, SIGKILL
    though nothing took the pod away. Where all others were told to end or went with their machine, the job was
    pre-empted: processes that lose one of their number end with 75 too.
    """
    reason = condition.get("reason", "")
    if reason in ("DeadlineExceeded", "TrainingRuntimeNotSupported"):
        limit = ", timeout_hours of its profile, which each attempt has anew" if reason[0] == "D" else ""
        return Ending(1, f"{reason}: {condition.get('message', '')}{limit}")
    faults = [(pod.metadata.name, *fault) for pod in pods if (fault := _fault(pod))]
    if faults:
        name, code, why = min(faults, key=lambda fault: fault[1] not in (EXIT_INPUT, EXIT_REFUSED))
        return Ending(code if code in (EXIT_INPUT, EXIT_REFUSED) else 1, f"pod {name} {why}")
    if (
        vanished
        or not pods
        or any(_disrupted(pod) or (_terminated(pod) and _terminated(pod).exit_code) for pod in pods)
    ):
        return Ending(EXIT_PREEMPTED, "pre-empted")
    return Ending(1, f"failed ({reason}): {condition.get('message', '')}")


def _fault(pod: Any) -> tuple[int, str] | None:
    """Return the exit code of a pod that ended by a fault of its own, and in words; None for any other pod.

    The kubelet evicts a pod for its node's sake with the condition DisruptionTarget, and one that has filled its own
    volumes or disk without:
    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    if _disrupted(pod):
        return None
    if pod.status.reason == "Evicted":
        return 1, f"was evicted for what it used itself: {' '.join((pod.status.message or '').split())}"
    ended = _terminated(pod)
    if ended is None:
        return None
    if ended.reason == "OOMKilled":
        return 1, "needed more memory than it may have (OOMKilled)"
    if ended.exit_code in (0, *_TOLD_TO_END) or ended.reason in _MACHINE_LOST:
        return None
    if ended.exit_code == _KILLED:  # after its grace period, or by who knows whom
        return (
            None
            if pod.metadata.deletion_timestamp
            else (_KILLED, "was killed, and not by Kubernetes (SIGKILL)")
        )
    return ended.exit_code, f"ended with exit code {ended.exit_code}"


def _disrupted(pod: Any) -> bool:
    """Return whether Kubernetes says that the pod's machine was taken away, or the pod from it."""
    conditions = pod.status.conditions or []
    return any(c.type == "DisruptionTarget" and c.status == "True" for c in conditions)


def _terminated(pod: Any) -> Any:
    for status in pod.status.container_statuses or []:
        if status.name == _CONTAINER and status.state and status.state.terminated:
            return status.state.terminated
    return None


def _cancelled(uid: str) -> str:
    """Return the note that a launcher deletes a job because it was cancelled itself. By uid: a name may come again."""
    return f"cancelled.{uid}"


def _started(pod: Any) -> bool:
    return pod.status.phase in ("Running", "Succeeded", "Failed")


def _leads(pod: Any) -> bool:
    return ((pod.metadata.labels or {}).get(_INDEX) or _LEADER) == _LEADER


def _condition(job: dict[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = job.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def _end(job: dict[str, Any]) -> dict[str, Any] | None:
    """Return the condition that says that the job has ended, or None."""
    return _condition(job, "Complete") or _condition(job, "Failed")


class _Log:
    """Shows a pod's log while it grows, each line once, over lost connections."""

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster, self._pod = cluster, pod
        self._ending = threading.Event()
        self._last, self._at_last = "", 0
        self._read = time.monotonic()
        self._thread = threading.Thread(target=self._work, name=f"log of {pod}", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until all of the log was shown; at most so long."""
        self._ending.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        first = True
        while True:
            ending = self._ending.is_set()  # asked before the log is read: then what is read is all of it
            since = None if first else int(time.monotonic() - self._read) + 5
            first = False
            self._connect(since)
            if ending:
                return
            self._ending.wait(0.5)

    def _connect(self, since: int | None) -> None:
        """Show the lines that are new, until the connection ends."""
        passed = 0
        for line in self._cluster.log(self._pod, _CONTAINER, since, follow=not self._ending.is_set()):
            moment, _, text = line.partition(" ")
            moment = _fixed_width(moment)
            self._read = time.monotonic()
            if moment == self._last:
                passed += 1
                if passed <= self._at_last:
                    continue
            elif moment < self._last:
                continue
            else:
                self._last, self._at_last, passed = moment, 0, 1
            self._at_last = max(self._at_last, passed)
            print(text, file=sys.stderr, flush=True)


def _fixed_width(moment: str) -> str:
    """Return an RFC 3339 time in UTC with nine digits of a second, so that later ones sort later."""
    seconds, _, fraction = moment.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"


class GaveUpError(GraftlineError):
    """The job did not succeed; its own lines have said why."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"the job {name} ended with exit code {code}")
        self.exit_code = code
