"""The options that hold a ledger against what is known of it from outside its store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from graftline.cli.shown import plain
from graftline.errors import InputError
from graftline.ledger.checkpoint import ORIGIN, TreeHead, parse_checkpoint

CHECKPOINT = typer.Option(
    "--checkpoint", metavar="TEXT|FILE", help="what `graftline ledger checkpoint` printed once, kept elsewhere"
)
KEY = typer.Option("--key", metavar="FINGERPRINT", help="the key that the ledger must begin with")


def read_checkpoints(given: Iterable[str]) -> dict[str, TreeHead]:
    """Return each checkpoint by what to call it: it is given as text, or as the file that holds it.

    Raises:
        InputError: it is neither, or not a checkpoint.
    """
    found = {}
    for number, text in enumerate(given, start=1):
        name = f"--checkpoint {number}" if text.startswith(ORIGIN) else text
        if not text.startswith(ORIGIN):
            try:
                text = Path(text).read_text(encoding="utf-8")
            except (OSError, ValueError):
                raise InputError(
                    "--checkpoint",
                    f"'{plain(text, 80)}', neither a checkpoint nor a file that can be read",
                    expected="what `graftline ledger checkpoint` printed, or a file with it",
                ) from None
        found[name] = parse_checkpoint(text, where=name)
    return found
