"""The checkers of infra/requirements.lock in an environment of their own, as `make manifests` installs it.

Installing it waits for the network and for a disk: it begins when the tests are collected, beside those before these.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

from session import once

from graftline.environment import ROOT

ENVIRONMENT = ROOT / "build/manifests/venv"
Check = Callable[..., subprocess.CompletedProcess[str]]


def install() -> None:
    """Install the environment if it is not there yet."""
    ENVIRONMENT.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(ENVIRONMENT.parent / ".lock"):  # two workers may want it at once
        subprocess.run(["make", "-s", "-C", str(ROOT), str(ENVIRONMENT.relative_to(ROOT) / ".setup")], check=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.collectonly and any("check" in getattr(item, "fixturenames", ()) for item in items):
        threading.Thread(target=_install_ahead, daemon=True).start()


def _install_ahead() -> None:
    with suppress(Exception):  # the fixture below tries again, and says why not
        install()


@pytest.fixture(scope="session")
def check() -> Check:
    """`python infra/check`: a function of its arguments."""
    install()
    return run


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [ENVIRONMENT / "bin/python", ROOT / "infra/check", *arguments]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )


@once
def checked(home: Path) -> Path:
    """Return the folder of what kustomize builds of the repository, with how the checks of it ended."""
    out = home / "manifests"
    done = run("--only", "manifests", "hadolint", "zizmor", "yamllint", "--out", out)
    (out / "done.json").write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
    return out


@pytest.fixture(scope="session")
def manifests(check: Check, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what kustomize builds of the repository; the checks of it are made once a session."""
    return checked(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def done(manifests: Path) -> subprocess.CompletedProcess[str]:
    """How those checks ended."""
    return subprocess.CompletedProcess(*json.loads((manifests / "done.json").read_text()))
