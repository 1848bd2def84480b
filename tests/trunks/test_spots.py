"""Spots of images: where they are drawn, and that they are found again in warped views."""

from __future__ import annotations

import torch
from torch.nn.functional import grid_sample

from graftline.learning.augment import Changes, draw
from graftline.learning.parameters import Augmentation
from graftline.trunks.vision.spots import common, looked_up

SIDE = 32
WARPED = Augmentation(shift=5, rotation=20, scale=0.2, shear=0.1, flip=0.5, crop=0.6, edge="repeat")


def test_a_spot_is_the_same_place_of_the_image_in_both_views() -> None:
    along = torch.linspace(0, 1, SIDE).expand(SIDE, SIDE)
    places = torch.stack([along, along.T]).expand(20, 2, SIDE, SIDE)  # each pixel says where it is
    draws = torch.Generator().manual_seed(0)
    views = [draw(WARPED, draws, 20, (2, SIDE, SIDE)) for _ in range(2)]
    spots = common(places, views, 12, draws)
    here, there = (
        looked_up(changes.apply(places, "repeat"), at) for changes, at in zip(views, spots.views, strict=True)
    )
    assert spots.seen.float().mean() > 0.9
    assert (here - there)[spots.seen].abs().max() < 0.02 and here[spots.seen].std() > 0.1
    assert (here - looked_up(places, spots.places))[spots.seen].abs().max() < 0.02


def test_spots_lie_where_there_is_something_to_see() -> None:
    images = torch.zeros(50, 1, SIDE, SIDE)
    images[:, :, 4:12, 20:28] = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    still = Changes(torch.eye(2, 3).expand(50, 2, 3), None)
    spots = common(images, [still], 4, torch.Generator().manual_seed(0))
    column, row = ((spots.places + 1) * SIDE / 2).unbind(2)
    assert spots.seen.all()
    assert ((column > 15) & (row < 17)).float().mean() > 0.7, "drawn evenly, 0.28 would be"


def test_what_only_one_view_shows_is_not_compared() -> None:
    left, right = (Changes(torch.tensor([[[0.5, 0, side], [0, 1.0, 0]]]), None) for side in (-0.5, 0.25))
    spots = common(torch.zeros(1, 1, SIDE, SIDE), (left, right), 140, torch.Generator().manual_seed(0))
    assert 50 < spots.seen.sum() < 140 and not spots.seen.all(), "a quarter of the first view is in the second"
    assert (
        spots.views[0][spots.seen][:, 0].min() >= 0.5 - 1e-6 and spots.views[1][spots.seen][:, 0].max() <= -0.5 + 1e-6
    )


def test_between_places_a_map_says_what_lies_between() -> None:
    features = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    at = torch.rand(3, 7, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    theirs = grid_sample(features, at[:, :, None], padding_mode="border", align_corners=False)
    torch.testing.assert_close(looked_up(features, at), theirs[..., 0].mT)
