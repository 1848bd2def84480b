"""Methods and measures on models that are known to look at one thing: what is planted is found, what is not is told."""

from __future__ import annotations

import numpy as np
import planted
import pytest

from graftline.explain.faithfulness import measure
from graftline.explain.methods import attention_rollout, completeness_gap, integrated_gradients, occlusion
from graftline.explain.weights import shuffled

COUNT = 40
ROWS = np.arange(COUNT)


def test_the_measures_are_as_computed_by_hand() -> None:
    """Four parts of 0.4, 0.3, 0.2 and 0.1, ranked rightly: 1, 1, 1, 1 and 2 parts are 1, 5, 10, 20 and 50% of them."""
    shares = np.array([[0.1, 0.4, 0.3, 0.2]] * 2)
    explained = planted.Shares(shares, np.array([4, 4]), ["a", "b"])
    _, found = measure(explained, {"occlusion": shares}, {"occlusion": -shares}, ROWS[:2], resamples=1000, seed=0)
    values = {name: value.value for name, value in found.values.items()}
    assert values["comprehensiveness"] == pytest.approx((4 * 0.4 + 0.7) / 5)
    assert values["sufficiency"] == pytest.approx((4 * 0.6 + 0.3) / 5)
    # after 0, 0, 1, 1, 2, 2, 2, 3, 3, 4 and 4 parts
    assert values["deletion"] == pytest.approx((1 + 1 + 0.6 + 0.6 + 0.3 + 0.3 + 0.3 + 0.1 + 0.1 - 0.5) / 10)
    # the other way round 0.1 goes first: 1, 1, 0.9, 0.9, 0.7, 0.7, 0.7, 0.4, 0.4, 0 and 0
    assert found.over_weights is not None and found.over_weights.value == pytest.approx(0.62 - 0.38)


def test_examples_of_few_parts_are_measured_by_their_own() -> None:
    shares = np.array([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    explained = planted.Shares(shares, np.array([2, 4]), ["a", "b"])
    chance, _ = measure(explained, {"occlusion": shares}, {"occlusion": shares}, ROWS[:2], resamples=1000, seed=0)
    # halves are lost one after the other in any order; of 2 parts 1 at each share, of 4 at the last one 2
    assert chance.values["comprehensiveness"].value == pytest.approx((0.5 + (4 * 0.25 + 0.5) / 5) / 2)


def test_roll_out_is_the_product_of_the_layers_each_half_of_what_goes_past() -> None:
    explained = planted.Shares(np.ones((1, 3)), np.array([3]), ["a"])
    found = attention_rollout(explained)
    # the head reads token 0; layer 2 leaves it, layer 1 mixes it of itself (0.75) and token 1 (0.25)
    assert np.allclose(found, [[0.75, 0.25, 0.0]])


@pytest.mark.parametrize("method", [integrated_gradients, occlusion])
def test_the_pixels_that_decide_are_found(method: object) -> None:
    explained = planted.pictures(COUNT)
    found = method(explained)  # type: ignore[operator]
    of_pixel = np.abs(found).reshape(COUNT, 28, 28)
    inside = of_pixel[:, *planted.PATCH].sum(axis=(1, 2)) / of_pixel.sum(axis=(1, 2))
    # occlusion's windows of 4 x 4 lap over the patch's edge, and blame their other pixels too
    assert inside.min() > (0.999 if method is integrated_gradients else 0.3)
    assert (found.argmax(axis=1) == np.argmax(of_pixel.reshape(COUNT, -1), axis=1)).all()
    rows, columns = np.unravel_index(found.argmax(axis=1), (28, 28))
    assert ((rows >= 8) & (rows < 12) & (columns >= 4) & (columns < 8)).all()


@pytest.mark.parametrize("method", [integrated_gradients, occlusion])
def test_the_piece_that_decides_is_found(method: object) -> None:
    explained = planted.clips(12)
    found = np.where(explained.there, method(explained), -np.inf)  # type: ignore[operator]
    best = found.max(axis=1)
    assert np.allclose(found[:, planted.PIECE], best) and best.min() > 0.1  # some share all windows with it
    if method is integrated_gradients:
        assert (found.argmax(axis=1) == planted.PIECE).all()
        assert completeness_gap(explained, found).max() < 1e-3
        assert explained.told(0, found[0], 1).startswith("0.15-0.20 s (+")
    assert explained.parts.tolist() == [-(-(2000 + 130 * n) // 400) for n in range(12)]
    assert explained.values(1, found[1])[-1]["end"] == 2130 / planted.RATE


def test_integrated_gradients_share_out_the_whole_difference() -> None:
    explained = planted.pictures(COUNT)
    found = integrated_gradients(explained)
    assert completeness_gap(explained, found).max() < 1e-3
    assert completeness_gap(explained, 0.9 * found).min() > 0.03, "an amount that is lost is seen"


def test_a_method_that_finds_it_is_better_than_chance_and_one_that_guesses_is_told() -> None:
    explained = planted.pictures(COUNT)
    blank = explained.by(shuffled(planted.OfPatch(), 0))
    right, other = (integrated_gradients(one) for one in (explained, blank))
    noise, more = np.random.default_rng(1).random((2, *right.shape))
    bright = explained.pixels.reshape(COUNT, -1).astype(np.float64)  # of the picture alone, whatever the model
    found = {"integrated_gradients": right, "occlusion": noise, "attention_rollout": bright}
    at_random = {"integrated_gradients": other, "occlusion": more, "attention_rollout": bright}
    chance, *measured = measure(explained, found, at_random, ROWS, resamples=1000, seed=0)
    assert chance.margin is None
    believed, guessed, of_input = measured
    assert believed.margin is not None and believed.margin > 0
    assert believed.verdict == "better than a random order and than on a model with random weights"
    assert guessed.margin is not None and guessed.margin <= 0
    assert guessed.verdict.startswith("no better than a random order")
    assert of_input.over_random is not None and of_input.over_random.low > 0
    assert of_input.verdict.endswith("it shows the input")
    names = believed.metrics()
    assert names["explain_integrated_gradients_margin"] == believed.margin
    assert names["explain_integrated_gradients_deletion_low"] < names["explain_integrated_gradients_deletion_high"]


def test_shuffled_weights_hold_the_same_numbers_elsewhere_and_are_a_function_of_the_seed() -> None:
    one, two, other = (shuffled(planted.OfPatch(), seed).layer.weight.detach() for seed in (0, 0, 1))
    whole = planted.OfPatch().layer.weight.detach()
    assert one.equal(two) and not one.equal(other) and not one.equal(whole)
    assert one.flatten().sort().values.equal(whole.flatten().sort().values)
