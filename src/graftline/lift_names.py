"""The names of the lift's metrics among those of evaluate: `lift_<count>`, `lift_<count>_low` and so on."""

from __future__ import annotations

import math
from collections.abc import Mapping


def lift_counts(metrics: Mapping[str, float]) -> list[str]:
    """Return the label counts at which evaluate measured the lift, ascending, `all` last."""
    counts = [n.removeprefix("lift_") for n in metrics if n.startswith("lift_") and f"{n}_low" in metrics]
    return sorted(counts, key=lambda count: int(count) if count.isdigit() else math.inf)
