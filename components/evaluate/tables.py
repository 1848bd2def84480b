"""The tables of an evaluation: JSON, CSV for `dvc plots`, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftline.components.evaluate.lift import Lift
    from graftline.components.evaluate.predict import Predictions
    from graftline.components.evaluate.quality import Quality
    from graftline.dataset import Images, Schema


def write_json(value: Any, path: Path) -> None:
    """Write `value` for people and programs, at full precision. Raises ValueError for NaN and infinity."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_predictions(answers: Predictions, test: Images, schema: Schema, path: Path) -> None:
    """Write one line a test row: row, label, predicted, confidence, probabilities by class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(schema.classes)
    flat = pa.array(answers.probabilities.ravel())
    table = pa.table(
        {
            "row": test.rows,
            "label": names.take(pa.array(answers.labels)),
            "predicted": names.take(pa.array(answers.predicted)),
            "confidence": answers.confidence,
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, answers.probabilities.shape[1]),
        }
    )
    pq.write_table(table, path, compression="zstd")


def write_classes(quality: Quality, schema: Schema, path: Path) -> None:
    """Write support, precision, recall and F1 of each class."""
    lines = [
        {"class": name, **asdict(score)} for name, score in zip(schema.classes, quality.scores, strict=True)
    ]
    write_json(lines, path)


def write_confusion(answers: Predictions, schema: Schema, path: Path) -> None:
    """Write one line a test row, actual and predicted class, as DVC's confusion template counts them."""
    pairs = zip(answers.labels, answers.predicted, strict=True)
    _write_csv(("actual", "predicted"), ((schema.classes[a], schema.classes[p]) for a, p in pairs), path)


def write_lift(lift: Lift, folder: Path) -> None:
    """Write lift.json (every run, and the intervals) and lift.csv (mean accuracy of both arms)."""
    write_json(lift.as_dict(), folder / "lift.json")
    lines = ((point.size, point.trunk.value, point.scratch.value) for point in lift.points)
    _write_csv(("labels", "trunk", "scratch"), lines, folder / "lift.csv")


def _write_csv(header: tuple[str, ...], lines: Iterable[tuple[object, ...]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
