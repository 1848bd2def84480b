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
from typing import TYPE_CHECKING, Any

from graftline import runs
from graftline.component import fail, from_os_error
from graftline.errors import GraftlineError, InputError
from graftline.pipelines import ending, workflow
from graftline.pipelines.claim import add_start, start
from graftline.pipelines.reconcile.claims import holder, slot_elsewhere
from graftline.pipelines.trainjob.cluster import Cluster, connect, delete_jobs
from graftline.pipelines.trainjob.handover import sweep
from graftline.store import Store, open_store
from graftline.yamlfile import parse_json

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NO_WORD = "a step failed and left no word; its Workflow, which may say why, cannot be read"
_FROM_OUTSIDE = "cancelled, overdue, or without one of its pods: its Workflow, which says so, cannot be read"


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
    api, namespace = _cluster()
    found = workflow.of_pod(api, namespace, os.environ.get("GRAFTLINE_POD", "")) if api else None
    said = _close(store, this, told, found)
    if api:
        _sweep(Cluster(api, namespace), store, this.run)
    return said


def _close(store: Store, this: runs.Start, told: str, found: dict[str, Any] | None) -> str:
    other = holder(store, this.key)
    if other and other != this.run:
        return f"the run {other} does the work of key {this.key}; nothing to record"
    schedule, slot = (str(this.reason.get(name) or "") for name in ("schedule", "slot"))
    if schedule and slot and (elsewhere := slot_elsewhere(store, this.key, schedule, slot)):
        return f"{elsewhere}; nothing to record"
    if found is not None:
        engine, why = workflow.engine_state(found, told, datetime.now(UTC)), workflow.failures(found)
    else:
        engine = "SUCCEEDED" if told == "COMPLETE" else "FAILED"
        why = {"": _FROM_OUTSIDE if told == "RUNNING" else _NO_WORD}
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


def _cluster() -> tuple[ApiClient | None, str]:
    """Return a client of the cluster that this pod runs in, and the pod's namespace; None outside of one."""
    try:
        return connect(), (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except (InputError, OSError):
        return None, ""


def _sweep(jobs: Cluster, store: Store, run: str) -> None:
    """Delete the run's TrainJobs and what was handed over to them; reconcile does what this cannot."""
    try:
        delete_jobs(jobs, run)
        sweep(store, run)
    except GraftlineError as error:
        print(f"conclude: what the run left is not all gone: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
