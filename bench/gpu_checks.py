"""Whether training on the GPU is right: the tests that need one, and bits over two runs and after kill -9."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.gpu_lines import Line, equal, tried, write_part
from graftline.environment import ROOT, cpu_count

_WORKERS = 4
"""Processes of the tests: most of a test is imports and small data, on the CPU."""
_OUTCOME = re.compile(r"(PASSED|FAILED|ERROR) (?:\S+?::)?(.+)")
"""A line of pytest's summary."""


def tests() -> Iterator[Line]:
    """Run the tests marked `gpu`; each that does not pass has a line."""
    # Not all files: to look through them takes a while, and packages that a machine with a GPU need not have.
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    options = ["-vv", "-rpfE", "-n", str(min(_WORKERS, cpu_count())), "--durations", "10", "-m", "gpu"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    said = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:  # a test that hangs is known by what was said before
            print(line, end="", flush=True)
            said.append(line.strip())
    last = next((line for line in reversed(said) if line), "pytest said nothing")
    yield Line("tests marked gpu", last.strip("= "), process.returncode == 0)
    outcomes = [match.groups() for line in said if (match := _OUTCOME.match(line)) is not None]
    for what in ("trainings", "pretrainings"):
        found = [test for outcome, test in outcomes if outcome == "PASSED" and f"_of_two_{what}_are_equal[" in test]
        cases = sorted(test.partition("[")[2].rstrip("]") for test in found)
        yield Line(f"{what} whose two runs have equal bits", f"{len(cases)}: {', '.join(cases)}", bool(cases))
    for outcome, test in outcomes:
        if outcome != "PASSED":
            yield Line(test.partition(" - ")[0], f"{outcome.lower()}: {test.partition(' - ')[2][:150]}", ok=False)


def bits() -> Iterator[Line]:
    """Run each training component twice, and once killed in the middle and run again: one digest."""
    sys.path[:0] = [str(ROOT / "tests" / name) for name in ("crash", "learning")]
    import kills  # type: ignore[import-not-found]  # modules of the tests, on the path only now
    import small  # type: ignore[import-not-found]  # the same

    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        home = Path(folder)
        os.environ |= {"GRAFTLINE_KEYS": f"{home}/keys", "GRAFTLINE_CACHE": f"{home}/cache"}
        cases = kills.cases(small.dataset(home), small.trunk(home), small.PARAMS)

        def lines(name: str, case: kills.Case) -> Iterator[Line]:
            first, second = (kills.run_unbroken(case, home / number / case.output) for number in "12")
            yield equal(f"{name}: bits of two runs", first.digest, second.digest)
            middle = [kills.Moment("training", 0.5)]
            # New processes: whatever has looked for a GPU cannot be forked.
            killed = kills.run_killed(case, home / "killed" / case.output, first, middle, new=True)
            yield equal(f"{name}: bits after kill -9 and resume", first.digest, killed.digest)

        for name, case in cases.items():
            yield from tried(f"{name}: bits", lambda name=name, case=case: lines(name, case))  # type: ignore[misc]


if __name__ == "__main__":
    write_part({"tests": tests, "bits": bits})
