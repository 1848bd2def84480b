"""The cross entropy in chunks is the cross entropy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graftline.text.cross_entropy import CHUNK, IGNORED, chunked_cross_entropy


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
def test_value_and_gradients_are_those_of_the_whole_table(count: int, biased: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 50, bias=biased)
    hidden = torch.randn(count, 8, requires_grad=True)
    answers = torch.randint(50, (count,))
    answers[-(count // 3) :] = IGNORED if 3 <= count < CHUNK else answers[-(count // 3) :]
    inputs = [hidden, *layer.parameters()]
    expected = nn.functional.cross_entropy(layer(hidden), answers, reduction="sum", ignore_index=IGNORED)
    found = chunked_cross_entropy(hidden, layer.weight, layer.bias, answers)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-5)
    pairs = zip(torch.autograd.grad(3 * found, inputs), torch.autograd.grad(3 * expected, inputs), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_under_autocast_it_computes_in_bfloat16_and_sums_in_float32() -> None:
    torch.manual_seed(0)
    layer, hidden, answers = nn.Linear(8, 50), torch.randn(100, 8), torch.randint(50, (100,))
    exact = chunked_cross_entropy(hidden, layer.weight, layer.bias, answers)
    with torch.autocast("cpu", torch.bfloat16):
        rough = chunked_cross_entropy(hidden, layer.weight, layer.bias, answers)
    assert rough.dtype == torch.float32
    assert rough.item() != exact.item()
    torch.testing.assert_close(rough, exact, rtol=0.01, atol=0.0)


def test_it_keeps_no_gradient_where_none_is_wanted() -> None:
    layer = nn.Linear(8, 50)
    with torch.no_grad():
        assert not chunked_cross_entropy(torch.randn(4, 8), layer.weight, layer.bias, torch.arange(4)).requires_grad
