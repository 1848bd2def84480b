"""How long a run stands still for a checkpoint: state gathered, written, flushed to the disk and verified."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.text_data import Data
from bench.text_loop import Rates, language_model, pretraining_run
from graftline.environment import ROOT
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.loop import Desk, train


class _Timed(Checkpoints):
    """Checkpoints that are due after every step, and say how long each took."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "bench", 0)
        self.seconds: list[float] = []

    def due(self) -> bool:
        self._asked = time.perf_counter()
        return True

    def save(self, step: int, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        super().save(step, tensors, facts)
        self.seconds.append(time.perf_counter() - self._asked)


def median_seconds(data: Data, times: int) -> float:
    """Return the median seconds that a checkpoint of a run with AdamW takes, on the repository's disk."""
    torch.set_num_threads(1)
    objective = language_model(data, "bfloat16")
    run = pretraining_run(objective, data, steps=times + 1, rates=Rates(), after_step=lambda units: None)
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "build") as folder:
        checkpoints = _Timed(Path(folder) / "checkpoints")
        train(run, Desk("checkpoint", Path(folder) / "metrics.jsonl", checkpoints, 0, "tokens"))
    return statistics.median(checkpoints.seconds[1:])  # the first makes the folder
