"""The verdict over what verify finds."""

from __future__ import annotations

from dataclasses import dataclass

from graftline.errors import InputError
from graftline.findings import Finding


@dataclass(frozen=True)
class Verdict:
    """What a verification came to."""

    store: str
    scope: str
    """`all`, or the release."""
    findings: tuple[Finding, ...]
    objects: int
    """How many objects were read or hashed."""
    bytes: int
    """Their size together."""
    resumed: int
    """How many were hashed before, in a run that was interrupted."""
    sampled_out: int
    """How many were not read, by `--sample`."""
    form_only: int
    """How many working notes (claims of runs, leases, ...) carry no signature, so that only their form was checked."""
    seed: str
    """What the sample was chosen by; empty without one."""
    anchors: tuple[str, ...]
    """What from outside the store vouches for its ledger."""
    entries: int
    """How many entries the ledger has, bad ones among them."""
    seconds: float

    @property
    def whole(self) -> bool:
        return all(finding.kind == "erased" for finding in self.findings)

    def check_there(self) -> None:
        """Raise InputError if nothing was found because nothing is there: a store that is gone is not whole."""
        if self.whole and not self.entries:
            raise InputError(
                self.store,
                "nothing there to verify: its ledger has no entry",
                expected="a store with releases",
                fix="is it the right one? What was erased leaves its ledger",
            )
