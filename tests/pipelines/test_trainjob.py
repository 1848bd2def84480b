"""Training in a TrainJob: the launcher against a stand-in for the Kubernetes API (kubernetes_server.py; no cluster)."""

from __future__ import annotations

import re
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

from kubernetes_server import TRAINJOBS, Backend, Request
from trainjobs import IMAGE, JOB, POD, RUN, Launcher, attempt

from graftline.errors import GraftlineError, InputError
from graftline.kubernetes_api import Kubernetes
from graftline.pipelines.trainjob import cluster as cluster_module
from graftline.pipelines.trainjob import follow as follow_module
from graftline.pipelines.trainjob.cluster import Cluster, delete_jobs
from graftline.pipelines.trainjob.manifest import manifest
from graftline.profiles import Retries, load_profiles
from graftline.store.opening import open_store


def test_a_job_is_made_followed_and_done(backend: Backend, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Launcher(url)
    name = attempt(backend, 0)
    why = "couldn't assign flavors to pod set node: insufficient unused quota for cpu in flavor cpu, 1 more needed"
    backend.queue(name, why)
    while not any(line.endswith(f"waits in the queue graftline: {why}") for line in launcher.said):  # K41
        time.sleep(0.01)
    backend.start(name)
    for number in range(5):
        backend.say(name, f"step {number}")
    backend.say(name, "of the other node", index=1)
    backend.end(name, [0, 0])
    assert launcher.end() == 0
    assert capsys.readouterr().err.splitlines() == [f"step {number}" for number in range(5)]
    assert launcher.said[0] == f"trainjob {name}: created, 2 nodes of {IMAGE}"
    assert f"trainjob {name}: ended" in launcher.said


def test_the_log_is_shown_once_over_lost_connections(
    backend: Backend, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = Launcher(url)
    name = attempt(backend, 0)
    backend.start(name)
    lines = [f"step {number}" for number in range(40)]
    for number, line in enumerate(lines):
        if number % 10 == 5:
            backend.say(name, "CUT")
        backend.say(name, line)
        time.sleep(0.002)
    backend.wait_for(lambda: sum(request.verb == "log" for request in backend.requests) >= 5)
    backend.end(name, [0, 0])
    assert launcher.end() == 0
    assert capsys.readouterr().err.splitlines() == lines


def test_a_log_whose_connection_died_without_a_word_is_read_on_another(
    backend: Backend, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_QUIET_SECONDS", 0.2)
    launcher = Launcher(url)
    name = attempt(backend, 0)
    backend.start(name)
    for line in ("before", "HANG", "after", "LOST"):  # K42: the kubelet's words are no line of the training
        backend.say(name, line)
    backend.wait_for(lambda: sum(request.verb == "log" for request in backend.requests) >= 2)
    backend.end(name, [0, 0])
    assert launcher.end() == 0
    assert capsys.readouterr().err.splitlines() == ["before", "after"]


def test_a_pre_emption_and_a_failure_have_budgets_of_their_own(backend: Backend, url: str) -> None:
    launcher = Launcher(url)
    for number, codes in enumerate([[75, 75], [75, 143], [1, 75], [75, 75], [75, 1]]):
        name = attempt(backend, number)
        backend.start(name)
        backend.end(name, codes)
    assert launcher.end() == 1, "the second failure, of one that may be tried again"
    annotations = [job["metadata"]["annotations"] for job in backend.created]
    assert [a["graftline.dev/preemptions"] for a in annotations] == ["0", "1", "2", "2", "3"]
    assert [a["graftline.dev/failures"] for a in annotations] == ["0", "0", "0", "1", "1"]
    assert launcher.slept == [7], "before the attempt after a failure; the queue holds the others back"
    assert "its budget of 1 retries is used up" in launcher.said[-1]
    assert list(backend.jobs) == [replace(JOB, attempt=4).name], "earlier attempts are deleted"


def test_pre_emptions_end_when_their_budget_does(backend: Backend, url: str) -> None:
    launcher = Launcher(url)
    for number in range(4):
        name = attempt(backend, number)
        backend.start(name)
        backend.end(name, [75, 75])
    assert launcher.end() == 75
    assert "its budget of 3 pre-emptions is used up" in launcher.said[-1]


@pytest.mark.parametrize("code", [2, 3])
def test_bad_input_and_a_refusal_are_not_tried_again(backend: Backend, url: str, code: int) -> None:
    launcher = Launcher(url)
    name = attempt(backend, 0)
    backend.start(name)
    backend.end(name, [code, 75])
    assert launcher.end() == code
    assert len(backend.created) == 1


ENDINGS: dict[str, tuple[list[int], dict[str, Any], int]] = {
    "too little memory": ([137, 75], {"reason": "OOMKilled"}, 1),
    "more than its volume holds": (
        [137, 75],
        {"evicted": 'Usage of EmptyDir volume "tmp" exceeds the limit "10Gi". '},
        1,
    ),
    "killed with its machine": ([137, 75], {"disrupted": True}, 75),
    "killed by a restart of its node": ([137, 75], {"reason": "ContainerStatusUnknown"}, 75),
    "killed, and nothing took it away (K39)": ([137, 75], {}, 1),
    "evicted for its node's sake": ([137, 75], {"disrupted": True, "evicted": "The node was low on memory."}, 75),
    "a bug on a machine that was being taken away": ([1, 75], {"disrupted": True}, 75),
    "told to end before it listened": ([143, 143], {}, 75),
    "a crash in native code": ([139, 75], {}, 1),
}


@pytest.mark.parametrize(("codes", "pod", "expected"), ENDINGS.values(), ids=ENDINGS)
def test_what_counts_as_a_pre_emption(
    codes: list[int], pod: dict[str, Any], expected: int, backend: Backend, url: str
) -> None:
    launcher = Launcher(url, replace(JOB, pod=POD.model_copy(update={"retries": Retries()})))
    name = attempt(backend, 0)
    backend.start(name)
    backend.end(name, codes, **pod)
    assert launcher.end() == expected


def test_a_pod_that_vanished_with_its_machine_is_a_pre_emption_and_a_job_past_its_time_is_none(
    backend: Backend, url: str
) -> None:
    launcher = Launcher(url, replace(JOB, pod=POD.model_copy(update={"retries": Retries(preemptions=1)})))
    name = attempt(backend, 0)
    backend.start(name)
    while not any("2 of 2 nodes run" in line for line in launcher.said):
        time.sleep(0.01)
    backend.lose_pod(name, 1)
    backend.end(name, [143])
    name = attempt(backend, 1)
    backend.start(name)
    backend.end(name, [143, 143], job_reason="DeadlineExceeded")
    assert launcher.end() == 1
    assert any("DeadlineExceeded" in line for line in launcher.said)


def test_what_a_failed_pod_said_is_shown_though_it_does_not_lead(backend: Backend, url: str) -> None:
    launcher = Launcher(url, replace(JOB, pod=POD.model_copy(update={"retries": Retries()})))
    name = attempt(backend, 0)
    backend.start(name)
    backend.say(name, "no space left on device", index=1)
    backend.end(name, [75, 1])
    assert launcher.end() == 1
    assert any(line.endswith("-node-0-1-x: no space left on device") for line in launcher.said)


def test_a_launcher_that_starts_again_adopts_the_job_that_runs(backend: Backend, url: str) -> None:
    first = Launcher(url)
    name = attempt(backend, 0)
    backend.start(name)
    backend.end(name, [75, 75])
    running = attempt(backend, 1)
    backend.wait_for(lambda: name not in backend.jobs)
    second = Launcher(url)
    while not second.said:
        time.sleep(0.01)
    backend.start(running)
    backend.end(running, [0, 0])
    assert (first.end(), second.end()) == (0, 0)
    assert second.said[0] == f"trainjob {running}: there already; following it"
    assert [job["metadata"]["name"] for job in backend.created] == [name, running], "no job twice"


def test_a_launcher_that_starts_again_after_the_end_spends_no_new_budget(backend: Backend, url: str) -> None:
    job = replace(JOB, pod=POD.model_copy(update={"retries": Retries()}))
    for _ in range(3):
        launcher = Launcher(url, job)
        name = attempt(backend, 0)
        if len(backend.requests) < 20 and not backend.pods:
            backend.start(name)
            backend.end(name, [1, 75])
        assert launcher.end() == 1
    assert len(backend.created) == 1


def test_two_launchers_at_once_make_one_job_an_attempt(backend: Backend, url: str) -> None:
    launchers = [Launcher(url) for _ in range(4)]
    for number, codes in enumerate([[75, 75], [1, 75], [0, 0]]):
        name = attempt(backend, number)
        while not all(any(name in line for line in launcher.said) for launcher in launchers):
            time.sleep(0.01)
        backend.start(name)
        backend.end(name, codes)
    assert [launcher.end() for launcher in launchers] == [0] * 4
    assert len(backend.created) == 3


@pytest.mark.parametrize("fault", ["drop", "act-then-drop", 500, 429])
def test_one_job_is_made_though_every_second_request_goes_wrong(backend: Backend, url: str, fault: object) -> None:
    numbers = iter(range(10**6))
    backend.fault = lambda request: fault if request.verb != "log" and next(numbers) % 2 == 0 else None
    launcher = Launcher(url)
    for number, codes in enumerate([[75, 75], [0, 0]]):
        name = attempt(backend, number)
        backend.start(name)
        backend.end(name, codes)
    assert launcher.end() == 0
    assert len(backend.created) == 2


def test_a_watch_that_is_too_far_behind_is_begun_anew(backend: Backend, url: str) -> None:
    gone = iter([True] * 3)
    backend.fault = lambda request: 410 if request.verb == "watch" and next(gone, False) else None
    launcher = Launcher(url)
    name = attempt(backend, 0)
    backend.wait_for(lambda: sum(request.verb == "watch" for request in backend.requests) > 3)
    backend.start(name)
    backend.end(name, [0, 0])
    assert launcher.end() == 0


def test_a_job_that_was_deleted_by_hand_ends_the_launch_and_is_not_made_again(backend: Backend, url: str) -> None:
    launcher = Launcher(url)
    name = attempt(backend, 0)
    backend.start(name)
    backend.remove(name)
    assert launcher.end() == 1
    assert any("was deleted, and not by this launcher" in line for line in launcher.said)
    assert len(backend.created) == 1


def test_a_job_that_was_deleted_by_hand_stays_away_when_the_step_is_tried_again(backend: Backend, url: str) -> None:
    """Kubeflow tries the step again after any failure."""
    first = Launcher(url)
    name = attempt(backend, 0)
    backend.start(name)
    backend.remove(name)
    assert first.end() == 1
    second = Launcher(url)
    assert second.end() == 1
    assert len(backend.created) == 1
    note = f"handover/{RUN}/pretrain/note.stopped"
    assert f"to train again, remove {note} from the store" in second.said[-1]
    open_store(Launcher.store).delete(note)
    third = Launcher(url)
    backend.wait_for(lambda: len(backend.created) == 2)
    backend.start(name)
    backend.end(name, [0, 0])
    assert third.end() == 0


def test_a_job_that_a_cancelled_launcher_deleted_is_made_again_when_the_step_is_tried_again(
    backend: Backend, url: str
) -> None:
    """One launcher follows the job; another one of the step, on a machine that ends, is cancelled."""
    follows, cancelled = Launcher(url), Launcher(url)
    name = attempt(backend, 0)
    backend.start(name)
    while not all(any("2 of 2 nodes run" in line for line in each.said) for each in (follows, cancelled)):
        time.sleep(0.01)
    backend.lingers = True  # until its pods have ended
    canceller = threading.Thread(target=cancelled.launch.cancel, daemon=True)
    canceller.start()
    backend.wait_for(lambda: backend.deleted)
    store = open_store(Launcher.store)
    while not store.list(f"handover/{RUN}/pretrain/note.cancelled"):
        time.sleep(0.01)
    backend.remove(name)
    canceller.join(60)
    assert follows.end() == 75
    again = Launcher(url)
    backend.wait_for(lambda: len(backend.created) == 2)
    backend.lingers = False
    backend.start(name)
    backend.end(name, [0, 0])
    assert again.end() == 0


def test_a_launcher_that_falls_behind_goes_on_with_the_attempt_that_another_made(backend: Backend, url: str) -> None:
    launcher = Launcher(url)
    name = attempt(backend, 0)
    backend.start(name)
    while not any("2 of 2 nodes run" in line for line in launcher.said):
        time.sleep(0.01)
    later = manifest(replace(JOB, attempt=1, preemptions=1), "graftline")
    path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/graftline/trainjobs"
    backend.act(Request("POST", path, {}), later)
    backend.remove(name)
    backend.wait_for(lambda: any(request.path.endswith(later["metadata"]["name"]) for request in backend.requests))
    backend.start(later["metadata"]["name"])
    backend.end(later["metadata"]["name"], [0, 0])
    assert launcher.end() == 0


def test_a_name_that_is_being_deleted_is_waited_for(backend: Backend, url: str) -> None:
    backend.lingers = True
    first = Launcher(url)
    name = attempt(backend, 0)
    backend.act(
        Request("DELETE", f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/graftline/trainjobs/{name}", {}), None
    )
    second = Launcher(url)
    backend.wait_for(lambda: sum(r.method == "POST" for r in backend.requests) >= 2)
    backend.remove(name)
    backend.lingers = False
    backend.wait_for(lambda: len(backend.created) >= 2)
    backend.start(name)
    backend.end(name, [0, 0])
    assert (first.end(), second.end()) in ((1, 0), (0, 0))  # the first may have seen the name vanish
    assert [job["metadata"]["name"] for job in backend.created] == [name, name]


def test_what_the_api_server_refuses_is_one_line(backend: Backend, url: str) -> None:
    backend.fault = lambda request: 403 if request.method == "POST" else None
    with pytest.raises(InputError, match="cannot create a TrainJob or its pods: 403 as the test says; see docs"):
        Launcher(url).end()


def test_an_api_server_that_stays_away_is_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "OUTAGE_SECONDS", 0.1)
    with pytest.raises(GraftlineError, match="has not answered"):
        Launcher("http://127.0.0.1:9").end()


# As recorded


PACE = 0.02
"""Seconds for each second of a recording."""


def said_while_replayed(recording: str, backend: Backend, url: str, *, pace: float = PACE, **budget: int) -> Launcher:
    """Launch a job, play a recording of one to it, and have a second attempt succeed if there is one."""
    launcher = Launcher(url, replace(JOB, pod=POD.model_copy(update={"retries": Retries(**budget)})))
    backend.replay(recording, attempt(backend, 0), pace=pace)
    return launcher


@pytest.mark.parametrize("recording", ["trainjobs-3-pod-deleted-states", "trainjobs-6-drained-states"])
@pytest.mark.parametrize("pace", [0.0, PACE], ids=["unseen", "seen"])
def test_a_recorded_pod_loss_counts_as_a_pre_emption(recording: str, pace: float, backend: Backend, url: str) -> None:
    """K39, K43: all pods are gone before the job has failed, whether the launcher saw them end or not."""
    launcher = said_while_replayed(recording, backend, url, pace=pace, preemptions=1)
    name = attempt(backend, 1)
    assert backend.jobs[name]["metadata"]["annotations"]["graftline.dev/preemptions"] == "1"
    backend.start(name)
    backend.end(name, [0, 0])
    assert launcher.end() == 0
    assert any(line.endswith("-0: pre-empted") for line in launcher.said)


def test_a_recorded_pre_emption_by_kueue_goes_on_in_the_same_attempt(
    backend: Backend, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K39: suspended, resumed, and no budget spent."""
    monkeypatch.setattr(follow_module, "_LOG_END_SECONDS", 0.2)  # the recorded pods never end
    launcher, recording, resumed = Launcher(url, JOB), "trainjobs-6-preempted-resumed-states", "00:22:18"
    name = attempt(backend, 0)
    backend.replay(recording, name, pace=PACE, until=resumed)
    until = time.monotonic() + 60
    while not any("insufficient" in line for line in launcher.said):  # it stood for ten seconds
        assert time.monotonic() < until, launcher.said
        time.sleep(0.01)
    backend.replay(recording, name, pace=PACE, since=resumed)
    backend.replay("trainjobs-2-succeeded-states", name, pace=PACE, until="00:22:23")
    assert launcher.end() == 0, launcher.said
    assert len(backend.created) == 1
    told = [line.partition(": ")[2] for line in launcher.said]
    waits = [line for line in told if line.startswith("waits in the queue graftline: ")]
    assert "Preempted to accommodate a workload" in waits[0]
    assert "insufficient unused quota for ephemeral-storage in flavor cpu" in waits[-1], "K41"
    assert "2 of 2 nodes run" in told[told.index(waits[-1]) :]


def test_a_recorded_deadline_ends_the_launch(backend: Backend, url: str) -> None:
    """K43: the JobSet is deleted at once."""
    launcher = said_while_replayed("trainjobs-5-deadline-states", backend, url, preemptions=3)
    assert launcher.end() == 1
    assert "DeadlineExceeded: TrainJob exceeded its active deadline" in launcher.said[-2]
    assert len(backend.created) == 1


# The manifest


@pytest.mark.parametrize("profile", [name for name, p in load_profiles().items() if p.pod])
def test_each_profiles_job_is_one_that_trainer_takes(profile: str, backend: Backend, url: str) -> None:
    pod = load_profiles()[profile].pod
    assert pod
    job = replace(JOB, pod=pod, processes=max(1, pod.accelerators))
    Launcher(url, job)
    backend.wait_for(lambda: backend.created)
    (made,) = backend.created
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "graftline"
    assert made["metadata"]["labels"]["graftline.dev/run"] == RUN[:63]
    trainer = made["spec"]["trainer"]
    assert (trainer["image"], trainer["numNodes"]) == (IMAGE, pod.nodes)
    assert trainer["resourcesPerNode"]["limits"]["memory"] == f"{pod.memory_gib}Gi"
    if pod.resource:
        assert trainer["resourcesPerNode"]["limits"][pod.resource] == str(trainer["numProcPerNode"])
    (patch,) = made["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    spec = node["template"]["spec"]["template"]["spec"]
    assert spec.get("nodeSelector", {}) == pod.node_selector
    assert [taint["key"] for taint in spec["tolerations"]] == [taint.key for taint in pod.tolerations]
    assert ("affinity" in spec) == bool(pod.affinity)


@pytest.mark.parametrize(
    "run", ["4f2a1c3e-0d6b-4f51-9a57-1c2d3e4f5a6b", "mnist-0123456789abcdef", RUN, "a" * 62 + "-b"]
)
def test_the_runs_label_is_valid(run: str) -> None:
    labels = manifest(replace(JOB, run=run), "graftline")["metadata"]["labels"]
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", labels["graftline.dev/run"])


def test_names_differ_between_runs_steps_and_attempts_and_fit() -> None:
    jobs = [JOB, replace(JOB, run="another"), replace(JOB, component="finetune"), JOB.again(preempted=True)]
    names = {job.name for job in jobs}
    assert len(names) == 4
    assert all(len(name) <= 40 for name in names), "JobSet adds to it, and 63 is the limit"


def test_delete_jobs_deletes_those_of_its_run_and_needs_no_trainer(backend: Backend, url: str) -> None:
    from kubernetes import client

    jobs = [JOB, replace(JOB, component="finetune"), replace(JOB, run="another")]
    api = Cluster(Kubernetes(client.ApiClient(client.Configuration(host=url))), "graftline", pause_seconds=0.01)
    for job in jobs:
        api.create(manifest(job, "graftline"))
    assert sorted(delete_jobs(api, RUN)) == sorted(job.name for job in jobs[:2])
    assert list(backend.jobs) == [jobs[2].name]
    backend.served.discard(TRAINJOBS)
    assert delete_jobs(api, RUN) == [], "on a cluster without Trainer"
