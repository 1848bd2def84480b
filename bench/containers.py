"""What containers cost: building them again after a change, and running the pipeline in them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench.clones import clone_of_head, environment_of
from bench.figures import Figure
from graftline.environment import ROOT
from graftline.params import COMPONENTS

if TYPE_CHECKING:
    from bench.parts import Options

BASE = "graftline-base:bookworm"
WHEELS = ROOT / "build/wheels"
"""Packages to build from, if they are there (`make wheels WHEELS=build/wheels`)."""
OUTPUTS = dict(zip(COMPONENTS, ("dataset", "trunk", "model", "evaluation", "release"), strict=True))
_EVENT = re.compile(r"([\d:.]+) - INFO - (?:Executing task|Task) '(\w+)'(?: finished with status .*)?$")
"""What kfp's runner prints when a step begins and when it has ended."""


def measure_containers(options: Options) -> list[Figure]:
    """Both images after a change of code, and a run's time outside the components. Needs docker."""
    with clone_of_head() as clone:
        _build(clone)
        code = clone / "src/graftline/errors.py"
        code.write_text(code.read_text() + "\n# changed\n")
        rebuild = _build(clone)
        subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", "--", "."], check=True)
        _build(clone)
        stages = _run(clone, options.task)
    command = "python -m bench containers"
    return [
        Figure("both images again after a change of code", rebuild, "<=", 20, "s", command),
        *(Figure(f"{stage} in a container, beside its own work", seconds, "<=", 2, "s", command)
          for stage, seconds in stages.items()),
    ]  # fmt: skip


def _build(clone: Path) -> float:
    """Return how long the images take."""
    command = [sys.executable, "tools/images.py", "--base", BASE]
    command += ["--wheels", str(WHEELS)] if WHEELS.is_dir() else []
    started = time.monotonic()
    subprocess.run(command, cwd=clone, env=environment_of(clone), check=True)
    return time.monotonic() - started


def _run(clone: Path, task: str) -> dict[str, float]:
    """Return, of each stage, how much longer its step took than its component says: container, interpreter, imports."""
    command = [
        sys.executable,
        "-c",
        "from graftline.cli import main; main()",
        "run",
        task,
        "--engine",
        "docker",
    ]
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as store:
        done = subprocess.run(
            [*command, "--store", store], cwd=clone, env=environment_of(clone), check=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    outputs = clone / "build/docker" / task
    took = _steps(done.stdout)
    return {
        stage: took[stage] - json.loads((outputs / folder / "execution.json").read_text())["seconds"]
        for stage, folder in OUTPUTS.items()
    }


def _steps(log: str) -> dict[str, float]:
    """Return each step's seconds, from the times of the runner's lines."""
    began, took = dict[str, datetime](), dict[str, float]()
    for match in filter(None, map(_EVENT.search, log.splitlines())):
        at, step = datetime.strptime(match[1], "%H:%M:%S.%f"), match[2]
        if step in began:
            took[step] = (at - began[step]).total_seconds() % 86400
        else:
            began[step] = at
    return took
