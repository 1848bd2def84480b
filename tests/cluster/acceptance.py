"""The product's acceptance on the cluster of kubectl's context: `make cluster-test`.

    .venv/bin/python tests/cluster/acceptance.py [--only ROW]... [--minutes 20] [--profile all=dev] [--json]

It uses the product's own commands, with a small task, a store of its own below the settings' one, and a right of its
own to end and delete runs; nothing of that is left when it ends, however it ends. What it needs: the commit that is
checked out is where the cluster clones from, its images are pushed (docs/cluster.md), GRAFTLINE_KFP and
GRAFTLINE_KFP_TOKEN, and the store's credentials in the environment.

Exit codes: 0 rows passed, and others were skipped at most; 1 a row failed, none passed, or something is left; 2 it
could not begin; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from acceptance_bench import Bench, Failed
from before_and_after import clean, opened
from rows_losses import row_cancel, row_fails_once, row_pod_lost
from rows_runs import row_bad_data, row_cache, row_doctor, row_refusal, row_release, row_trace, row_twice
from rows_schedules import row_change, row_slots

from graftline.errors import GraftlineError


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    state: str
    """passed, failed or skipped."""
    seconds: float
    said: str


@dataclass(frozen=True)
class Test:
    """A row and what it waits for."""

    name: str
    look: Callable[[Bench], str]
    after: str = ""
    """The row that must have passed."""
    seconds: float = 200.0
    """About what it takes: with less time left it is not begun."""

    __test__ = False  # no class of pytest's


TESTS = (
    Test("doctor", row_doctor, seconds=60),
    Test("release", row_release, seconds=300),
    Test("bad data", row_bad_data),
    Test("cancel", row_cancel, seconds=300),
    Test("trace", row_trace, after="release", seconds=20),
    Test("refusal", row_refusal, after="release"),
    Test("cache", row_cache, after="release"),
    Test("twice at once", row_twice, after="release"),
    Test("fails once", row_fails_once),
    Test("pod lost", row_pod_lost, after="cancel"),
    Test("three slots", row_slots, after="release", seconds=420),
    Test("a change", row_change, after="release"),
)
"""In the order in which they are begun; as many at once as `--at-once` says."""


def looked(bench: Bench, test: Test, passed: Mapping[str, Future[Row]]) -> Row:
    """Return a test's row."""
    began = time.monotonic()

    def row(state: str, said: str) -> Row:
        bench.say(test.name, f"{state}: {said}")
        return Row(test.name, state, round(time.monotonic() - began, 1), said)

    if test.after in passed and passed[test.after].result().state != "passed":
        return row("skipped", f"{test.after} did not pass")
    began = time.monotonic()
    if bench.left < test.seconds:
        return row("skipped", f"it takes about {test.seconds:.0f} s, and {max(0, bench.left):.0f} s are left")
    bench.say(test.name, "begins")
    try:
        return row("passed", test.look(bench))
    except subprocess.CalledProcessError as error:
        return row("failed", f"{' '.join(error.cmd)}: {(error.stderr or b'').decode(errors='replace').strip()}")
    except (Failed, GraftlineError, OSError) as error:
        return row("failed", " ".join(str(error).split()))


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    chosen = [test for test in TESTS if not arguments.only or test.name in arguments.only]
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell has what it starts in the background ignore the latter
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="graftline-acceptance-"))
    code, table = 0, list[Row]()
    try:
        try:
            bench = opened(arguments, folder)
        except GraftlineError as error:
            print(f"cluster-test: {error}", file=sys.stderr)
            return 2
        try:
            table = _all(bench, chosen, arguments.at_once)
        except KeyboardInterrupt:
            code = 130
        finally:
            began, left = time.monotonic(), clean(bench)
            said = left or "nothing is left"
            table.append(Row("clean-up", "failed" if left else "passed", round(time.monotonic() - began, 1), said))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(table, arguments.json)
    states = {row.state for row in table[:-1]}
    return code or int("failed" in states | {table[-1].state} or "passed" not in states)


def _all(bench: Bench, chosen: list[Test], at_once: int) -> list[Row]:
    """Return the rows; when interrupted, end what runs and raise KeyboardInterrupt."""
    pool = ThreadPoolExecutor(at_once)
    futures: dict[str, Future[Row]] = {}
    try:
        for test in chosen:
            futures[test.name] = pool.submit(looked, bench, test, dict(futures))
        return [future.result() for future in futures.values()]
    except BaseException:
        bench.stopped.set()  # every wait ends at its next look
        for child in list(bench.children):
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _print(table: list[Row], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(row) for row in table], indent=2))
        return
    for row in table:
        print(f"{row.name:16}{row.state:9}{row.seconds:7.1f} s  {row.said}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make cluster-test", description=__doc__.split("\n")[0])
    names = [test.name for test in TESTS]
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help=f"one of: {', '.join(names)}")
    parser.add_argument("--minutes", type=float, default=20.0, help="for the rows together; clean-up comes on top")
    parser.add_argument("--profile", default="all=dev", metavar="[STEP=]NAME", help="the pool of the runs")
    parser.add_argument("--store", default="", metavar="s3://BUCKET/PREFIX", help="default: pipelines/settings.yaml")
    parser.add_argument("--at-once", type=int, default=3, metavar="N", help="rows at once")
    parser.add_argument("--pause", type=float, default=2.0, metavar="SECONDS", help="between two looks at the cluster")
    parser.add_argument("--json", action="store_true", help="print JSON, and no progress")
    return parser


if __name__ == "__main__":
    sys.exit(main())
