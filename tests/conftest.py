"""Tools that a test needs besides Python: without them it is skipped and says so; in CI their absence is a failure."""

from __future__ import annotations

import os
import shutil

import pytest

TOOLS = {
    "strace": "strace makes crashes at a chosen system call",
    "chromium": "Chromium opens pages",
}


def pytest_configure(config: pytest.Config) -> None:
    for tool, purpose in TOOLS.items():
        config.addinivalue_line("markers", f"{tool}: needs the program {tool}: {purpose}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for tool in TOOLS:
        if item.get_closest_marker(tool) and shutil.which(tool) is None:
            if os.environ.get("CI"):
                pytest.fail(f"{tool} is not installed, and CI must run this test", pytrace=False)
            pytest.skip(f"{tool} is not installed")
