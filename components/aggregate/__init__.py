"""Make a round's next model out of the sites' signed updates."""

from __future__ import annotations

from collections.abc import Callable

from graftline.component import Component, Context


def _load() -> Callable[[Context], None]:
    from graftline.components.aggregate.aggregate import run

    return run


COMPONENT = Component(
    name="aggregate",
    summary="Make a round's next model out of the sites' signed updates.",
    output="model",
    load=_load,
    sources=("updates",),
    inputs=("dataset", "trunk"),
    optional={"start": "model"},
)
