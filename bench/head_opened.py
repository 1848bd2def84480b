"""A released detector as somebody opens it who has its files and not Graftline, and learns on with it.

The trunk is what transformers' AutoModel makes of the folder; the head is PyTorch's own layers, as the folder's HEAD.md
tells them. Pictures go in as PyTorch has them by default, channels first. Of the losses, those of heat and boxes are
Graftline's own code. Masks are learned as YOLACT's code does it (https://github.com/dbolya/yolact,
layers/modules/multibox_loss.py, lincomb_mask_loss): image by image all pixels of all objects; those outside the box
are then dropped.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from graftline.problems.detection.head import LARGEST, Said
from graftline.problems.detection.model import Detector
from graftline.problems.detection.targets import Targets
from graftline.trunks.vision.trunk import VisionTrunk

BOX, GROUPS = 4, 8


class Opened(nn.Module):
    """Pictures to what is said of them."""

    size: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, folder: Path, model: Detector) -> None:
        """Open the files in a folder; of `model`, which wrote them, sizes are taken that HEAD.md and head.json tell."""
        from safetensors.torch import load_file
        from transformers import AutoModel

        super().__init__()
        weights = load_file(folder / "head.safetensors")
        self.network = AutoModel.from_pretrained(folder, local_files_only=True)
        self.grid, self.classes, self.shape = model.head.grid, model.head.classes, model.head.shape
        wide = [weights[f"lateral.{n}.weight"].shape[:2] for n in range(len(model.head.lateral))]
        width = wide[0][0]
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for _, channels in wide)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(2))
        self.output = nn.Conv2d(width, len(weights["output.bias"]), 1)
        self.prototypes = nn.Conv2d(width, len(weights["prototypes.bias"]), 1)
        self.register_buffer("size", weights["size"])
        self.load_state_dict(weights, strict=False)
        assert isinstance(model.trunk, VisionTrunk)
        self.register_buffer("mean", model.trunk.mean)
        self.register_buffer("deviation", model.trunk.deviation)

    def forward(self, pixels: torch.Tensor) -> Said:
        found = self.network((pixels - self.mean) / self.deviation, output_hidden_states=True)
        maps = list({of.shape[2:]: of for of in [*found.hidden_states, found.last_hidden_state]}.values())
        *finer, hidden = [layer(of) for layer, of in zip(self.lateral, maps[-len(self.lateral) :], strict=True)]
        for of in reversed(finer):
            hidden = of + F.interpolate(hidden, of.shape[2:])
        size = self.grid.rows, self.grid.columns
        hidden = hidden if hidden.shape[2:] == size else F.interpolate(hidden, size)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            hidden = F.gelu(norm(layer(hidden)))
        said = self.output(hidden)
        heat, numbers, weights = (
            said[:, : self.classes],
            said[:, self.classes :][:, :BOX],
            said[:, self.classes + BOX :],
        )
        stride = self.grid.stride
        y, x = (torch.from_numpy(middles) for middles in self.grid.middles())
        x, y = x + numbers[:, 0] * stride, y[:, None] + numbers[:, 1] * stride
        half = numbers[:, 2:].clamp(-LARGEST, LARGEST).exp() * (self.size / 2)[:, None, None]
        boxes = torch.stack([x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]], dim=1)
        drawn = F.pixel_shuffle(self.prototypes(hidden), stride)[..., : self.shape[0], : self.shape[1]]
        return Said(heat, boxes, weights, drawn)


def opened(model: Detector) -> Opened:
    """Return what others open of a model, with the same weights."""
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        model.save(Path(folder))
        return Opened(Path(folder), model)


def whole_masks(said: Said, wanted: Targets, masks: torch.Tensor) -> torch.Tensor:
    """Return the loss of all objects' masks, (m, height, width), each over its box."""
    height, width = masks.shape[1:]
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    total = said.heat.new_zeros(())
    for image, drawn in enumerate(said.prototypes):
        mine = wanted.middles[:, 0] == image
        if not mine.any():
            continue
        _, row, column = wanted.middles[mine].T
        logits = drawn.permute(1, 2, 0) @ said.weights[image][:, row, column]  # (height, width, objects)
        x0, y0, x1, y1 = wanted.outlines[mine].T
        inside = ((y[:, None] >= y0) & (y[:, None] <= y1))[:, None] & ((x[:, None] >= x0) & (x[:, None] <= x1))
        each = F.binary_cross_entropy_with_logits(logits, masks[mine].permute(1, 2, 0), reduction="none")
        total = total + ((each * inside).sum(dim=(0, 1)) / inside.sum(dim=(0, 1)).clamp(min=1)).sum()
    return total
