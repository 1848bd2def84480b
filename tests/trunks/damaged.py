"""Checkpoints that are damaged on purpose, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graftline.errors import InputError


def edit(path: Path, **values: Any) -> None:
    """Set values in a file of JSON."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(action: Callable[[], object]) -> str:
    """Return the InputError that an action ends with."""
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)
