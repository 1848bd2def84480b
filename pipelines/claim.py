"""The first step of a run on a cluster: claim the work of its key, and note that the run has begun.

    python -m graftline.pipelines.claim --task T --store S --run-key K --version V --revision C --data-digest D \\
        --reason JSON

Of two runs that a lost answer, or two people, have made of one key, one stops here: exit code 3.
"""

from __future__ import annotations

import argparse
import os

from graftline.component import exits
from graftline.errors import InputError, RefusalError
from graftline.pipelines.reconcile.claims import hold
from graftline.runs import Start, begin
from graftline.store.opening import open_store
from graftline.yamlfile import parse_json


def main(argv: list[str] | None = None) -> None:
    """Run the step with command-line arguments and exit with its code."""
    parser = argparse.ArgumentParser(prog="python -m graftline.pipelines.claim", description="Claim a run's key.")
    add_start(parser)
    with exits("claim"):
        _claim(parser.parse_args(argv))


def add_start(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a run is: `start` reads them."""
    for name in ("task", "store", "run-key", "version", "revision", "data-digest"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--reason", required=True, metavar="JSON", help="why the run was started")


def start(arguments: argparse.Namespace) -> Start:
    """Return the run that the options and $GRAFTLINE_RUN describe. Raises InputError."""
    run = os.environ.get("GRAFTLINE_RUN", "")
    if not run:
        raise InputError("GRAFTLINE_RUN", "not set", expected="the run's id", fix="the engine sets it")
    reason = parse_json(arguments.reason, where="--reason") if arguments.reason else {}
    if not isinstance(reason, dict):
        raise InputError("--reason", arguments.reason[:80], expected="a JSON object")
    return Start(
        run=run,
        key=arguments.run_key or run,
        task=arguments.task,
        version=arguments.version,
        revision=arguments.revision,
        data_digest=arguments.data_digest,
        reason=reason,
    )


def _claim(arguments: argparse.Namespace) -> None:
    """Raise RefusalError if another run does the work of this run's key, or of its slot."""
    this, store = start(arguments), open_store(arguments.store)
    schedule, slot = (str(this.reason.get(name) or "") for name in ("schedule", "slot"))
    if other := hold(store, this.key, this.run, schedule=schedule, slot=slot):
        raise RefusalError(f"{other}; this one stops")
    begin(store, this)


if __name__ == "__main__":
    main()
