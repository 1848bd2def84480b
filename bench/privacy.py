"""What differential privacy costs: fine-tuning with it against the same without, in turns in one process."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.text_data import Data
from bench.text_loop import write_trunk
from graftline.dataset import Schema
from graftline.learning.loop import alone
from graftline.learning.memory import keep_freed_memory
from graftline.learning.randomness import seed_everything
from graftline.privacy.parameters import PrivacyParams
from graftline.problems.fit import Data as Examples
from graftline.problems.fit import training
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.text_parameters import Lora
from graftline.tasks.finetune import FinetuneParams
from graftline.values.text import TextColumn

BATCH = 256
"""Samples a step: a private training needs large batches, and is compared with a plain one of the same."""
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "head only": ({"freeze_trunk": True}, {}, 0.8),
    "LoRA": ({}, {"lora": Lora()}, 0.5),
    "all weights": ({}, {}, 0.25),
}
"""What is trained: parameters, those of the head, and the least share of the plain rate."""
_PRIVACY = PrivacyParams(epsilon=8, delta=1e-6, accountant="rdp")
_WARM_STEPS = 3


@dataclass
class _Contender:
    step: Callable[[int], object]
    done: int = 0
    rates: list[float] = field(default_factory=list)

    def window(self, seconds: float) -> float:
        """Return samples a second over so many seconds at least."""
        started, first = time.perf_counter(), self.done
        while time.perf_counter() - started < seconds:
            self.step(self.done)
            self.done += 1
        return (self.done - first) * BATCH / (time.perf_counter() - started)


def measure_privacy(folder: Path, shape: str, *, rounds: int, seconds: float) -> list[Figure]:
    """Return the share of the plain rate that private fine-tuning has, by what is trained; on one thread.

    Args:
        folder: what text_data.prepare wrote.
        shape: one of text_data.SHAPES.
        rounds: windows of each.
        seconds: length of a window, at least.
    """
    seed_everything(0, 1)
    keep_freed_memory()
    data = Data(folder, shape)
    command, found = "python -m bench privacy", []
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as made:
        trunk = Path(made)
        write_trunk(data.model(dropout=False), data, trunk)
        for way, (more, of_head, least) in WAYS.items():
            plain, private = (_contender(data, trunk, more, of_head, privacy) for privacy in (None, _PRIVACY))
            for _ in range(rounds):
                for one in (plain, private):
                    one.rates.append(one.window(seconds))
            ratio = statistics.median(b / a for a, b in zip(plain.rates, private.rates, strict=True))
            rates = f"{statistics.median(plain.rates):,.0f} and {statistics.median(private.rates):,.0f} samples/s"
            print(f"privacy, {shape}, {way}: {rates}", file=sys.stderr, flush=True)
            found.append(Figure(f"private fine-tuning against plain, {shape}: {way}", ratio, ">=", least, "x", command))
    return found


def _contender(
    data: Data, trunk: Path, more: dict[str, Any], of_head: dict[str, Any], privacy: PrivacyParams | None
) -> _Contender:
    labelled = data.labelled()
    assert labelled.labels is not None
    schema = Schema(TextColumn("text"), "label", tuple(range(int(labelled.labels.max()) + 1)))
    head = SequenceClassificationParams(max_tokens=data.params.max_length, **of_head)
    params = FinetuneParams(head=head, batch=BATCH, epochs=1000, privacy=privacy, **more)
    _, run = training(trunk, Examples(labelled, None), params, 0, schema)
    contender = _Contender(alone(run))
    for _ in range(_WARM_STEPS):
        contender.step(contender.done)
        contender.done += 1
    return contender
