"""Convolutions onto very small maps by products: what torch's own layer says, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graftline.learning.convolution import PLACES, Conv2d, multiply_small_maps


def passed(layer: nn.Conv2d, maps: torch.Tensor) -> list[torch.Tensor]:
    """Return a layer's maps, and the gradients of its input and weights for a loss that treats no place alike."""
    given = maps.clone().requires_grad_()
    out = layer(given)
    loss = (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
    return [out, *torch.autograd.grad(loss, [given, *layer.parameters()])]


@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding"),
    [
        (2, 2, 3, 1, 1),
        (4, 4, 3, 2, 1),
        (3, 1, 3, 1, 1),
        (1, 1, 2, 4, 4),
        (1, 1, 3, 1, 1),
        (4, 3, (3, 2), (1, 2), (0, 1)),
        (3, 2, 1, 2, 0),
        (3, 3, 2, 3, 1),
    ],
)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_product_gives_maps_and_gradients_of_torchs_layer(
    height: int, width: int, kernel: int, stride: int, padding: int, order: torch.memory_format
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, kernel, stride, padding)
    ours = Conv2d(5, 7, kernel, stride, padding)
    ours.load_state_dict(plain.state_dict())
    maps = torch.randn(3, 5, height, width).contiguous(memory_format=order)
    assert ours(maps)[0, 0].numel() <= PLACES
    for one, other in zip(passed(ours, maps), passed(plain, maps), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_larger_maps_and_narrow_arithmetic_go_through_torchs_layer_bit_by_bit() -> None:
    torch.manual_seed(0)
    ours = Conv2d(5, 7, 3, padding=1)
    for maps in (torch.randn(3, 5, 1, PLACES + 1), torch.randn(3, 5, 5, 1), torch.randn(3, 5, 3, 2)):
        assert torch.equal(ours(maps), nn.functional.conv2d(maps, ours.weight, ours.bias, padding=1))
    small = torch.randn(3, 5, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(small), nn.functional.conv2d(small, ours.weight, ours.bias, padding=1))


def test_a_map_too_small_for_the_kernel_is_refused_as_torch_does() -> None:
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        Conv2d(5, 7, 2)(torch.randn(3, 5, 1, 1))


def test_gradients_that_nobody_asks_for_are_not_made() -> None:
    ours, maps = Conv2d(5, 7, 3, padding=1), torch.randn(3, 5, 2, 2)
    ours(maps).sum().backward()
    assert ours.weight.grad is not None and maps.grad is None
    ours.requires_grad_(False)
    ours.weight.grad = None
    ours(given := maps.clone().requires_grad_()).sum().backward()
    assert ours.weight.grad is None and given.grad is not None and given.grad.any()


def test_only_plain_layers_of_many_channels_change() -> None:
    layers = {
        "plain": nn.Conv2d(128, 128, 3),
        "few channels": nn.Conv2d(64, 128, 3),
        "in groups": nn.Conv2d(128, 128, 3, groups=128),
        "dilated": nn.Conv2d(128, 128, 3, dilation=2),
        "padded by name": nn.Conv2d(128, 128, 3, padding="same"),
        "padded otherwise": nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
    }
    multiply_small_maps(nn.ModuleList(layers.values()))
    assert [name for name, layer in layers.items() if type(layer) is Conv2d] == ["plain"]
