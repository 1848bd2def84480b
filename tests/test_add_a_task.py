"""README's "Add a task in five minutes", line by line, in a copy of the repository, with real images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from graftline.environment import ROOT

# The steps of the README with budgets that take seconds, and floors that such a model can meet.
SMALL = (
    "--set pretrain.epochs=2 --set finetune.epochs=2 --set evaluate.lift_labels=[5] --set evaluate.lift_seeds=2 "
    "--set evaluate.gate={}"
)


def steps() -> str:
    (block,) = re.findall(
        r"<!-- tested: add a task -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert block.rstrip().endswith(".venv/bin/graftline run letters")
    return block.rstrip() + f" {SMALL}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository with this one's tracked files, whose own code is what runs in it."""
    copy = tmp_path / "fork"
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if name != "dvc.lock" and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    package = copy / "build/package/graftline"
    package.mkdir(parents=True)
    for part in [*(copy / "src/graftline").iterdir(), copy / "components", copy / "pipelines"]:
        (package / part.name).symlink_to(part)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "fork"],
    ):
        subprocess.run(["git", "-C", copy, *command], check=True)
    return copy


def test_the_steps_of_the_readme_release_a_model_of_the_new_task(checkout: Path, tmp_path: Path) -> None:
    images = pq.read_table(ROOT / "data/mnist/raw/images.parquet")
    (tmp_path / "letters").mkdir()
    pq.write_table(images.take(list(range(0, images.num_rows, 4))), tmp_path / "letters/some.parquet")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTLINE_")}
    # One thread: the steps must not wait for each other when the machine is busy.
    environment = kept | {
        "HOME": str(tmp_path),
        "PYTHONPATH": str(checkout / "build/package"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", steps()],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "letters@1" in done.stdout
    assert (checkout / "outputs/letters/report.html").is_file()
    assert (checkout / "store/releases/letters/1/model.safetensors").is_file()
    changed = subprocess.run(
        ["git", "-C", checkout, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    outside_data = [line for line in changed.stdout.splitlines() if not line[3:].startswith("data/")]
    assert outside_data == ["?? dvc.lock"], "adding a task touches data/ only"
