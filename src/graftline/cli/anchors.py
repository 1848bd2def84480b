"""The options that hold a ledger against what is known of it from outside its store."""

from __future__ import annotations

import typer

CHECKPOINT = typer.Option(
    "--checkpoint",
    metavar="TEXT|FILE",
    help="what `graftline ledger checkpoint` printed once, kept elsewhere",
)
KEY = typer.Option("--key", metavar="FINGERPRINT", help="the key that the ledger must begin with")
