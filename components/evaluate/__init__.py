"""Measure the model, the lift of pretraining and the champion; decide whether to publish."""

from __future__ import annotations

from collections.abc import Callable

from graftline.component import Component, Context


def _load() -> Callable[[Context], None]:
    from graftline.components.evaluate.evaluate import run

    return run


COMPONENT = Component(
    name="evaluate",
    summary="Measure the model, the lift of pretraining and the champion; decide whether to publish.",
    output="evaluation",
    load=_load,
    inputs=("dataset", "trunk", "model"),
    uses_store=True,
)
