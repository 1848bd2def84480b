"""A small task of pairs of real glosses, and what the components make of it with tiny budgets, once a session.

Two glosses are `same` if they are of one of WordNet's lexicographer files, else `other`. A gloss stands in one split.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import small_text
from session import once

FILES = ("noun.plant", "noun.person")
CLASSES = ("other", "same")
PAIRS = {"train": 3200, "val": 100, "test": 400}
"""Pairs of each split, half of them of each class."""
LONGEST = 60
"""Characters of the longest gloss that is taken."""
GLOSSES = {"train": 1600, "val": 100, "test": 400}
"""Glosses of each split, half of them of each file: a gloss is in several pairs."""
CONTRACT = f"""\
columns:
  gloss: {{type: text}}
  beside: {{type: text}}
  relation: {{type: string, role: label, classes: [{", ".join(CLASSES)}]}}
  part: {{type: string, role: split}}
"""
PRETRAIN: dict[str, Any] = {**small_text.PRETRAIN, "epochs": 2}
FINETUNE: dict[str, Any] = {
    "head": {"name": "pair_classification"}, "epochs": 2, "batch": 32, "min_steps": 10, "warmup_steps": 0,
    "learning_rate": 0.01, "trunk_rate": 0.5, "patience": None,
}  # fmt: skip


def rows() -> dict[str, list[str]]:
    """Return the pairs: drawn by a fixed seed from the shipped glosses, in which no gloss stands twice."""
    if not small_text.RAW.is_file():
        pytest.fail(f"{small_text.RAW} is missing: run `dvc pull`")
    table = pq.read_table(small_text.RAW, columns=["text", "label"]).to_pydict()
    draw = random.Random(0)
    short = [(t, f) for t, f in zip(table["text"], table["label"], strict=True) if len(t) <= LONGEST]
    of_file = {name: list(dict.fromkeys(text for text, file in short if file == name)) for name in FILES}
    for glosses in of_file.values():
        draw.shuffle(glosses)
    made: dict[str, list[str]] = {name: [] for name in ("gloss", "beside", "relation", "part")}
    for split, count in PAIRS.items():
        own = {name: [glosses.pop() for _ in range(GLOSSES[split] // len(FILES))] for name, glosses in of_file.items()}
        for number in range(count):
            relation = CLASSES[number % 2]
            first = FILES[number // 2 % len(FILES)]
            second = first if relation == "same" else draw.choice([name for name in FILES if name != first])
            one, two = draw.sample(own[first], 2) if first == second else (draw.choice(own[n]) for n in (first, second))
            for name, value in zip(made, (one, two, relation, split), strict=True):
                made[name].append(value)
    return made


@once
def dataset(home: Path) -> Path:
    """Return the dataset that validate makes of the pairs, in a folder below `home`."""
    return small.validated(home / "small_pairs", CONTRACT, pa.table(rows()))


@once
def trunk(home: Path) -> Path:
    """Return the masked language model that pretrain makes of the pairs' glosses."""
    out = home / "small_pairs" / "trunk"
    small.make("pretrain", {"pretrain": PRETRAIN}, in_dataset=dataset(home), out_trunk=out)
    return out
