"""The guard: NaN at once, a rise that stays after a while, a single bad batch never."""

from __future__ import annotations

import math
import random

import pytest

from graftline.learning.guard import PATIENCE, WINDOW, Guard, LossError


def losses(count: int) -> list[float]:
    """Return a noisy loss that falls from 8 towards 4, as a language model's does."""
    draw = random.Random(0)
    return [4 + 4 * math.exp(-step / 60) + draw.gauss(0, 0.1) for step in range(count)]


def feed(guard: Guard, values: list[float], first: int = 1) -> None:
    for step, value in enumerate(values, first):
        guard.look(step, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_at_once(value: float) -> None:
    with pytest.raises(LossError, match=f"the loss is {value} at step 3") as caught:
        feed(Guard(None), [1.0, 1.0, value])
    assert caught.value.step == 3


def test_a_run_that_goes_well_goes_on() -> None:
    feed(Guard(10.0), losses(2000))


def test_a_rise_that_stays_stops_and_names_its_first_step() -> None:
    with pytest.raises(LossError, match=r"the loss rose above .* at step 301 and is 12 at step 310") as caught:
        feed(Guard(10.0), losses(300) + [12.0] * PATIENCE)
    assert caught.value.step == 301


def test_a_rise_that_ends_in_time_does_not_stop() -> None:
    feed(Guard(10.0), losses(300) + [12.0] * (PATIENCE - 1) + losses(300)[-1:] + [12.0] * (PATIENCE - 1))


def test_high_losses_do_not_raise_the_limit() -> None:
    """Every second batch is high: without that rule the limit would creep up to them."""
    guard = Guard(10.0)
    feed(guard, losses(WINDOW))
    level = losses(WINDOW)[-1]
    feed(guard, [level, 50.0] * WINDOW)
    with pytest.raises(LossError):
        feed(guard, [50.0] * PATIENCE)


def test_there_is_no_limit_before_the_window_is_full_and_none_without_a_factor() -> None:
    feed(Guard(10.0), [1.0] * (WINDOW - 1) + [1000.0])
    feed(Guard(None), [1.0] * WINDOW + [1000.0] * PATIENCE)


@pytest.mark.parametrize("cut", [50, 250, 304])
def test_a_resumed_run_stops_where_an_unbroken_one_does(cut: int) -> None:
    values = losses(300) + [12.0] * PATIENCE
    before, after = Guard(10.0), Guard(10.0)
    feed(before, values[:cut])
    after.restore(before.state())
    assert after.suspects == (cut == 304)
    with pytest.raises(LossError) as caught:
        feed(after, values[cut:], cut + 1)
    assert caught.value.step == 301
