"""Before the rows: what they need, and what is the acceptance's own. After them: the removal of all that was made."""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from acceptance_bench import Bench, last_line, run_ids

from graftline.errors import GraftlineError, InputError
from graftline.kubeflow_api import TOKEN, check_endpoint
from graftline.kubernetes_api import RefusedError
from graftline.kubernetes_api import connect as connect_cluster
from graftline.settings import load_settings
from graftline.store import Store
from graftline.store.opening import open_store


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
