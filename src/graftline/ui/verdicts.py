"""What verify says of a release or of the store: asked now of a server, or once for all pages of an export."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from graftline.audit.verify.verifying import Finding, Options, Verdict, verify
from graftline.errors import GraftlineError
from graftline.ui.views import Ask, View

if TYPE_CHECKING:
    from collections.abc import Callable

    from graftline.index.rows import IndexedRelease
    from graftline.store import Store

_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Shown:
    """The verdict as a page shows it."""

    verdict: Verdict | None
    """None if it was not asked for."""
    findings: tuple[Finding, ...] = ()
    """Those about what the page is of."""
    others: int = 0
    """How many there are about the rest of the store."""
    trouble: str = ""
    """Why there is no verdict although it was asked for."""

    @property
    def whole(self) -> bool:
        return all(finding.kind == "erased" for finding in self.findings)


def of_release(ask: Ask, release: IndexedRelease, records: list[str]) -> Shown:
    """Return what is known of a release; `records` are those that it came from."""
    if ask.verdict is not None:
        places = (f"releases/{release.task}/{release.version}/", "ledger/", f"aliases/{release.task}/")
        about = [
            finding
            for finding in ask.verdict.findings
            if finding.place.startswith(places) or any(sha256 in finding.place for sha256 in records)
        ]
        return Shown(ask.verdict, tuple(about), len(ask.verdict.findings) - len(about))
    return _asked(ask, release.reference)


def whole_store(ask: Ask) -> View:
    """Return the page of the whole store's verdict."""
    shown = _shown(ask.verdict) if ask.verdict else _asked(ask, None)
    return View("verify.html.j2", "Verify", "verify", [("Verify", "verify.html")], {"check": shown})


def verify_store(store: Store, progress: Callable[[int, int], None]) -> Verdict:
    """Return the verdict of all. Raises GraftlineError: the store cannot be read."""
    return verify(store, None, Options(keep_state=False, progress=progress))


def _asked(ask: Ask, reference: str | None) -> Shown:
    if not ask.served or ask.query.get("verify") != "1":
        return Shown(None)
    try:
        with _ONE_AT_A_TIME:
            return _shown(verify(ask.store, reference, Options(keep_state=False)))
    except GraftlineError as error:
        return Shown(None, trouble=str(error))


def _shown(verdict: Verdict) -> Shown:
    try:
        verdict.check_there()
    except GraftlineError as error:
        return Shown(None, trouble=str(error))
    return Shown(verdict, verdict.findings)
