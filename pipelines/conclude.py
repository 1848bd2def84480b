"""The last step of a run on a cluster, however it ended: write in the store how, and why it was started.

    python -m graftline.pipelines.conclude --status JSON --task T --store S --run-key K ... --reason JSON

The record is `runs/<run key>.json`. It holds no time, so that a repeat of this step changes nothing; a run that was
retried by hand and then ended differently has another, `runs/<run key>.2.json`. A run that does not hold the claim of
its key, or whose slot is run under another key, did no work and writes nothing.
Exit codes: 0 done, 2 bad input, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Any

from graftline.component import fail, from_os_error
from graftline.errors import GraftlineError, InputError
from graftline.store import open_store
from graftline.yamlfile import parse_json

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MESSAGE = 2000
"""Characters of a failure's message that are kept: it may quote a log."""


def main(argv: list[str] | None = None) -> None:
    """Run the step with command-line arguments and exit with its code."""
    arguments = _parser().parse_args(argv)
    try:
        said = _conclude(arguments)
    except GraftlineError as error:
        sys.exit(fail("conclude", error))
    except OSError as error:
        sys.exit(fail("conclude", from_os_error(error)))
    print(f"conclude: {said}")


def _conclude(arguments: argparse.Namespace) -> str:
    """Write the record; return its key, or why there is none."""
    from graftline.pipelines.reconcile.claims import holder, record_end, slot_elsewhere

    run_key = arguments.run_key or os.environ.get(
        "GRAFTLINE_RUN", ""
    )  # a run that a person started in the UI
    if not _KEY.fullmatch(run_key):
        raise InputError("--run-key", repr(run_key), expected="the run's key")
    store = open_store(arguments.store)
    other = holder(store, run_key)
    if other and other != arguments.run_id:
        return f"the run {other} does the work of key {run_key}; nothing to record"
    record = _record(arguments, run_key)
    reason = record["reason"] if isinstance(record["reason"], dict) else {}
    schedule, slot = str(reason.get("schedule") or ""), str(reason.get("slot") or "")
    if schedule and slot and (elsewhere := slot_elsewhere(store, run_key, schedule, slot)):
        return f"{elsewhere}; nothing to record"
    return record_end(store, run_key, record)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m graftline.pipelines.conclude", description="Write in the store how a run ended."
    )
    parser.add_argument("--status", required=True, metavar="JSON", help="Kubeflow's PipelineTaskFinalStatus")
    for name in ("task", "store", "run-key", "version", "revision", "data-digest"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument(
        "--run-id", default=os.environ.get("GRAFTLINE_RUN", ""), help="(default: $GRAFTLINE_RUN)"
    )
    parser.add_argument("--reason", required=True, metavar="JSON", help="why the run was started")
    return parser


def _record(arguments: argparse.Namespace, run_key: str) -> dict[str, Any]:
    status = parse_json(arguments.status, where="--status")
    if not isinstance(status, dict) or not isinstance(status.get("state"), str):
        raise InputError("--status", arguments.status[:80], expected="a JSON object with `state`")
    error = status.get("error") or {}
    message = str(error.get("message") or "") if isinstance(error, dict) else str(error)
    return {
        "task": arguments.task,
        "run_key": run_key,
        "state": status["state"],
        "message": message[:_MESSAGE],
        "run_id": arguments.run_id,
        "version": arguments.version,
        "revision": arguments.revision,
        "data_digest": arguments.data_digest,
        "reason": parse_json(arguments.reason, where="--reason") if arguments.reason else {},
    }


if __name__ == "__main__":
    main()
