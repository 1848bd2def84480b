"""What containers cost: building them again after a change, and running the pipeline in them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.clones import clone_of_head, environment_of
from bench.figures import Figure
from graftline.environment import ROOT
from graftline.tasks.parameters import COMPONENTS

if TYPE_CHECKING:
    from bench.parts import Options

BASE = "graftline-base:bookworm"
WHEELS = ROOT / "build/wheels"
"""Packages to build from, if they are there (`make wheels WHEELS=build/wheels`)."""
OUTPUTS = dict(zip(COMPONENTS, ("dataset", "trunk", "model", "evaluation", "release"), strict=True))
_TIMED = """
import sys, time
from graftline.engines.containers import run
run(sys.argv[1], store_url=sys.argv[2], on_step=lambda step, event: print(time.monotonic(), step, event, flush=True))
"""


def measure_containers(options: Options) -> list[Figure]:
    """Both images after a change of code, and a run's time outside the components. Needs docker."""
    with clone_of_head() as clone:
        _build(clone)
        code = clone / "src/graftline/errors.py"
        code.write_text(code.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
        rebuild = _build(clone)
        subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", "--", "."], check=True)
        _build(clone)
        stages = _run(clone, options.task)
    command = "python -m bench containers"
    return [
        Figure("both images again after a change of code", rebuild, "<=", 20, "s", command),
        *(
            Figure(f"{stage} in a container, beside its own work", seconds, "<=", 2, "s", command)
            for stage, seconds in stages.items()
        ),
    ]


def _build(clone: Path) -> float:
    """Return how long the images take."""
    command = [sys.executable, "tools/images.py", "--base", BASE]
    command += ["--wheels", str(WHEELS)] if WHEELS.is_dir() else []
    started = time.monotonic()
    subprocess.run(command, cwd=clone, env=environment_of(clone), check=True)
    return time.monotonic() - started


def _run(clone: Path, task: str) -> dict[str, float]:
    """Return, of each stage, how much longer its step took than its component says: container, interpreter, imports."""
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as store:
        done = subprocess.run(
            [sys.executable, "-c", _TIMED, task, store],
            cwd=clone,
            env=environment_of(clone),
            check=True,
            encoding="utf-8",
            stdout=subprocess.PIPE,
        )
    outputs = clone / "build/docker" / task
    took = _steps(done.stdout)
    return {
        stage: took[stage] - json.loads((outputs / folder / "execution.json").read_text(encoding="utf-8"))["seconds"]
        for stage, folder in OUTPUTS.items()
    }


def _steps(log: str) -> dict[str, float]:
    """Return each step's seconds, from the times at which the engine said that it started and ended."""
    times = dict[str, list[float]]()
    for at, step, _ in map(str.split, log.splitlines()):
        times.setdefault(step, []).append(float(at))
    return {step: each[-1] - each[0] for step, each in times.items()}
