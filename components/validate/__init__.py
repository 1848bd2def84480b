"""Check raw data against its contract, quarantine bad rows, split the good ones."""

from __future__ import annotations

from collections.abc import Callable

from graftline.component import Component, Context


def _load() -> Callable[[Context], None]:
    from graftline.components.validate.validate import run

    return run


COMPONENT = Component(
    name="validate",
    summary="Check raw data against its contract, quarantine bad rows, split the good ones.",
    output="dataset",
    load=_load,
    sources=("raw", "expectations"),
    uses_store=True,
)
