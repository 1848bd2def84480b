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
from dataclasses import dataclass, replace
from typing import Any

from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED, GraftlineError
from graftline.pipelines.trainjob.cluster import Cluster
from graftline.pipelines.trainjob.handover import Handover
from graftline.pipelines.trainjob.manifest import JOB_LABEL, QUEUE, Job, counts, manifest

LOOK_SECONDS = 10.0
"""A change of the job is seen at once; one of its pods alone after this time."""
_LOG_END_SECONDS = 20.0
_AGAIN_SECONDS = 0.5
"""Until a log is read on another connection."""
_GONE_SECONDS = 25.0
"""How long a launcher that is cancelled waits for the pods: less than the 30 s that it has itself."""
_CONTAINER = "node"
_INDEX = "batch.kubernetes.io/job-completion-index"
_KILLED, _TOLD_TO_END = 137, (EXIT_PREEMPTED, 143)
_MACHINE_LOST = ("ContainerStatusUnknown", "Unknown")
"""Reasons with which the kubelet reports a container that its node's restart has ended."""
_LAST_LINES = 20
_STOPPED = "stopped"
"""The note that someone deleted the job while it was followed: it is not made again."""


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
        self._say, self._look, self._warm, self._sleep = say, look_seconds, handover.heartbeat.pause, sleep
        self._uid = ""
        self._stopping = threading.Event()
        self._reaper = threading.Thread(target=self._stand_by, name="reaper", daemon=True)

    def run(self) -> int:
        """Bring the job to its end; return 0, or the exit code of the last attempt.

        2 and 3 (bad input, a refusal) are not tried again: the same input gives the same.
        """
        self._reaper.start()
        with self._handover.heartbeat.beating():
            return self._run()

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
            if ending.code != EXIT_PREEMPTED:  # after a pre-emption the queue does the waiting
                self._sleep(self._job.pod.retries.wait(self._job.failures))
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
        if self._uid:
            self._note(_cancelled(self._uid))
        self._say(f"trainjob {self._job.name}: cancelled; its pods write a checkpoint and end")
        attempts = self._attempts()
        names = {found["metadata"]["name"] for found in attempts} | {self._job.name}
        for name in sorted(names):
            self._cluster.delete(name)
        for found in attempts:
            self._note(_cancelled(found["metadata"]["uid"]))
        end = time.monotonic() + _GONE_SECONDS
        while any(self._cluster.get(name) for name in names) and time.monotonic() < end:
            time.sleep(0.2)

    def _stand_by(self) -> None:
        """Wait for `stop`, with a warm connection to the API server, and delete the job: its name is known."""
        while not self._stopping.wait(self._warm):
            self._cluster.at_once("GET", self._job.name)
        self._cluster.at_once("DELETE", self._job.name)

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
        job, retries = self._job, self._job.pod.retries
        what, spent, budget = "retries", job.failures, retries.limit
        if ending.code == EXIT_PREEMPTED:
            what, spent, budget = "pre-emptions", job.preemptions, retries.preemptions
        if spent < budget:
            return True
        self._say(
            f"trainjob {self._job.name}: its budget of {budget} {what} is used up; to begin a new one, delete the "
            f"TrainJob {self._job.name} in namespace {self._cluster.namespace}"
        )
        return False

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
                if _leads(pod) and pod.status.phase != "Pending" and pod.metadata.name not in logs:
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
        if last and self._handover.noted(_cancelled(self._uid)):
            return Ending(EXIT_PREEMPTED, "another launcher of this step was cancelled, and deleted it", final=True)
        self._note(_STOPPED)
        return Ending(1, "it was deleted, and not by this launcher", final=True)

    def _note(self, what: str) -> None:
        """Note it for the launchers of this step; what the launch has come to stands without it."""
        try:
            self._handover.note(what)
        except (GraftlineError, OSError) as error:
            self._say(f"trainjob {self._job.name}: cannot note '{what}': {error}")

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
                for line in list(self._cluster.log(pod.metadata.name, _CONTAINER, None, follow=False))[-_LAST_LINES:]:
                    self._say(f"{pod.metadata.name}: {line.partition(' ')[2]}")
        return judge(condition, list(seen.values()), vanished=vanished)


def judge(condition: dict[str, Any], pods: list[Any], *, vanished: bool = False) -> Ending:
    """Return how an attempt counts that has this condition `Failed`, and these pods, each as it was last seen;
    `vanished`: some of them are gone that had not ended.

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
    ended = [_terminated(pod) for pod in pods if not _disrupted(pod)]
    if vanished or len(ended) < len(pods) or not pods or any(end and end.exit_code for end in ended):
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
        taken = pod.metadata.deletion_timestamp
        return None if taken else (_KILLED, "was killed (SIGKILL), and nothing took it away")
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
    """Return the note of a launcher that deletes a job because it was cancelled; by uid: a name may come again."""
    return f"cancelled.{uid}"


def _leads(pod: Any) -> bool:
    return bool((pod.metadata.labels or {}).get(_INDEX, "0") == "0")


def _end(job: dict[str, Any]) -> dict[str, Any] | None:
    """Return the condition that says that the job has ended, or None."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None)


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
            self._ending.wait(_AGAIN_SECONDS)

    def _connect(self, since: int | None) -> None:
        """Show the lines that are new, until the connection ends."""
        passed = 0
        for line in self._cluster.log(self._pod, _CONTAINER, since, follow=not self._ending.is_set()):
            moment, _, text = line.partition("Z ")
            moment = f"{moment if '.' in moment else moment + '.':0<29}"  # nine digits of a second: later sorts later
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
