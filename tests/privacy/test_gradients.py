"""The gradient of each unit of privacy: against one backward pass for each, and within its bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from graftline.errors import InputError
from graftline.learning.convolution import Conv2d
from graftline.privacy.gradients import UnitGradients
from graftline.trunks.conv.parameters import ConvParams
from graftline.trunks.conv.trunk import ConvTrunk

TOLERANCE = 1e-6
"""Of numbers up to 1; of larger ones relative to the largest."""
Losses = Callable[[nn.Module, torch.Tensor], torch.Tensor]
"""Of a model and (k,) rows, each row's own loss (k,)."""


def conv() -> tuple[nn.Module, Losses]:
    trunk = ConvTrunk(ConvParams(channels=(3, 4, 4), width=8), (8, 8))
    for layer in trunk.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    model, pixels, labels = nn.Sequential(trunk, nn.Linear(8, 5)).eval(), torch.rand(6, 1, 8, 8), torch.arange(6) % 5
    return model, lambda of, rows: nn.functional.cross_entropy(of(pixels[rows]), labels[rows], reduction="none")


def small_maps() -> tuple[nn.Module, Losses]:
    """Convolutions onto few places, which are products (graftline.learning.convolution)."""
    layers = Conv2d(3, 4, 3, padding=1), nn.ReLU(), Conv2d(4, 2, 2, bias=False), nn.Flatten()
    model, pixels, labels = nn.Sequential(*layers, nn.Linear(2, 5)), torch.rand(6, 3, 2, 2), torch.arange(6) % 5
    return model, lambda of, rows: nn.functional.cross_entropy(of(pixels[rows]), labels[rows], reduction="none")


def text(name: str, **settings: Any) -> tuple[nn.Module, Losses]:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = AutoConfig.for_model(
        name,
        **shape,
        vocab_size=20,
        max_position_embeddings=12,
        num_labels=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
        **settings,
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    lengths, labels = torch.tensor([3, 7, 5, 7, 2, 6]), torch.arange(6) % 3
    mask = (torch.arange(7) < lengths[:, None]).long()
    ids = torch.randint(1, 20, (6, 7)) * mask

    def losses(of: Any, rows: torch.Tensor) -> torch.Tensor:
        logits = of(input_ids=ids[rows], attention_mask=mask[rows]).logits
        return nn.functional.cross_entropy(logits, labels[rows], reduction="none")

    return model, losses


def modernbert() -> tuple[nn.Module, Losses]:
    return text("modernbert", layer_types=["full_attention"] * 2, classifier_pooling="mean", cls_token_id=1)


def bert() -> tuple[nn.Module, Losses]:
    return text("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def one_by_one(model: nn.Module, losses: Losses, rows: list[int]) -> list[torch.Tensor]:
    """Return the mean gradient of rows, by torch alone."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return list(torch.autograd.grad(losses(model, torch.tensor(rows)).mean(), weights))


def norm(gradients: list[torch.Tensor]) -> float:
    return float(torch.stack([part.square().sum() for part in gradients]).sum().sqrt())


def run(gradients: UnitGradients, model: nn.Module, losses: Losses, passes: list[list[int]], units: list[int]) -> None:
    """Go backward through the mean loss of all rows, in passes."""
    count = sum(map(len, passes))
    shares = 1 / torch.tensor(units).bincount()
    total = torch.zeros((), requires_grad=True)
    for rows in passes:
        of = torch.tensor(units)[rows]
        with gradients.rows(of, count * shares[of]):
            total = total + losses(model, torch.tensor(rows)).sum() / count
    total.backward()


@pytest.mark.parametrize("make", [conv, small_maps, modernbert, bert])
@pytest.mark.parametrize("units", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 0, 2, 1]])
def test_clipped_gradients_are_those_of_one_backward_pass_for_each_unit(
    make: Callable[[], tuple[nn.Module, Losses]], units: list[int]
) -> None:
    torch.manual_seed(3)
    model, losses = make()
    members = [[row for row, unit in enumerate(units) if unit == number] for number in range(max(units) + 1)]
    each = [one_by_one(model, losses, rows) for rows in members]
    norms = sorted(map(norm, each))
    most = norms[len(norms) // 2]  # so that some are clipped and some are not
    gradients = UnitGradients(model)
    passes = [[1, 3, 5], [0, 2, 4]] if len(each) == 6 else [list(range(6))]
    run(gradients, model, losses, passes, units)
    found = gradients.clip(len(each), most)
    assert torch.allclose(found, torch.tensor([norm(of) for of in each]), atol=TOLERANCE, rtol=1e-5)
    for number, parameter in enumerate(gradients.parameters):
        wanted = torch.stack([of[number] * min(1.0, most / norm(of)) for of in each]).sum(0)
        assert parameter.grad is not None
        assert (parameter.grad - wanted).abs().max() < TOLERANCE * max(1.0, float(wanted.abs().max()))


def test_all_rows_of_a_subject_move_the_sum_by_no_more_than_the_bound() -> None:
    torch.manual_seed(0)
    model, losses = modernbert()
    gradients, most = UnitGradients(model), 0.01
    sums = []
    for units, rows in (([0, 1, 1, 1, 1, 1], list(range(6))), ([0], [0])):
        run(gradients, model, losses, [rows], units)
        assert float(gradients.clip(max(units) + 1, most).min()) > most, "both would be larger"
        sums.append([parameter.grad for parameter in gradients.parameters])
    assert norm([a - b for a, b in zip(*sums, strict=True)]) <= most * (1 + 1e-5)


def test_a_frozen_trunk_leaves_the_head_alone_to_be_clipped() -> None:
    torch.manual_seed(0)
    model, losses = bert()
    head = model.classifier
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in head.parameters():
        parameter.requires_grad_(True)
    each = [one_by_one(model, losses, [row]) for row in range(6)]
    gradients = UnitGradients(model)
    assert gradients.parameters == list(head.parameters())
    run(gradients, model, losses, [list(range(6))], list(range(6)))
    assert torch.allclose(gradients.clip(6, 1e9), torch.tensor([norm(of) for of in each]), atol=TOLERANCE)


def test_a_layer_whose_rows_cannot_be_told_apart_is_refused_by_name() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))

    with pytest.raises(InputError, match=r"1 is of the kind Odd: its gradient is not known row by row.*freeze_trunk"):
        UnitGradients(nn.Sequential(nn.Linear(3, 3), Odd()))
    shared = nn.Linear(3, 3)
    with pytest.raises(InputError, match="used twice"):
        model = nn.Sequential(shared, shared)
        gradients = UnitGradients(model)
        with gradients.rows(torch.arange(2), torch.ones(2)):
            model(torch.ones(2, 3))
    with pytest.raises(InputError, match="sees 4 parts of 2 rows"):
        model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(3, 3))
        gradients = UnitGradients(model)
        with gradients.rows(torch.arange(2), torch.ones(2)):
            model(torch.ones(2, 2, 3))
