"""The tables of an evaluation: JSON, CSV for `dvc plots`, Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.jsonfile import write_json

if TYPE_CHECKING:
    from graftline.components.evaluate.predict import Predictions
    from graftline.dataset import Schema
    from graftline.evaluation.lift import Lift


def write_predictions(predictions: Predictions, schema: Schema, path: Path) -> None:
    """Write one line an answer: row, what tells its answers apart, and what the problem says of an answer."""
    columns = {name: pa.array(values) for name, values in predictions.examples.units().items()}
    pq.write_table(pa.table(columns | predictions.answers.columns(schema)), path, compression="zstd")


def write_lift(lift: Lift, folder: Path) -> None:
    """Write lift.json (every run, and the intervals) and lift.csv (mean score of both arms)."""
    write_json(lift.as_dict(), folder / "lift.json")
    lines = [f"{point.size},{point.trunk.value},{point.scratch.value}\n" for point in lift.points]
    (folder / "lift.csv").write_text("".join(["labels,trunk,scratch\n", *lines]), encoding="utf-8")
