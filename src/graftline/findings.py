"""What verifying finds: one thing that is not as its writers signed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["tampered", "missing", "erased", "unsigned", "unknown key", "expired key", "revoked key", "unexpected"]


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is not as its writers signed it."""

    place: str
    """The store key, or what outside the store it was compared with."""
    kind: Kind
    """`erased` is no fault: a signed receipt in the ledger says that it was removed."""
    expected: str = ""
    actual: str = ""
    step: str = ""
    """The output of the step that it is of, such as `trunk`; empty if it is of none."""
    file: str = ""
    """The file's path in its release or output."""
    row: str = ""
    """Of the row index, whose rows: how their digests begin."""


_OF_STATE: dict[str, Kind] = {"unknown": "unknown key", "retired": "expired key", "revoked": "revoked key"}


def kind_of(state: str) -> Kind:
    """Return the kind of a finding about a signature by a key in this state."""
    return _OF_STATE[state]
