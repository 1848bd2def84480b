"""`--set finetune.epochs=3`: a value of a task's parameters, changed on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from graftline.errors import InputError, nearest
from graftline.tasks.parameters import COMPONENTS, argument_text
from graftline.yamlfile import parse_yaml


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Return the value of each dotted key, read as JSON or YAML. Raises InputError."""
    return dict(_assignment(argument_text(text)) for text in texts)


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    parts = key.split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise InputError(f"--set {text}", "not an assignment", expected="KEY=VALUE, such as finetune.epochs=3")
    if parts[0] not in COMPONENTS:
        raise InputError(
            f"--set {text}",
            f"unknown section '{parts[0]}'{nearest(parts[0], list(COMPONENTS))}",
            expected="one of " + ", ".join(COMPONENTS),
        )
    try:
        return key, json.loads(value)  # JSON reads 3e-4 as a number, YAML 1.1 as text
    except json.JSONDecodeError:
        return key, parse_yaml(value, where=f"--set {text}")
