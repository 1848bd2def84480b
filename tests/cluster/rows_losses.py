"""Rows about what a run survives: a program that is killed, a run that is cancelled, a pod that is taken away."""

from __future__ import annotations

from contextlib import suppress

from acceptance_bench import Bench, Failed, ended_as

from graftline import runs

LONG = {"pretrain.epochs": 2000}
"""Trains until it is ended."""
PROGRAM = "graftline.components.pretrain"
KILL = """import os, signal, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    try: words = open(f"/proc/{pid}/cmdline").read().split(chr(0))
    except OSError: continue
    if sys.argv[1] in words and int(pid) != os.getpid(): os.kill(int(pid), signal.SIGKILL); print("killed")
"""
"""Ends the step's own program, inside its container: the runner sees a failure, the cluster sees none."""


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
