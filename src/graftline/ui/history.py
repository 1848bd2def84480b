"""The ledger's entries, newest first."""

from __future__ import annotations

import math

from graftline.ui.addresses import ledger_page
from graftline.ui.views import Ask, NoPageError, View

PAGE = 500
"""Entries on one page."""


def page_count(ask: Ask) -> int:
    return max(1, math.ceil(_count(ask) / PAGE))


def _count(ask: Ask) -> int:
    """Return the number of entries, which is the sequence of the last."""
    return sum(entry.sequence for entry in ask.index.history(newest=1))


def ledger(ask: Ask, number: int = 1) -> View:
    count, pages = _count(ask), page_count(ask)
    if not 1 <= number <= pages:
        raise NoPageError(f"the ledger has {pages} pages")
    entries = ask.index.history(before=count - (number - 1) * PAGE + 1, newest=PAGE)
    values = {
        "entries": entries[::-1],
        "count": count,
        "page_number": number,
        "pages": pages,
        "newer": ledger_page(number - 1) if number > 1 else None,
        "older": ledger_page(number + 1) if number < pages else None,
    }
    return View("ledger.html.j2", "Ledger", "ledger", [("Ledger", "ledger.html")], values)
