"""A small task of questions about real glosses, and what the components make of it with tiny budgets, once a session.

When was somebody born, when did they die: these two kinds of data/questions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import small_text
from session import once

from graftline.environment import ROOT

RAW = ROOT / "data" / "questions" / "raw" / "questions.parquet"
KINDS = ("born", "died")
ROWS = {"train": 700, "val": 60, "test": 100}
CONTRACT = """\
columns:
  question: {type: text}
  context: {type: text}
  answer: {type: span, of: context}
  split: {type: string, role: split}
"""
PRETRAIN: dict[str, Any] = {
    **small_text.PRETRAIN, "epochs": 1, "trunk": {**small_text.ENCODER, "layers": 2, "max_length": 64},
}  # fmt: skip
FINETUNE: dict[str, Any] = {
    "head": {"name": "question_answering", "max_tokens": 64, "max_question_tokens": 20, "stride": 8},
    "epochs": 8, "batch": 32, "min_steps": 10, "warmup_steps": 0, "learning_rate": 0.01, "patience": None,
}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the first questions of these kinds of each split, as they are shipped."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    names = ["question", "context", "answer", "split"]
    found: list[dict[str, Any]] = pq.read_table(RAW, columns=names, filters=[("kind", "in", KINDS)]).to_pylist()
    return [row for split, count in ROWS.items() for row in [row for row in found if row["split"] == split][:count]]


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the questions, in a folder below `home`."""
    return small.validated(home / "small_questions", CONTRACT, pa.Table.from_pylist(rows()))


@once
def trunk(home: Path) -> Path:
    """Return the masked language model that pretrain makes of the questions' texts."""
    out = home / "small_questions" / "trunk"
    small.make("pretrain", {"pretrain": PRETRAIN}, in_dataset=dataset(home), out_trunk=out)
    return out
