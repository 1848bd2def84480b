"""Which measure of nearness the contract asks for."""

from __future__ import annotations

from graftline.values.contract import Contract
from graftline.values.leakage import Measure
from graftline.values.minhash import TextMeasure
from graftline.values.simhash import ImageMeasure


def measure_of(contract: Contract) -> Measure | None:
    """Return the measure of near-duplicates, or None if they are not searched for."""
    near, name = contract.near_duplicates, contract.feature[0]
    if near is None:
        return None
    if near.min_cosine is not None:
        return ImageMeasure(name, near.min_cosine)
    assert near.min_jaccard is not None
    return TextMeasure(name, near.min_jaccard)
