"""What differential privacy costs: fine-tuning with it against the same without, in turns in one process."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import Figure
from bench.text_data import Data
from bench.text_loop import write_trunk
from graftline.dataset import Schema
from graftline.learning.loop import alone
from graftline.learning.memory import keep_freed_memory
from graftline.learning.randomness import seed_everything
from graftline.privacy.parameters import PrivacyParams
from graftline.problems.documents import BATCHES_BY_LENGTH
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


def measure_privacy(folder: Path, shape: str, *, rounds: int) -> list[Figure]:
    """Return the share of the plain rate that private fine-tuning has, by what is trained; on one thread.

    Both take a step in turn. A round is as many steps as plain batches are sorted by length together: a few of them
    would be of short texts, or of long ones, while each private batch has texts of all lengths.

    Args:
        folder: what text_data.prepare wrote.
        shape: one of text_data.SHAPES.
        rounds: of each.
    """
    seed_everything(0, 1)
    keep_freed_memory()
    data = Data(folder, shape)
    command, found = "python -m bench privacy", []
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as made:
        trunk = Path(made)
        write_trunk(data.model(dropout=False), data, trunk)
        for way, (more, of_head, least) in WAYS.items():
            steps = [_steps(data, trunk, more, of_head, privacy) for privacy in (None, _PRIVACY)]
            for number in range(_WARM_STEPS):
                for step in steps:
                    step(rounds * BATCHES_BY_LENGTH + number)
            seconds = np.array(
                [[_timed(step, number) for step in steps] for number in range(rounds * BATCHES_BY_LENGTH)]
            )
            plain, private = seconds.reshape(rounds, BATCHES_BY_LENGTH, 2).sum(1).T
            ratio = float(np.median(plain / private))
            rates = [f"{BATCH / float(one):,.0f}" for one in seconds.mean(0)]
            print(f"privacy, {shape}, {way}: {' and '.join(rates)} samples/s", file=sys.stderr, flush=True)
            found.append(Figure(f"private fine-tuning against plain, {shape}: {way}", ratio, ">=", least, "x", command))
    return found


def _timed(step: Callable[[int], object], number: int) -> float:
    """Return seconds of this process's CPU: what else the machine does counts for neither."""
    started = time.process_time()
    step(number)
    return time.process_time() - started


def _steps(
    data: Data, trunk: Path, more: dict[str, Any], of_head: dict[str, Any], privacy: PrivacyParams | None
) -> Callable[[int], object]:
    labelled = data.labelled()
    assert labelled.labels is not None
    schema = Schema(TextColumn("text"), "label", tuple(range(int(labelled.labels.max()) + 1)))
    head = SequenceClassificationParams(max_tokens=data.params.max_length, **of_head)
    params = FinetuneParams(head=head, batch=BATCH, epochs=1000, privacy=privacy, **more)
    _, run = training(trunk, Examples(labelled, None), params, 0, schema)
    return alone(run)
