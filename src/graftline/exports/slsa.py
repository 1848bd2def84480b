"""SLSA provenance v1: the records' DSSE envelopes as they are, one a line.

The in-toto attestation bundle (https://github.com/in-toto/attestation/blob/main/spec/v1/bundle.md), JSON Lines.
"""

from __future__ import annotations

from graftline.errors import InputError
from graftline.exports.facts import Facts


def bundle(facts: Facts) -> bytes:
    """Return the envelopes of the whole chain, inputs first.

    Raises:
        InputError: a record is not signed.
    """
    unsigned = [step.record for step in facts.steps if step.envelope is None]
    if unsigned:
        names = ", ".join(f"{record.name} ({record.sha256[:12]})" for record in unsigned)
        raise InputError(
            facts.release.name,
            f"records without a signature: {names}",
            expected="signed records: an attestation is one",
            fix="release the model again: publish signs",
        )
    lines = [step.envelope.rstrip(b"\n") for step in facts.steps if step.envelope is not None]
    return b"".join(line + b"\n" for line in lines)
