"""The search for near-equal texts: how often it finds what the contract says, and that it never changes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from graftline.values import leakage, minhash


def index_of(texts: list[str]) -> leakage.Columns:
    """The first half in train, the second in test."""
    n = len(texts)
    return leakage.Columns(
        rows=np.arange(n),
        splits=np.repeat([0, 2], n // 2).astype(np.uint8),
        features=np.arange(2 * n, dtype=np.uint64).reshape(-1, 2),
        labels=np.full(n, -1, np.int32),
        signatures=minhash.signatures(minhash.normalise(pa.array(texts))),
    )


def test_near_copies_are_found_as_often_as_the_contract_says(glosses: pa.Table) -> None:
    """A pair at 0.8 is found with probability 0.95: of some 400 pairs between 0.8 and 0.9, nearly all."""
    base = [text for text in glosses["text"].to_pylist() if len(text) > 60][:400]
    near = [text[: len(text) - len(text) // 14] + "#" * (len(text) // 28) for text in base]
    runs = [(minhash._runs(a), minhash._runs(b)) for a, b in zip(base, near, strict=True)]
    likeness = np.array([minhash._jaccard(a, b) for a, b in runs])
    found = {(int(a), int(b)) for a, b in leakage.candidates(index_of(base + near), minhash.BANDS - 1, differing)}
    right = {(n, n + len(base)) for n in np.flatnonzero(likeness >= 0.8)}
    assert len(right) > 200 and likeness.min() < 0.95
    assert len(found & right) >= 0.95 * len(right)
    strangers = [pair for pair in found if pair[1] - pair[0] != len(base)]
    assert len(strangers) < len(base)


def differing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first != second).sum(axis=1)


def test_case_and_white_space_do_not_count() -> None:
    signatures = minhash.signatures(minhash.normalise(pa.array(["A  small\tDog", "a small dog", "a small doe"])))
    assert (signatures[0] == signatures[1]).all() and (signatures[0] != signatures[2]).any()


def test_texts_do_not_touch_their_neighbours() -> None:
    """A signature depends on the text alone, however the texts are put together."""
    texts = ["", "ab", "a longer text", "\U0001f600 \u05e2\u05e5", "x" * 4, "y" * 5]
    together = minhash.signatures(pa.array(texts))
    alone = np.concatenate([minhash.signatures(pa.array([text])) for text in texts])
    assert (together == alone).all() and len(np.unique(together, axis=0)) == len(texts)


def test_signatures_do_not_change() -> None:
    """Integer arithmetic alone: the same on every machine, for ever."""
    assert minhash.signatures(pa.array(["a small dog", "ab"]))[:, 0].tolist() == SIGNATURE


SIGNATURE = [2458634206, 2042283256]
