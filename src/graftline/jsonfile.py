"""The JSON files of a stage's output: their bytes are part of its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(value: Any, path: Path) -> None:
    """Write `value` for people and programs, at full precision. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")
