"""The tables of an evaluation: JSON, CSV for `dvc plots`, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.evaluation.statistics import Integers

if TYPE_CHECKING:
    from graftline.components.evaluate.predict import Predictions
    from graftline.components.evaluate.quality import Classes
    from graftline.dataset import Schema
    from graftline.evaluation.lift import Lift
    from graftline.problems.answers import Answers


def write_json(value: Any, path: Path) -> None:
    """Write `value` for people and programs, at full precision. Raises ValueError for NaN and infinity."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def write_predictions(predictions: Predictions, schema: Schema, path: Path) -> None:
    """Write one line an answer: row (and what tells its answers apart), label, predicted, confidence, probabilities."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    answers = predictions.answers
    columns = {name: pa.array(values) for name, values in predictions.examples.units().items()}
    if answers.probabilities is None:  # the classes are a vocabulary: token ids
        columns |= {"label": pa.array(answers.labels), "predicted": pa.array(answers.predicted)}
        columns |= {"confidence": pa.array(answers.confidence), "surprise": pa.array(answers.surprise)}
    else:
        names = pa.array(schema.classes)
        flat = pa.array(answers.probabilities.ravel())
        columns |= {
            "label": names.take(pa.array(answers.labels)),
            "predicted": names.take(pa.array(answers.predicted)),
            "confidence": pa.array(answers.confidence),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, answers.probabilities.shape[1]),
        }
    pq.write_table(pa.table(columns), path, compression="zstd")


def write_mistakes(
    predictions: Predictions, texts: list[str], worst: Integers, schema: Schema, path: Path
) -> None:
    """Write the most confident wrong answers: text, actual and predicted class, confidence.

    Args:
        predictions: on the test rows.
        texts: (k,) what the answers are about.
        worst: (k,) positions of the answers, most confident first.
        schema: of the dataset.
        path: of the JSON file.
    """
    answers = predictions.answers
    units = predictions.examples.units()
    lines = [
        {
            **{name: int(values[place]) for name, values in units.items()},
            "text": text,
            "label": schema.classes[answers.labels[place]],
            "predicted": schema.classes[answers.predicted[place]],
            "confidence": float(answers.confidence[place]),
        }
        for text, place in zip(texts, worst, strict=True)
    ]
    write_json({"wrong": int((~answers.correct).sum()), "worst": lines}, path)


def write_classes(classes: Classes, schema: Schema, path: Path) -> None:
    """Write support, precision, recall and F1 of each class."""
    lines = [
        {"class": name, **asdict(score)} for name, score in zip(schema.classes, classes.scores, strict=True)
    ]
    write_json(lines, path)


def write_confusion(answers: Answers, schema: Schema, path: Path) -> None:
    """Write one line an answer, actual and predicted class, as DVC's confusion template counts them."""
    pairs = zip(answers.labels, answers.predicted, strict=True)
    _write_csv(("actual", "predicted"), ((schema.classes[a], schema.classes[p]) for a, p in pairs), path)


def write_lift(lift: Lift, folder: Path) -> None:
    """Write lift.json (every run, and the intervals) and lift.csv (mean accuracy of both arms)."""
    write_json(lift.as_dict(), folder / "lift.json")
    lines = ((point.size, point.trunk.value, point.scratch.value) for point in lift.points)
    _write_csv(("labels", "trunk", "scratch"), lines, folder / "lift.csv")


def _write_csv(header: tuple[str, ...], lines: Iterable[tuple[object, ...]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
