"""Values of records as text for eyes, and only as text: what they are is not known before they are looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 2000
"""Characters of one value that a page shows."""
_LARGEST = 1e30
"""A metric beyond this is no measurement, and a chart of it would overflow."""


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers of a size that can be drawn: a record may hold anything."""
    return {
        str(name): value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    }


def number(value: float | None) -> str:
    """Return a measured value with four decimals, a count as it is."""
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}" if abs(value) >= 1000 or 0 < abs(value) < 0.001 else f"{value:.4f}"


def signed(value: float | None) -> str:
    if value is None:
        return ""
    return ("+" if value > 0 else "") + number(value)


def shown(value: Any) -> str:
    """Return any value of a record as text of at most LONGEST characters."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def size(count: int) -> str:
    """Return a number of bytes with a unit of 1,000 or more."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def moment(created: str) -> str:
    """Return an ISO 8601 time to the minute, such as 2026-01-31 23:59."""
    return created[:16].replace("T", " ")


def as_json(value: Any) -> str:
    """Return JSON for an attribute that a script reads; the template escapes it like any text."""
    return json.dumps(value)
