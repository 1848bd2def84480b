"""The measurements, one function a part."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clones import clone_of_head, environment_of
from bench.containers import measure_containers
from bench.decode import measure as measure_decoding
from bench.figures import Figure
from bench.memory import ComponentMemory
from bench.verify import measure_verify
from graftline.environment import ROOT
from graftline.tasks.parameters import COMPONENTS

GIB = 2**30
OUTPUTS = dict(zip(COMPONENTS, ("dataset", "trunk", "model", "evaluation", "release"), strict=True))


@dataclass(frozen=True)
class Options:
    task: str
    kills: int
    """Of each of pretrain and finetune."""
    rows: int
    """For validate."""
    megabytes: int = 1000
    """For tokenise."""
    records: int = 1_000_000
    """For lineage."""


def measure_run(options: Options) -> list[Figure]:
    """`graftline run` in a fresh clone, and once more with nothing changed."""
    command = f"graftline run {options.task}  # in a fresh clone; python -m bench run"
    with clone_of_head() as clone:
        total, peaks = _graftline_run(clone, options.task)
        again, _ = _graftline_run(clone, options.task)
        outputs = clone / "outputs" / options.task
        facts = {stage: _json(outputs / folder / "execution.json") for stage, folder in OUTPUTS.items()}
        metrics = _json(outputs / "evaluation/metrics.json")
    working = sum(fact["seconds"] for fact in facts.values())
    figures = [
        Figure("run from a fresh clone", total, "<=", 240, "s", command),
        Figure("share of it outside the components", (total - working) / total, "<=", 0.15, "", command),
        Figure("run again, nothing changed", again, "<=", 10, "s", f"{command}, a second time"),
    ]
    for stage, fact in facts.items():
        peak = max(fact["peak_bytes"], peaks.get(stage, 0)) / GIB
        figures.append(Figure(f"memory of {stage}", peak, "<", 1.5, "GiB", command))
    return figures + _quality(metrics, command)


def _quality(metrics: dict[str, float], command: str) -> list[Figure]:
    figures = [Figure("test accuracy, all labels", metrics["accuracy"], ">=", 0.97, "", command)]
    for labels, least in ((5, 4.0), (10, 2.5)):
        if f"lift_{labels}" in metrics:
            lift, low = 100 * metrics[f"lift_{labels}"], 100 * metrics[f"lift_{labels}_low"]
            figures.append(Figure(f"lift at {labels} labels a class", lift, ">=", least, "points", command))
            figures.append(Figure("  lower end of its 95% interval", low, ">", 0, "points", command))
    return figures


def _graftline_run(clone: Path, task: str) -> tuple[float, dict[str, int]]:
    """Return the wall seconds of a run and the peak bytes of its components."""
    command = [sys.executable, "-c", "from graftline.cli.app import main; main()", "run", task]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=clone, env=environment_of(clone))
    with ComponentMemory(process.pid) as memory:
        code = process.wait()
    seconds = time.monotonic() - started
    if code:
        raise SystemExit(f"graftline run ended with exit code {code}")
    return seconds, memory.peaks


def measure_resume(options: Options) -> list[Figure]:
    """pretrain and finetune killed with SIGKILL at random moments, each run then finished by a second process."""
    sys.path[:0] = [str(ROOT / "tests" / name) for name in ("crash", "learning")]
    import kills  # type: ignore[import-not-found]  # modules of the tests, on the path only now
    import small  # type: ignore[import-not-found]  # the same

    figures = []
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        home = Path(folder)
        for name, case in kills.cases(small.dataset(home), small.trunk(home), small.PARAMS).items():
            unbroken = kills.run_unbroken(case, home / "unbroken" / case.output)
            moments = kills.moments(0, options.kills)
            same = 0
            for outcome in kills.experiments(case, home / name, unbroken, moments):
                same += outcome.digest == unbroken.digest and outcome.resumed_from == outcome.checkpoints
                print(f"{name}: {same} of {options.kills} the same digest", file=sys.stderr, flush=True)
            command = f"python -m bench resume --kills {options.kills}"
            figures.append(
                Figure(f"{name} killed at {options.kills} moments, same digest", same, ">=", options.kills, "", command)
            )
    return figures


def measure_validate(options: Options) -> list[Figure]:
    """validate on many rows, in a process of its own."""
    script = [str(ROOT / "bench/validate_stream.py"), "--rows", str(options.rows)]
    done = subprocess.run([sys.executable, *script], stdout=subprocess.PIPE, encoding="utf-8", check=True)
    peak = json.loads(done.stdout.splitlines()[-1])["peak_mib"] / 1024
    command = f"python bench/validate_stream.py --rows {options.rows}"
    return [Figure(f"memory of validate, {options.rows:,} rows", peak, "<", 1, "GiB", command)]


def measure_startup(options: Options) -> list[Figure]:
    """Help of the command and of a component: the median of 9 starts."""
    starts = {
        "graftline --help": [str(Path(sys.executable).with_name("graftline")), "--help"],
        "python -m graftline.components.finetune --help": [
            sys.executable,
            "-m",
            "graftline.components.finetune",
            "--help",
        ],
    }
    return [Figure(name, _median_seconds(command), "<", 0.5, "s", name) for name, command in starts.items()]


def _median_seconds(command: list[str]) -> float:
    seconds = []
    for _ in range(9):
        started = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


def measure_tokenising(options: Options) -> list[Figure]:
    """Memory of tokenising a large corpus, and the rate against the tokenizers library's own."""
    from bench.text_tokens import measure_tokenise

    return measure_tokenise(options.megabytes)


def measure_signing(options: Options) -> list[Figure]:
    """What signing and recording add to a stage beyond hashing, in new processes: the median of 9."""
    from bench.signing import measure

    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as work:
        seconds = measure(Path(work))["all"]
    return [Figure("signing and recording a stage", seconds, "<=", 0.3, "s", "python -m bench signing")]


def measure_rows(_: Options) -> list[Figure]:
    """Questions to a row index of 100 million rows, and to one of 20,000 datasets."""
    from bench import rows

    return rows.measure_rows()


def measure_questions(options: Options) -> list[Figure]:
    """trace, impact and making the index anew, with very many records."""
    from bench.lineage import measure_lineage

    return measure_lineage(options.records)


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


PARTS: dict[str, Callable[[Options], list[Figure]]] = {
    "run": measure_run,
    "resume": measure_resume,
    "validate": measure_validate,
    "startup": measure_startup,
    "tokenise": measure_tokenising,
    "containers": measure_containers,
    "signing": measure_signing,
    "rows": measure_rows,
    "verify": lambda options: measure_verify(),
    "lineage": measure_questions,
    "decode": lambda options: measure_decoding(),
}
