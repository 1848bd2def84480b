"""The last step of a run on a cluster, however it ended: write in the store how, and take away what it left.

    python -m graftline.pipelines.conclude --status JSON --task T --store S --run-key K ... --reason JSON

The exit handler is told no more than COMPLETE, FAILED or RUNNING. So the run's Workflow is asked, found by the label of
this very pod, with the run's own service account; where it may not be asked, the steps' words decide alone. Then the
run's TrainJobs are deleted, whatever became of their launchers, and what was handed over to them.

The end is `runs/<run>.json`. It holds no time of this step, so that a repeat changes nothing. A run that does not hold
the claim of its key, or whose slot is run under another key, did no work and writes nothing.
Exit codes: 0 done, 2 bad input, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftline import runs
from graftline.component import fail, from_os_error
from graftline.errors import GraftlineError, InputError
from graftline.pipelines import ending
from graftline.pipelines.claim import add_start, start
from graftline.pipelines.pods import RUN_LABEL
from graftline.store import Store, open_store
from graftline.yamlfile import parse_json

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WORKFLOW = "workflows.argoproj.io/workflow"
_TIMEOUT = (3.0, 10.0)
"""Seconds to connect and to answer: after a cancel this step has little time."""
_FROM_OUTSIDE = (
    "ended from outside: cancelled, overdue, or a pod was lost; its Workflow, which says so, cannot be read"
)


def main(argv: list[str] | None = None) -> None:
    """Run the step with command-line arguments and exit with its code."""
    parser = argparse.ArgumentParser(
        prog="python -m graftline.pipelines.conclude", description="Write in the store how a run ended."
    )
    parser.add_argument("--status", required=True, metavar="JSON", help="Kubeflow's PipelineTaskFinalStatus")
    add_start(parser)
    arguments = parser.parse_args(argv)
    try:
        print(f"conclude: {_conclude(arguments)}")
    except GraftlineError as error:
        sys.exit(fail("conclude", error))
    except OSError as error:
        sys.exit(fail("conclude", from_os_error(error)))


def _conclude(arguments: argparse.Namespace) -> str:
    """Close the run; return a line that says how it ended, or why that is not written."""
    told, this, store = _told(arguments.status), start(arguments), open_store(arguments.store)
    cluster = _Cluster.here()
    said = _close(store, this, told, cluster)
    if cluster:
        cluster.sweep(store, this.run)
    return said


def _close(store: Store, this: runs.Start, told: str, cluster: _Cluster | None) -> str:
    from graftline.pipelines.reconcile.claims import holder, slot_elsewhere

    other = holder(store, this.key)
    if other and other != this.run:
        return f"the run {other} does the work of key {this.key}; nothing to record"
    schedule, slot = (str(this.reason.get(name) or "") for name in ("schedule", "slot"))
    if schedule and slot and (elsewhere := slot_elsewhere(store, this.key, schedule, slot)):
        return f"{elsewhere}; nothing to record"
    workflow = cluster.workflow() if cluster else None
    if workflow is not None:
        engine, why = ending.read_workflow(workflow, told, datetime.now(UTC))
    else:
        engine = "SUCCEEDED" if told in ("COMPLETE", "SUCCEEDED") else "FAILED"
        why = {"": _FROM_OUTSIDE} if told == "RUNNING" else {}
    before = runs.ends(store, this.run)  # a repeat of this step has no open run any more
    begun = runs.begun(store, this.run) or (before[-1].start if before else this)
    end = ending.close(store, begun, engine, why)
    return f"{end.state}{f', {end.line}' if end.line else ''}"


def _told(status: str) -> str:
    """Return the state that Kubeflow tells. Raises InputError."""
    found = parse_json(status, where="--status")
    if not isinstance(found, dict) or not isinstance(found.get("state"), str):
        raise InputError("--status", status[:80], expected="a JSON object with `state`")
    return str(found["state"])


class _Cluster:
    """The cluster that this pod runs in."""

    def __init__(self, api: Any, namespace: str) -> None:
        self._api, self._namespace = api, namespace

    @classmethod
    def here(cls) -> _Cluster | None:
        """Return the cluster; None outside of one."""
        from graftline.pipelines.trainjob.cluster import connect

        try:
            return cls(connect(), (_ACCOUNT / "namespace").read_text().strip())
        except (InputError, OSError):
            return None

    def workflow(self) -> dict[str, Any] | None:
        """Return this pod's Workflow; None if it may not be read."""
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        try:
            pod = client.CoreV1Api(self._api).read_namespaced_pod(
                os.environ.get("GRAFTLINE_POD", ""), self._namespace, _request_timeout=_TIMEOUT
            )
            found: dict[str, Any] = client.CustomObjectsApi(self._api).get_namespaced_custom_object(
                "argoproj.io", "v1alpha1", self._namespace, "workflows", (pod.metadata.labels or {})[_WORKFLOW],
                _request_timeout=_TIMEOUT,
            )  # fmt: skip
        except (client.ApiException, HTTPError, OSError, KeyError, ValueError) as error:
            print(f"conclude: the Workflow cannot be read: {type(error).__name__}", file=sys.stderr)
            return None
        return found

    def sweep(self, store: Store, run: str) -> None:
        """Delete the run's TrainJobs and what was handed over to them; reconcile does what this cannot."""
        from graftline.pipelines.trainjob.cluster import Cluster
        from graftline.store.bundles import delete_all

        jobs = Cluster(self._api, self._namespace)
        try:
            for job in jobs.find(f"{RUN_LABEL}={run}"):
                jobs.delete(job["metadata"]["name"])
            delete_all(store, f"handover/{run}")
        except GraftlineError as error:
            print(f"conclude: what the run left is not all gone: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
