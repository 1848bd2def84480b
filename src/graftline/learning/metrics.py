"""The metrics file of a training run: one JSON line a step, the same bytes however often the run was killed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from graftline.errors import InputError
from graftline.learning.guard import Guard

if TYPE_CHECKING:
    import torch

_BUFFERED_STEPS = 50


class MetricsLog:
    """Appends a line a step to a file; losses are read off the device in groups, not step by step."""

    def __init__(self, path: Path, resume_at: int | None, guard: Guard | None = None) -> None:
        """Open `path`; keep its first `resume_at` bytes (those that the checkpoint saw), or start it anew.

        `guard` looks at every loss; without one, NaN and infinity are refused.
        """
        self._guard = guard or Guard(None)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes]
        if resume_at is None:
            self._file = path.open("wb")
        else:
            size = path.stat().st_size if path.is_file() else 0
            if size < resume_at:
                raise InputError(
                    path, f"{size} bytes", expected=f"at least {resume_at}", fix="delete its folder, run again"
                )
            self._file = path.open("r+b")  # cut in place: rewriting it would lose lines if killed here
            self._file.truncate(resume_at)
            self._file.seek(resume_at)
        self._waiting: list[tuple[int, torch.Tensor, float]] = []
        self.last_loss = math.nan
        """Of the last step that was flushed."""

    def add(self, step: int, loss: torch.Tensor, learning_rate: float) -> None:
        """Note a step (from 1), its loss (a scalar tensor) and its learning rate."""
        self._waiting.append((step, loss.detach(), learning_rate))
        if len(self._waiting) >= _BUFFERED_STEPS:
            self.flush()

    def flush(self) -> int:
        """Write what waits; return the file's size in bytes, flushed to the disk by `sync`.

        Raises:
            LossError: the guard stops at a loss; the lines before it are written.
        """
        for (step, _, learning_rate), value in zip(self._waiting, self._losses(), strict=True):
            self._guard.look(step, value)
            line = {"step": step, "loss": value, "learning_rate": learning_rate}
            self._file.write(json.dumps(line).encode() + b"\n")
            self.last_loss = value
        self._waiting.clear()
        self._file.flush()
        return self._file.tell()

    def _losses(self) -> list[float]:
        """Return the losses that wait, with one wait for the device."""
        import torch

        values: list[float] = torch.stack([loss for _, loss, _ in self._waiting]).tolist() if self._waiting else []
        return values

    def sync(self) -> int:
        """Flush to the disk, before a checkpoint refers to the file's size; return that size."""
        size = self.flush()
        os.fsync(self._file.fileno())
        return size

    def close(self) -> None:
        self.flush()
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of a metrics file, in order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
