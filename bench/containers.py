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

if TYPE_CHECKING:
    from bench.parts import Options

BASE = "graftline-base:bookworm"
WHEELS = ROOT / "build/wheels"
"""Packages to build from, if they are there (`make wheels WHEELS=build/wheels`)."""
OUTPUTS = ("dataset", "trunk", "model", "evaluation", "release")
STEPS = len(OUTPUTS) + 1
"""The stages, and `fetch`."""


def measure_containers(options: Options) -> list[Figure]:
    """Both images after a change of code, and a run's time outside the components. Needs docker."""
    with clone_of_head() as clone:
        _build(clone)
        code = clone / "src/graftline/errors.py"
        code.write_text(code.read_text() + "\n# changed\n")
        rebuild = _build(clone)
        subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", "--", "."], check=True)
        _build(clone)
        total, working = _run(clone, options.task)
    return [
        Figure("both images again after a change of code", rebuild, "<=", 20, "s", "python -m bench containers"),
        Figure(
            "time outside the components, a step in containers", (total - working) / STEPS, "<=", 2, "s",
            "python -m bench containers",
        ),
    ]  # fmt: skip


def _build(clone: Path) -> float:
    """Return how long the images take."""
    command = [sys.executable, "tools/images.py", "--base", BASE]
    command += ["--wheels", str(WHEELS)] if WHEELS.is_dir() else []
    started = time.monotonic()
    subprocess.run(command, cwd=clone, env=environment_of(clone), check=True)
    return time.monotonic() - started


def _run(clone: Path, task: str) -> tuple[float, float]:
    """Return the wall seconds of a run in containers, and those that its components report."""
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
        started = time.monotonic()
        subprocess.run([*command, "--store", store], cwd=clone, env=environment_of(clone), check=True)
        total = time.monotonic() - started
    outputs = clone / "build/docker" / task
    facts = [json.loads((outputs / folder / "execution.json").read_text()) for folder in OUTPUTS]
    return total, sum(fact["seconds"] for fact in facts)
