"""Values from records, in the forms that the standards take them in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from graftline.exports.facts import StoredRecord
from graftline.records.model import flat

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://graftline.dev/exports/v1")
"""Of the UUIDs that some standards want: the same record has the same one in every export."""
_LOW, _HIGH = "_low", "_high"


def uuid_of(kind: str, digest: str) -> uuid.UUID:
    """Return the UUID of what `digest` identifies."""
    return uuid.uuid5(NAMESPACE, f"{kind}:{digest}")


def parameters(step: StoredRecord) -> dict[str, str]:
    """Return each parameter by dotted name; a value is JSON, or a string as it is."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in flat(step.record.parameters).items()
    }


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers."""
    return {
        name: value for name, value in metrics.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def intervals(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float, tuple[float, float] | None]]:
    """Yield name, value and 95% interval of each metric; `x_low` and `x_high` are the interval of `x`."""
    values = numbers(metrics)
    for name, value in values.items():
        base = name.removesuffix(_LOW).removesuffix(_HIGH)
        if base != name and base in values and base + _LOW in values and base + _HIGH in values:
            continue
        bounds = values.get(name + _LOW), values.get(name + _HIGH)
        yield name, value, None if bounds[0] is None or bounds[1] is None else (bounds[0], bounds[1])


def package_url(name: str, version: str) -> str:
    """Return the purl of a Python package (https://github.com/package-url/purl-spec)."""
    return f"pkg:pypi/{quote(name.lower().replace('_', '-'), safe='')}@{quote(version, safe='')}"
