"""What every pretraining run leaves beside its trunk: the metrics of all steps, their summary, the loss curve."""

from __future__ import annotations

import json
from pathlib import Path

from graftline.component import Context
from graftline.learning.metrics import read_metrics
from graftline.plots import loss_curve

_LAST_STEPS = 100


def summarise(context: Context, metrics: Path, counts: dict[str, float], *, unit: str) -> None:
    """Write metrics.jsonl, metrics.json and loss.png, and put the figures into the record.

    Args:
        context: of the run.
        metrics: the run's metrics file, a line a step.
        counts: figures to add to the mean loss of the last steps.
        unit: of the loss.
    """
    (context.out / "metrics.jsonl").write_bytes(metrics.read_bytes())
    lines = read_metrics(metrics)
    last = [line["loss"] for line in lines[-_LAST_STEPS:]]
    found = counts | ({"final_loss": sum(last) / len(last)} if last else {})
    context.draft.metrics = found
    (context.out / "metrics.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if lines:
        loss_curve(lines, context.out / "loss.png", title="Pretraining loss", unit=unit, log=True)
