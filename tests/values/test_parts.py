"""The parts of validate that carry an argument: digests, splits, near-duplicate search, stability index."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from graftline.values import leakage, simhash
from graftline.values.identity import SeenValues, cell_bytes, split_by_digest
from graftline.values.profile import stability_index


def test_equal_values_have_equal_bytes_and_others_do_not() -> None:
    assert len(set(cell_bytes(pa.array([0.0, -0.0])))) == 1
    assert len(set(cell_bytes(pa.array([0, None, 1])))) == 3
    assert len(set(cell_bytes(pa.array(["", None, "a", "\0"])))) == 4
    images = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4, 1, 2], pa.uint8()), 2)
    assert cell_bytes(images) == [b"\1\1\2", b"\1\3\4", b"\1\1\2"]
    assert cell_bytes(images[1:]) == [b"\1\3\4", b"\1\1\2"]


def test_the_split_is_a_fixed_function_of_the_digest() -> None:
    """These values may never change: they would move rows of old data."""
    digests = np.zeros((4, 32), np.uint8)
    digests[:, 0] = [0x00, 0x33, 0x34, 0xFF]  # 0x33.../2**64 is just below 0.2
    assert split_by_digest(digests, 0.2, 0.1).tolist() == [2, 2, 1, 0]


def test_repeated_values_are_found_within_and_across_batches() -> None:
    seen = SeenValues()
    assert seen.add([b"a", b"b", b"a", b"\0", b"\0"]).tolist() == [0, 0, 1, 0, 0]
    assert seen.add([b"c", b"b"]).tolist() == [0, 1]
    assert seen.add([b"\1" + str(n).encode() for n in range(1000)]).sum() == 0
    assert seen.add([b"c", b"\1" + b"77", b"\0"]).tolist() == [1, 1, 0]


def test_near_copies_are_found_as_often_as_the_contract_says() -> None:
    """SimHash recall at a cosine of 0.995 is 0.97; 300 pairs, so 0.93 lies four standard errors below."""
    generator = np.random.default_rng(0)
    pairs = 300
    base = generator.normal(size=(pairs, 784))
    base -= base.mean(axis=1, keepdims=True)
    noise = generator.normal(size=base.shape)
    noise -= noise.mean(axis=1, keepdims=True)
    noise -= base * (np.einsum("ij,ij->i", noise, base) / np.einsum("ij,ij->i", base, base))[:, None]
    scale = np.linalg.norm(base, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    near = base * 0.995 + noise * scale * np.sqrt(1 - 0.995**2)
    pixels = np.concatenate([base, near]).astype(np.float32)
    index = leakage.Columns(
        rows=np.arange(2 * pairs),
        splits=np.repeat([0, 2], pairs).astype(np.uint8),
        features=np.arange(4 * pairs, dtype=np.uint64).reshape(-1, 2),
        labels=np.zeros(2 * pairs, np.int32),
        signatures=simhash.signatures(pixels),
    )
    found = leakage.candidates(index, simhash.max_distance(0.995))
    right = {(n, n + pairs) for n in range(pairs)}
    hits = {(int(a), int(b)) for a, b in found}
    assert len(hits & right) >= 0.93 * pairs
    assert not hits - right


def test_a_bucket_of_thousands_costs_bounded_work() -> None:
    rows = 5000
    index = leakage.Columns(
        rows=np.arange(rows),
        splits=(np.arange(rows) % 2).astype(np.uint8),
        features=np.arange(2 * rows, dtype=np.uint64).reshape(-1, 2),
        labels=np.zeros(rows, np.int32),
        signatures=np.ones((rows, 8), np.uint32),
    )
    assert 0 < len(leakage.candidates(index, 10)) <= rows * leakage.WINDOW


def test_images_of_one_grey_are_not_near_duplicates_of_anything() -> None:
    assert not simhash.signatures(np.full((2, 784), 7, np.uint8)).any()


def test_signatures_do_not_change() -> None:
    """Exact arithmetic on 8-bit pixels: the same on every machine."""
    pixels = (np.arange(2 * 784) * 37 % 256).astype(np.uint8).reshape(2, 784)
    assert simhash.signatures(pixels)[:, 0].tolist() == SIGNATURE


SIGNATURE = [2767854154, 1589781638]


def test_the_stability_index_is_zero_for_equal_shares_and_grows_with_a_shift() -> None:
    assert stability_index([1, 2, 3], [10, 20, 30]) == pytest.approx(0)
    assert stability_index([50, 50], [90, 10]) == pytest.approx(0.4 * np.log(9), abs=1e-9)
    assert stability_index([0, 100], [100, 0]) > 10
