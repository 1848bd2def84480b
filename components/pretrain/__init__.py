"""Learn a trunk from unlabelled data."""

from __future__ import annotations

from collections.abc import Callable

from graftline.component import Component, Context


def _load() -> Callable[[Context], None]:
    from graftline.components.pretrain.pretrain import run

    return run


COMPONENT = Component(
    name="pretrain",
    summary="Learn a trunk from unlabelled data.",
    output="trunk",
    load=_load,
    inputs=("dataset",),
    distributed=True,
)
