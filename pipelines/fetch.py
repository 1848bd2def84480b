"""The step of a run on a cluster that brings a task's raw data and contract, and verifies their digest.

    python -m graftline.pipelines.fetch --repository R --revision C --task T --digest D \\
        --out-raw DIR --out-expectations FILE [--executor-output FILE]

What does not have the digest never appears at the outputs. Nothing here names the run: Kubeflow's cache takes the step,
and so those after it, from an earlier run of the same data.
Exit codes: 0 done, 2 bad input, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from graftline.component import exits
from graftline.digests import digest_path
from graftline.durable import output_directory, write_atomic
from graftline.errors import InputError
from graftline.executor_output import write_outputs
from graftline.task_data import bring, data_digest
from graftline.tasks.parameters import TASK_NAME


def main(argv: list[str] | None = None) -> None:
    """Run the step with command-line arguments and exit with its code."""
    with exits("fetch"):
        _fetch(_parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m graftline.pipelines.fetch",
        description="Bring a task's raw data and contract from git and DVC's remote, and verify their digest.",
    )
    parser.add_argument("--repository", required=True, metavar="URL|DIR", help="git repository")
    parser.add_argument("--revision", required=True, metavar="COMMIT", help="or work-tree: a folder as it is")
    parser.add_argument("--task", required=True, help="the folder under data/")
    parser.add_argument("--digest", required=True, metavar="SHA256", help="of raw data and contract")
    parser.add_argument("--out-raw", required=True, metavar="DIR", help="appears whole or not at all")
    parser.add_argument("--out-expectations", required=True, metavar="FILE")
    parser.add_argument("--executor-output", metavar="FILE", help="where to tell Kubeflow about the outputs")
    return parser


def _fetch(arguments: argparse.Namespace) -> None:
    if not TASK_NAME.fullmatch(arguments.task):
        raise InputError("--task", repr(arguments.task), expected="the name of a folder under data/")
    raw, expectations = Path(arguments.out_raw).absolute(), Path(arguments.out_expectations).absolute()
    with TemporaryDirectory(prefix="graftline-fetch-") as scratch, output_directory(raw) as aside:
        os.environ.setdefault("DVC_SITE_CACHE_DIR", scratch)  # else a folder that only root may write
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        os.environ["GIT_TERMINAL_PROMPT"] = "0"  # nobody is there to type a password
        contract = Path(scratch, "expectations.yaml")
        bring(arguments.repository, arguments.revision, arguments.task, aside, contract)
        found = data_digest(aside, contract)
        if found != arguments.digest:
            raise InputError(
                f"data/{arguments.task} at {arguments.revision}",
                f"raw data and contract have sha256 {found}",
                expected=arguments.digest,
                fix="start the run with the digest of the revision that it names",
            )
        write_atomic(expectations, contract.read_bytes())
    if arguments.executor_output:
        places = {"raw": raw, "expectations": expectations}
        described = {name: (place, {"sha256": digest_path(place)}) for name, place in places.items()}
        write_outputs(Path(arguments.executor_output), described, {})


if __name__ == "__main__":
    main()
