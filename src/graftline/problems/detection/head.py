"""The dense head: of each place on an image which objects have their middle there, and what box and mask.

Maps of a trunk, from coarse to fine, are added up on one grid (feature pyramids: T.-Y. Lin et al., 2017,
arXiv:1612.03144). opening.py says in words what is computed, for those who have the weights and not this code.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from graftline.problems.detection.parameters import DetectionParams
from graftline.problems.detection.targets import Grid, Targets

GROUPS = 8
"""Of channels that are normalised together (Wu and He, 2018, arXiv:1803.08494); a batch is small."""
LAYERS = 2
BOX = 4
"""Numbers of a box: how far its middle is from the place, in strides, and the logarithm of its size over the usual."""
_RARE = 0.01
"""Probability at the start that an object is at a place: most have none (Lin et al., 2017, arXiv:1708.02002)."""
LARGEST = 6.0
"""Logarithm of how many times the usual size a box may be."""


@dataclass(frozen=True)
class Said:
    """What the head says of n images, in float32."""

    heat: torch.Tensor
    """(n, classes, rows, columns) logits that the middle of an object is there."""
    boxes: torch.Tensor
    """(n, 4, rows, columns) pixels."""
    weights: torch.Tensor
    """(n, prototypes, rows, columns): of which sum of prototypes an object's mask is the positive part."""
    prototypes: torch.Tensor
    """(n, prototypes, height, width); the weights' number is 0 where no masks are learned."""
    pieces: torch.Tensor | None = None
    """(c, prototypes, stride * stride): the prototypes at the places that were asked for, in place of whole ones."""

    def on(self, place: torch.device) -> Said:
        """Return it on a device."""
        given = (getattr(self, one.name) for one in fields(self))
        return Said(*(None if of is None else of.to(place) for of in given))  # type: ignore[arg-type]

    def logits(self, places: torch.Tensor, cells: torch.Tensor, stride: int) -> torch.Tensor:
        """Return (c, stride * stride) logits that the pixels in places of the grid are an object's.

        Args:
            places: (m, 3) image, row and column of each object.
            cells: (c, 3) object, row and column of each place that is asked about; of those `pieces` are, if any are.
            stride: pixels from one place to the next.
        """
        of, y, x = cells.T
        image, row, column = places.T
        pieces = self.pieces
        if pieces is None:
            rows, columns = self.heat.shape[2:]
            height, width = self.prototypes.shape[2:]
            whole = F.pad(self.prototypes, (0, columns * stride - width, 0, rows * stride - height))
            cut = whole.unflatten(3, (columns, stride)).unflatten(2, (rows, stride))
            pieces = cut[image[of], :, y, :, x].flatten(2)
        weights = self.weights[image, :, row, column].index_select(0, of)
        return (pieces * weights[:, :, None]).sum(dim=1)

    def masks(self, places: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of the masks of objects, (m, height, width), and (m, height, width) whether a pixel is in
        its box.

        Args:
            places: (m, 3) image, row and column of each.
            boxes: (m, 4) its box.
        """
        image, row, column = places.T
        logits = torch.einsum("mk,mkhw->mhw", self.weights[image, :, row, column], self.prototypes[image])
        y, x = (torch.arange(side, device=boxes.device) + 0.5 for side in logits.shape[1:])
        across = (x >= boxes[:, :1]) & (x <= boxes[:, 2:3])
        along = (y >= boxes[:, 1:2]) & (y <= boxes[:, 3:])
        return logits, along[:, :, None] & across[:, None]


class DenseHead(nn.Module):
    """Maps of a trunk to what is said of each place."""

    size: torch.Tensor
    """(2,) the usual width and height of a box, in pixels."""

    def __init__(self, channels: list[int], shape: tuple[int, int], classes: int, params: DetectionParams) -> None:
        """Build an untrained one, drawn from torch's global generator.

        Args:
            channels: of each map, the finest first.
            shape: height and width of the images.
            classes: of objects.
            params: its width, stride and prototypes.
        """
        super().__init__()
        self.grid, self.shape, self.classes = Grid.of(*shape, params.stride), shape, classes
        self.count = params.prototypes
        width, stride = params.width, params.stride
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(LAYERS))
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(LAYERS))
        self.output = nn.Conv2d(width, classes + BOX + params.prototypes, 1)
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)
        nn.init.constant_(self.output.bias[:classes], float(torch.logit(torch.tensor(_RARE))))
        self.prototypes = nn.Conv2d(width, params.prototypes * stride**2, 1) if params.prototypes else None
        self.register_buffer("size", torch.full((2,), 4.0 * stride))

    def forward(self, maps: list[torch.Tensor], places: torch.Tensor | None = None) -> Said:
        """Return what is said of the maps' images, with whole prototypes, or those at (c, 3) places: image, row and
        column. A loss reads them in objects' boxes alone, and they are most of what there is to say.
        """
        hidden = self._together(maps)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            hidden = F.gelu(norm(layer(hidden)))
        said = self.output(hidden).float().contiguous()  # channels first: what follows takes a few of them at a time
        heat, raw, weights = said.split([self.classes, BOX, self.count], dim=1)
        return Said(heat, self._boxes(raw), weights, *self._drawn(hidden, places))

    def _drawn(self, hidden: torch.Tensor, places: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the whole prototypes and None, or none and the pieces at the places; in float32."""
        height, width = self.shape
        none = hidden.new_zeros(len(hidden), 0, height, width, dtype=torch.float32)
        if self.prototypes is None:
            return none, None
        if places is None:
            whole = F.pixel_shuffle(self.prototypes(hidden), self.grid.stride)
            return whole[..., :height, :width].float(), None
        image, row, column = places.T
        flat = (image * self.grid.rows + row) * self.grid.columns + column
        seen = hidden.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, flat)  # (c, width)
        made = F.linear(seen, self.prototypes.weight.flatten(1), self.prototypes.bias)
        return none, made.unflatten(1, (self.count, -1)).float()

    def _together(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return (n, width, rows, columns) of all maps: from the coarsest on each is added to the ones before."""
        *finer, hidden = [layer(features) for layer, features in zip(self.lateral, maps, strict=True)]
        for features in reversed(finer):
            hidden = features + F.interpolate(hidden, features.shape[2:])
        size = self.grid.rows, self.grid.columns
        return hidden if hidden.shape[2:] == size else F.interpolate(hidden, size)

    def _boxes(self, raw: torch.Tensor) -> torch.Tensor:
        """Return (n, 4, rows, columns) boxes in pixels of what the last layer says of them."""
        y, x = (torch.from_numpy(middles).to(raw.device) for middles in self.grid.middles())
        middle_x, middle_y = x + raw[:, 0] * self.grid.stride, y[:, None] + raw[:, 1] * self.grid.stride
        half = raw[:, 2:].clamp(-LARGEST, LARGEST).exp() * (self.size / 2)[:, None, None]
        sides = (middle_x - half[:, 0], middle_y - half[:, 1], middle_x + half[:, 0], middle_y + half[:, 1])
        return torch.stack(sides, dim=1)


def losses(said: Said, wanted: Targets) -> torch.Tensor:
    """Return (n,) losses, each image's sum over its objects.

    The focal loss of H. Law and J. Deng, "CornerNet", 2018, arXiv:1808.01244, eq. 1, for the heat; 1 - GIoU
    (H. Rezatofighi et al., 2019, arXiv:1902.09630) for boxes, and cross entropy in the box, its mean, for masks.
    """
    found: torch.Tensor = Focal.apply(said.heat, wanted.heat, wanted.counted)  # type: ignore[no-untyped-call]
    image, row, column = wanted.places.T
    far = (1 - generalised_iou(said.boxes[image, :, row, column], wanted.boxes)) * wanted.shares
    found = found.index_add(0, image, 2 * far)
    if wanted.masks is not None:
        logits = said.logits(wanted.middles, wanted.masks.cells, wanted.masks.stride)
        each = F.binary_cross_entropy_with_logits(logits, wanted.masks.wanted, wanted.masks.shares, reduction="none")
        found = found.index_add(0, wanted.middles[wanted.masks.cells[:, 0], 0], each.sum(dim=1))
    return found


class Focal(torch.autograd.Function):
    """(n, classes, rows, columns) logits and what is wanted of them to (n,) sums over the places.

    The gradient is made with the loss: of so many small steps autograd would keep each one's numbers.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, heat: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        probability = logits.sigmoid()
        rest = 1 - probability
        of_there, of_rest = F.logsigmoid(logits), F.logsigmoid(-logits)
        there, up = heat == 1, rest.square()
        down = (1 - heat).square().square() * probability.square()
        sums = -(torch.where(there, up * of_there, down * of_rest) * counted).sum(dim=(1, 2, 3))
        slopes = torch.where(there, rest - 2 * probability * of_there, 2 * rest * of_rest - probability)
        ctx.save_for_backward(slopes * torch.where(there, up, down) * -counted)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient[:, None, None, None], None, None


def generalised_iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return (m,) the IoU of pairs of (m, 4) boxes, less the share of the box around both that neither fills."""

    def area(sides: torch.Tensor) -> torch.Tensor:
        return sides.clamp(min=0).prod(dim=1)

    common = area(torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2]))
    around = area(torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2]))
    both = area(one[:, 2:] - one[:, :2]) + area(other[:, 2:] - other[:, :2]) - common
    return common / both.clamp(min=1e-6) - (around - both) / around.clamp(min=1e-6)
