"""README's "Add a task in five minutes", line by line, in a copy of the repository, with real images."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pyarrow.parquet as pq

from graftline.environment import ROOT

# The steps of the README with budgets that take seconds, and floors that such a model can meet.
SMALL = (
    "--set pretrain.epochs=2 --set finetune.epochs=2 --set finetune.min_steps=10 --set evaluate.lift_labels=[5] "
    "--set evaluate.lift_seeds=2 --set evaluate.bootstrap_resamples=1000 --set evaluate.gate={}"
)


def steps() -> str:
    (block,) = re.findall(r"<!-- tested: add a task -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block.rstrip().endswith(".venv/bin/graftline run letters")
    return block.rstrip() + f" {SMALL}\n"


def test_the_steps_of_the_readme_release_a_model_of_the_new_task(checkout: Path, tmp_path: Path) -> None:
    images = pq.read_table(ROOT / "data/mnist/raw/images.parquet")
    (tmp_path / "letters").mkdir()
    pq.write_table(images.take(list(range(0, images.num_rows, 8))), tmp_path / "letters/some.parquet")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTLINE_")}
    environment = kept | {"HOME": str(tmp_path), "PYTHONPATH": str(checkout / "build/package")}
    # On one CPU: the other is at work on other tests, and evaluate starts no workers, each of which would import torch.
    one = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))]
    done = subprocess.run(
        [*one, "bash", "-euo", "pipefail", "-c", steps()], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "letters@1" in done.stdout
    assert (checkout / "outputs/letters/report.html").is_file()
    assert (checkout / "store/releases/letters/1/model.safetensors").is_file()
    changed = subprocess.run(
        ["git", "-C", checkout, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    outside_data = [line for line in changed.stdout.splitlines() if not line[3:].startswith("data/")]
    made = ["?? dvc.lock", "?? pipelines/compiled/letters.yaml"]
    assert outside_data == made, "adding a task touches data/ only, and what is made of it"
