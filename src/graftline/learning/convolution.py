"""Convolutions onto very small maps: a matrix product for each place of the map.

A window that reaches over the edge sees padding, and oneDNN multiplies with it: of the nine products over a map of 2 by
2 only four are of pixels. It also works row by row, in blocks that so short a row leaves nearly empty. Together that is
50 of the 130 GFLOP/s that a matrix product reaches on the same processor, one thread. Here a window ends at the edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

PLACES = 4
"""Of a map, up to which the products are faster."""
_LEAST = 128
"""Channels, in and out, from which they are."""


class _Window(NamedTuple):
    """What a place of the map is made of."""

    row: int
    column: int
    seen: tuple[slice, slice]
    """Rows and columns of the input that are inside it."""
    weights: tuple[slice, slice]
    """Rows and columns of the kernel that meet them."""


class Conv2d(nn.Conv2d):
    """torch's layer, but onto very small maps, on a CPU, in float32."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows, columns = ([*_windows(axis, input.shape[2 + axis], self)] for axis in (0, 1))
        # with no place at all, torch's layer says what is wrong
        if not 0 < len(rows) * len(columns) <= PLACES or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        windows = [
            _Window(row, column, (down, right), (above, left))
            for row, (down, above) in enumerate(rows)
            for column, (right, left) in enumerate(columns)
        ]
        found: torch.Tensor = _Products.apply(input, self.weight, windows)  # type: ignore[no-untyped-call]
        return found if self.bias is None else found + self.bias[:, None, None]


def multiply_small_maps(network: nn.Module) -> None:
    """Let a network's convolutions that may make small maps be such layers."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _fits(module):
            module.__class__ = Conv2d


def _fits(layer: nn.Conv2d) -> bool:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    wide = min(layer.in_channels, layer.out_channels) >= _LEAST
    return plain and wide and not isinstance(layer.padding, str)


def _windows(axis: int, side: int, layer: nn.Conv2d) -> Iterator[tuple[slice, slice]]:
    """Yield, for each place along an axis, what its window sees of the input and which part of the kernel that meets.

    It ends after more places than are asked for.
    """
    kernel, stride, padding = layer.kernel_size[axis], layer.stride[axis], int(layer.padding[axis])
    places = (side + 2 * padding - kernel) // stride + 1
    for place in range(min(places, PLACES + 1)):
        first = place * stride - padding
        start = max(0, first)
        end = max(start, min(side, first + kernel))
        yield slice(start, end), slice(start - first, end - first)


class _Products(torch.autograd.Function):
    """Maps and a kernel to maps, with the windows of all places."""

    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, kernel: torch.Tensor, windows: list[_Window]) -> torch.Tensor:
        pixels = maps.permute(0, 2, 3, 1)  # (n, height, width, channels)
        table = kernel.permute(0, 2, 3, 1).contiguous()  # (out, height, width, channels)
        last = windows[-1]
        made = maps.new_empty(len(maps), last.row + 1, last.column + 1, len(kernel))
        for one in windows:
            made[:, one.row, one.column] = pixels[:, *one.seen].flatten(1) @ table[:, *one.weights].flatten(1).T
        ctx.save_for_backward(pixels, table)
        ctx.windows = windows
        return made.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        pixels, table = ctx.saved_tensors
        wants_pixels, wants_table, _ = ctx.needs_input_grad
        of_pixels = torch.zeros_like(pixels, memory_format=torch.contiguous_format)
        of_table = torch.zeros_like(table)
        for one in ctx.windows:
            of_place = gradient[:, :, one.row, one.column]  # (n, out)
            seen, weights = pixels[:, *one.seen], table[:, *one.weights]
            if wants_pixels:
                of_pixels[:, *one.seen] += (of_place @ weights.flatten(1)).view(seen.shape)
            if wants_table:
                of_table[:, *one.weights] += (of_place.T @ seen.flatten(1)).view(weights.shape)
        return (
            of_pixels.permute(0, 3, 1, 2) if wants_pixels else None,
            of_table.permute(0, 3, 1, 2) if wants_table else None,
            None,
        )
