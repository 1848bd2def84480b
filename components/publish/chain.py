"""Do the inputs belong together? Each record names the inputs of its component by content and by record."""

from __future__ import annotations

from collections.abc import Mapping

from graftline.errors import InputError
from graftline.records.model import Record

MADE_FROM = {"trunk": ("dataset",), "model": ("dataset", "trunk"), "evaluation": ("dataset", "trunk", "model")}
"""What each output must have been made from."""


def check_chain(records: Mapping[str, Record]) -> None:
    """Return if trunk, model and evaluation were made from one another and from this dataset.

    Raises:
        InputError: one was made from something else; the line names it, what its record says and what was
        given.
    """
    for output, names in MADE_FROM.items():
        for name in names:
            said, given = _said(records[output], name), (records[name].content, records[name].sha256)
            if said != given:
                raise InputError(
                    f"--in-{output}",
                    f"its record names {name} {_shown(said)}",
                    expected=f"the {name} given, {_shown(given)}",
                    fix=f"run the stage that makes {output} again",
                )


def _said(record: Record, name: str) -> tuple[str, str] | None:
    """Return the content digest and record digest of the dependency `name`."""
    given = record.input(name)
    return (given.sha256, given.record or "") if given else None


def _shown(pair: tuple[str, str] | None) -> str:
    return "not at all" if pair is None else f"{pair[0]} (record {pair[1] or 'none'})"
