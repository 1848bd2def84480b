"""Randomness: a pure function of (seed, step), so that a resumed run draws what an unbroken one draws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftline.learning.randomness import batch_indices, generator, permutation


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31 - 1), size=st.integers(1, 40), count=st.integers(1, 60))
def test_each_epoch_is_a_permutation_without_a_gap(seed: int, size: int, count: int) -> None:
    steps = 3 * count // size + 1
    drawn = torch.cat([batch_indices(seed, step, size, count) for step in range(steps)])
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    forward = [batch_indices(7, step, 8, 20) for step in range(10)]
    permutation.cache_clear()
    torch.manual_seed(123)
    backward = [batch_indices(7, step, 8, 20) for step in reversed(range(10))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not torch.equal(forward[0], batch_indices(8, 0, 8, 20))
    assert not torch.equal(forward[0], forward[1])


def test_epochs_differ() -> None:
    assert not torch.equal(batch_indices(0, 0, 50, 50), batch_indices(0, 1, 50, 50))


@pytest.mark.parametrize("other", [(0, 5, "mask"), (0, 6, "batch"), (1, 5, "batch"), (0, 55, "batch")])
def test_seeds_steps_and_purposes_draw_independently(other: tuple[int, int, str]) -> None:
    first, second = (
        torch.rand(4000, generator=generator(*which), dtype=torch.float64) for which in ((0, 5, "batch"), other)
    )
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1].item()
    assert abs(correlation) < 0.08  # 5 standard deviations of independent draws


def test_equal_names_draw_equal_numbers_whatever_was_drawn_before() -> None:
    first = torch.rand(5, generator=generator(3, 4, "mask"))
    torch.rand(100)
    assert torch.equal(first, torch.rand(5, generator=generator(3, 4, "mask")))
