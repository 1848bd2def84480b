"""Learn a head, and the trunk with it, from labelled data."""

from __future__ import annotations

from collections.abc import Callable

from graftline.component import Component, Context


def _load() -> Callable[[Context], None]:
    from graftline.components.finetune.finetune import run

    return run


COMPONENT = Component(
    name="finetune",
    summary="Learn a head, and the trunk with it, from labelled data.",
    output="model",
    load=_load,
    inputs=("dataset", "trunk"),
    optional={"start": "model"},
    distributed=True,
)
