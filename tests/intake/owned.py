"""Small tables as people have them."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = [
    *("apple", "pear", "plum", "cat", "dog", "bird", "sun", "moon", "star"),
    *("run", "jump", "fly", "eat", "sleep", "big", "small", "old", "red"),
]


def texts(count: int, marks: Sequence[str] = ("good", "bad"), seed: int = 0) -> list[tuple[str, int]]:
    """Return documents, each with the number of the mark in it."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        mark = drawn.randrange(len(marks))
        words = [drawn.choice(WORDS) for _ in range(drawn.randint(6, 16))]
        words[drawn.randrange(len(words))] = marks[mark]
        found.append((" ".join(words), mark))
    return found


def write_csv(path: Path, rows: Sequence[dict[str, Any]], **how: Any) -> Path:
    encoding = how.pop("encoding", "utf-8")
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **how)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return rows of a text, a label of two words, and columns whose values are lists to draw from."""
    drawn = random.Random(1)
    return [
        {"text": text, "label": ("ham", "spam")[mark], **{name: drawn.choice(values) for name, values in more.items()}}
        for text, mark in texts(count)
    ]
