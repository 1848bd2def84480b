"""Canonical JSON: what is encoded the short way has the bytes of the library for RFC 8785."""

from __future__ import annotations

import random
from typing import Any

import pytest
import rfc8785

from graftline.canonical import canonical_json

LEAVES = (
    *(None, True, False, 0, -1, 2**53 - 1, 1 - 2**53, 1.0, -0.0, 1e21, 1e-7, 0.1, 5e-324, "", "a", "a b"),
    *map(chr, range(0x80)),
    *('"\\', "\u2028", "é", "\ue000", "\U0001f600", "\uffff", "\x9f"),
)
KEYS = ("", "a", "aa", "b", "A", "1", "_", "~", '"', "\n", "\x7f", "é", "\ue000", "\U0001f600")


def drawn(draw: random.Random, depth: int, leaves: tuple[Any, ...], keys: tuple[str, ...]) -> Any:
    kind = draw.randrange(3) if depth else 0
    if kind == 0:
        return draw.choice(leaves)
    parts = [drawn(draw, depth - 1, leaves, keys) for _ in range(draw.randrange(6))]
    return (
        draw.choice([list, tuple])(parts) if kind == 1 else dict(zip(draw.sample(keys, len(parts)), parts, strict=True))
    )


def test_any_value_has_the_librarys_bytes() -> None:
    draw = random.Random(0)
    plain = tuple(leaf for leaf in LEAVES if not isinstance(leaf, float))
    for leaf in LEAVES:
        assert canonical_json(leaf) == rfc8785.dumps(leaf)
    for leaves, keys in ((LEAVES, KEYS), (plain, KEYS[:11])):
        for _ in range(500):
            value = drawn(draw, 4, leaves, keys)
            assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, -(2**53), "\ud800", {"\ud800": 1}, {1: 2}, b"x"])
def test_what_has_no_canonical_form_is_refused_as_by_the_library(value: Any) -> None:
    with pytest.raises(ValueError) as theirs:
        rfc8785.dumps([value])
    with pytest.raises(ValueError) as ours:
        canonical_json([value])
    assert str(ours.value) == str(theirs.value)
