"""A head in closed form: what it is, against leaving each example out in turn."""

from __future__ import annotations

import pytest
import torch

from graftline.problems.linear_probe import _SCALES, _STRENGTHS, solve

GIVEN = torch.Generator().manual_seed(0)
LABELS = torch.arange(24) % 3
FEATURES = torch.randn(24, 40, generator=GIVEN) * torch.logspace(-2, 2, 40) + 5 * torch.randn(40, generator=GIVEN)
FEATURES[:, :3] += 0.02 * torch.eye(3)[LABELS]


def ridge(rows: torch.Tensor, targets: torch.Tensor, penalty: float) -> torch.Tensor:
    return torch.linalg.solve(rows.T @ rows + penalty * torch.eye(rows.shape[1]).double(), rows.T @ targets)


@pytest.mark.parametrize("weights", [None, torch.rand(24, generator=GIVEN) + 0.2])
def test_strength_and_scale_tell_each_example_best_from_the_others(weights: torch.Tensor | None) -> None:
    count = (torch.ones(24) if weights is None else weights / weights.mean()).double()
    mean, wanted = (count[:, None] * FEATURES).mean(0), torch.eye(3).double()[LABELS]
    rows = FEATURES - mean
    rows = rows / (count[:, None] * rows**2).mean(0).sqrt()
    share, root = (count[:, None] * wanted).mean(0), count.sqrt()[:, None]
    rows, targets = root * rows, root * (wanted - share)
    found = []
    for strength in _STRENGTHS:
        penalty = strength * float(rows.square().sum(1).mean())
        others = torch.stack(
            [
                rows[one] / root[one] @ ridge(rows[rest], targets[rest], penalty)
                for one, rest in ((one, torch.arange(24) != one) for one in range(24))
            ]
        )
        for scale in _SCALES:
            losses = torch.nn.functional.cross_entropy(share.log() + scale * others, LABELS, reduction="none")
            found.append((float((losses * count).mean()), scale * rows / root @ ridge(rows, targets, penalty)))
    logits = share.log() + min(found, key=lambda of: of[0])[1]
    layer, bias = solve(FEATURES, LABELS, 3, weights)
    assert layer.shape == (3, 40) and torch.allclose(FEATURES.double() @ layer.T + bias, logits, atol=1e-6)
    assert (logits.argmax(1) == LABELS).float().mean() > 0.9


def test_what_says_nothing_and_a_class_without_examples_do_no_harm() -> None:
    features = torch.cat([FEATURES, torch.ones(24, 2)], dim=1)
    layer, bias = solve(features, LABELS, 4)
    assert layer.isfinite().all() and bias.isfinite().all()
    assert (features.double() @ layer.T + bias).argmax(1).max() == 2
    assert (solve(torch.ones(24, 5), LABELS, 3)[0] == 0).all(), "nothing can be told"
