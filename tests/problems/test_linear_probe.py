"""A head in closed form: what it is, against leaving examples out in turn."""

from __future__ import annotations

import pytest
import torch

from graftline.problems.linear_probe import _SCALES, _STRENGTH, solve

GIVEN = torch.Generator().manual_seed(0)
LABELS = torch.arange(24) % 3
FEATURES = torch.randn(24, 40, generator=GIVEN) * torch.logspace(-2, 2, 40) + 5 * torch.randn(40, generator=GIVEN)
FEATURES[:, :3] += 0.02 * torch.eye(3)[LABELS]


def ridge(rows: torch.Tensor, targets: torch.Tensor, penalty: float) -> torch.Tensor:
    weights: torch.Tensor = torch.linalg.solve(
        rows.T @ rows + penalty * torch.eye(rows.shape[1]).double(), rows.T @ targets
    )
    return weights


@pytest.mark.parametrize("weights", [None, torch.rand(24, generator=GIVEN) + 0.2])
def test_its_scale_tells_examples_best_from_all_others(weights: torch.Tensor | None) -> None:
    count = (torch.ones(24) if weights is None else weights / weights.mean()).double()
    mean, wanted = (count[:, None] * FEATURES).mean(0), torch.eye(3).double()[LABELS]
    rows = FEATURES - mean
    rows = rows / (count[:, None] * rows**2).mean(0).sqrt()
    share, root = (count[:, None] * wanted).mean(0), count.sqrt()[:, None]
    rows, targets = root * rows, root * (wanted - share)
    penalty = _STRENGTH * float(rows.square().sum(1).mean())
    others = torch.zeros(24, 3).double()
    for fold in range(8):  # one of each class
        out = torch.arange(24) // 3 == fold
        others[out] = rows[out] / root[out] @ ridge(rows[~out], targets[~out], penalty)
    losses = [
        float((count * torch.nn.functional.cross_entropy(share.log() + scale * others, LABELS, reduction="none")).sum())
        for scale in _SCALES
    ]
    best = losses.index(min(losses))
    assert 0 < best < len(_SCALES) - 1
    logits = share.log() + _SCALES[best] * rows / root @ ridge(rows, targets, penalty)
    layer, bias = solve(FEATURES, LABELS, 3, weights)
    assert layer.shape == (3, 40) and torch.allclose(FEATURES.double() @ layer.T + bias, logits, atol=1e-6)
    assert (logits.argmax(1) == LABELS).float().mean() > 0.9


def test_what_says_nothing_and_a_class_without_examples_do_no_harm() -> None:
    features = torch.cat([FEATURES, torch.ones(24, 2)], dim=1)
    layer, bias = solve(features, LABELS, 4)
    assert layer.isfinite().all() and bias.isfinite().all()
    assert (features.double() @ layer.T + bias).argmax(1).max() == 2
    assert (solve(torch.ones(24, 5), LABELS, 3)[0] == 0).all(), "nothing can be told"
