"""Two commands from data as people have it to a released model: `new`, `run`, and no file edited.

With GRAFTLINE_ALL_KINDS=1: each run trains for a minute or two, and starts processes that import torch. Without it
tests/test_add_a_task.py tries one kind, and test_kinds.py goes as far as validate with each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_kinds import KINDS

COMMANDS = [sys.executable, "-c", "from graftline.cli.app import main; main()"]
RELEASED = ("a spreadsheet", "pictures in folders", "a folder of Spark", "a saved data set")


@pytest.mark.skipif(not os.environ.get("GRAFTLINE_ALL_KINDS"), reason="runs with GRAFTLINE_ALL_KINDS=1")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", RELEASED)
def test_new_and_run_release_a_model_and_no_file_is_edited(checkout: Path, tmp_path: Path, kind: str) -> None:
    make, _ = KINDS[kind]
    (tmp_path / "raw").mkdir()
    make(tmp_path / "raw")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTLINE_") or "KEYS" in name}
    # One thread: the steps must not wait for each other when the machine is busy.
    environment = kept | {"HOME": str(tmp_path), "PYTHONPATH": str(checkout / "build/package"), "OMP_NUM_THREADS": "1"}
    for command in (["new", "letters", str(tmp_path / "raw"), "--yes"], ["run", "letters"]):
        done = subprocess.run([*COMMANDS, *command], cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "letters@1" in done.stdout
    assert (checkout / "store/releases/letters/1/model.safetensors").is_file()
    assert (checkout / "outputs/letters/report.html").is_file()
