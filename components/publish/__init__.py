"""Release the model if the gate decided so, and point the champion alias at it."""

from __future__ import annotations

from collections.abc import Callable

from graftline.component import Component, Context


def _load() -> Callable[[Context], None]:
    from graftline.components.publish.publish import run

    return run


COMPONENT = Component(
    name="publish",
    summary="Release the model if the gate decided so, and point the champion alias at it.",
    output="release",
    load=_load,
    inputs=("dataset", "trunk", "model", "evaluation"),
    uses_store=True,
)
