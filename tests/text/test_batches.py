"""Batches of whole documents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftline.text.batches import Batches, pack

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(32, 400), st.integers(0, 3))
def test_an_epoch_has_every_document_once(lengths: np.ndarray, tokens: int, epoch: int) -> None:
    batches = Batches(lengths, tokens, seed=7)
    steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
    seen = np.concatenate([batches.documents(step) for step in steps])
    assert set(seen) == set(range(len(lengths)))
    if lengths.max() * batches.per_epoch <= lengths.sum():  # no document is longer than a batch
        assert len(seen) == len(lengths)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(32, 400))
def test_no_batch_is_empty_and_each_is_sorted_by_length(lengths: np.ndarray, tokens: int) -> None:
    batches = Batches(lengths, tokens, seed=0)
    for step in range(2 * batches.per_epoch):
        chosen = lengths[batches.documents(step)]
        assert len(chosen)
        assert (np.diff(chosen) >= 0).all()


def test_batches_have_about_the_tokens_that_are_asked_for() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 20_000)
    batches = Batches(lengths, 4096, seed=0)
    sizes = [batches.tokens(step) for step in range(batches.per_epoch)]
    assert np.mean(sizes) == pytest.approx(4096, rel=0.01)
    assert max(sizes) - min(sizes) <= 2 * 60


def test_documents_of_a_batch_are_of_about_equal_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 20_000)
    batches = Batches(lengths, 4096, seed=0)
    spreads = [np.ptp(lengths[batches.documents(step)]) for step in range(batches.per_epoch)]
    assert np.median(spreads) < 12


def test_the_order_is_a_pure_function_of_seed_and_step() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    first, again, other = (Batches(lengths, 512, seed) for seed in (0, 0, 1))
    far = 3 * first.per_epoch + 5
    expected = first.documents(far)
    assert np.array_equal(again.documents(far), expected)
    again.documents(0)
    assert np.array_equal(again.documents(far), expected)
    assert not np.array_equal(other.documents(far), expected)


def test_epochs_differ_in_which_documents_meet() -> None:
    batches = Batches(np.random.default_rng(0).integers(5, 60, 2000), 512, seed=0)
    epochs = [
        {frozenset(batches.documents(e * batches.per_epoch + s).tolist()) for s in range(batches.per_epoch)}
        for e in (0, 1)
    ]
    assert not epochs[0] & epochs[1]


def test_positions_begin_at_each_document_and_runs_say_the_lengths() -> None:
    batch = pack(np.array([5, 6, 7, 8, 9, 10, 11]), np.array([2, 2, 3]), np.array([4, 1, 3]))
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert batch.positions.tolist() == [[0, 1, 0, 1, 0, 1, 2]]
    assert list(batch.runs) == [(2, 2), (1, 3)]
    assert batch.documents.tolist() == [4, 1, 3]
