"""What a test needs besides Python: without it the test is skipped and says so; in CI that is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

NEEDS = {
    "strace": ("strace is installed", lambda: shutil.which("strace") is not None),
    "chromium": ("Chromium is installed", lambda: shutil.which("chromium") is not None),
    "root": ("it runs as root, to mount a file system", lambda: os.geteuid() == 0),
}


def pytest_configure(config: pytest.Config) -> None:
    for name, (condition, _) in NEEDS.items():
        config.addinivalue_line("markers", f"{name}: runs where {condition}")


def pytest_sessionstart() -> None:
    """Fetch the shipped data, as `graftline run` would, where a new clone does not have it yet."""
    from graftline.environment import ROOT

    pointers = sorted((ROOT / "data").glob("*/raw.dvc"))
    missing = [str(pointer) for pointer in pointers if not pointer.with_suffix("").exists()]
    if missing:
        subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet", *missing], cwd=ROOT, check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mount" in getattr(item, "fixturenames", ()):
            item.add_marker("root")
        if "strace" in getattr(item, "fixturenames", ()):
            item.add_marker("strace")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, (condition, holds) in NEEDS.items():
        if item.get_closest_marker(name) and not holds():
            if os.environ.get("CI"):
                pytest.fail(f"CI must run this test, and it needs that {condition}", pytrace=False)
            pytest.skip(f"runs where {condition}")
