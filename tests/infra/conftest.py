"""The checkers of infra/requirements.lock in an environment of their own, as `make manifests` installs it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from graftline.environment import ROOT

ENVIRONMENT = ROOT / "build/manifests/venv"
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def check() -> Check:
    """`python infra/check`: a function of its arguments. The environment is installed if it is not there yet."""
    ENVIRONMENT.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(ENVIRONMENT.parent / ".lock"):  # two workers may want it at once
        subprocess.run(["make", "-s", "-C", str(ROOT), str(ENVIRONMENT.relative_to(ROOT) / ".setup")], check=True)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [ENVIRONMENT / "bin/python", ROOT / "infra/check", *arguments]
        environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}
        return subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
        )

    return run
