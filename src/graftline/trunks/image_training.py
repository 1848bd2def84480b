"""How a trunk of images is trained, whatever its family: batches, steps, and the pictures that are written of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import nn

from graftline.durable import write_new
from graftline.learning.distributed import World, world
from graftline.learning.loop import Run
from graftline.learning.precision import arithmetic
from graftline.learning.randomness import batch_indices
from graftline.plots import figure, save, show_image
from graftline.trunks.training import Training

if TYPE_CHECKING:
    from graftline.tasks.pretrain import PretrainParams

OBJECTIVE_WEIGHTS = "objective.safetensors"
"""In a trunk's folder: the decoder, so that a joint objective in fine-tuning goes on where pretraining ended."""
_SHOWN = 10


class Pictures(NamedTuple):
    """What goes in, what comes out and what should have come out: each (n, channels, height, width), 0 to 1."""

    shown: torch.Tensor
    painted: torch.Tensor
    original: torch.Tensor


class Painting(Protocol):
    """An objective that paints images: a torch module around a trunk."""

    @property
    def decoder(self) -> nn.Module: ...

    def loss(self, pixels: torch.Tensor, seed: int, step: int, part: World | None = None) -> torch.Tensor: ...

    def pictures(self, pixels: torch.Tensor, seed: int, step: int) -> Pictures: ...


def training(
    pixels: torch.Tensor,
    params: PretrainParams,
    objective: Painting,
    optimizers: list[torch.optim.Optimizer],
    write_trunk: Callable[[Path], None],
) -> Training:
    """Return the training of an objective on (n, channels, height, width) pixels from 0 to 1."""
    assert isinstance(objective, nn.Module)
    part, painting = world(), objective

    def loss(step: int) -> torch.Tensor:
        chosen = batch_indices(params.seed, step, params.batch, len(pixels))
        return painting.loss(pixels[chosen], params.seed, step, part)

    run = Run(objective, optimizers, loss, steps(params, len(pixels)), params.warmup_steps, addends=True)

    def write(folder: Path) -> dict[str, float]:
        write_trunk(folder)
        _write_objective(folder, painting, pixels[:: max(1, len(pixels) // _SHOWN)][:_SHOWN], params.seed)
        return {"images": len(pixels), "steps": run.steps}

    return Training(run, params.batch, "images", write)


def steps(params: PretrainParams, images: int) -> int:
    """Return the steps of a pretraining on so many images; none where a checkpoint is taken as it is."""
    return max(1, int(params.epochs * images / params.batch)) if params.epochs else 0


def chosen_arithmetic(params: PretrainParams) -> str:
    """Return the arithmetic of image trunks."""
    return arithmetic(params.precision, narrow_on_cpu=False)


def _write_objective(folder: Path, objective: Painting, examples: torch.Tensor, seed: int) -> None:
    from safetensors.torch import save as tensors

    assert isinstance(objective, nn.Module)
    write_new(folder / OBJECTIVE_WEIGHTS, tensors(objective.decoder.state_dict()))
    before = objective.training
    objective.eval()
    with torch.no_grad():
        pictures = (images.cpu() for images in objective.pictures(examples, seed, 0))
        _draw(Pictures(*pictures), folder / "reconstructions.png")
    objective.train(before)


def _draw(pictures: Pictures, path: Path) -> None:
    """Draw three rows of images: what the trunk saw, what was painted from it, and the original."""
    count = len(pictures.shown)
    plot = figure(0.7 * count, 2.6)
    grid = plot.subplots(3, count, squeeze=False)
    for row, (name, images) in enumerate(zip(("seen", "painted", "original"), pictures, strict=True)):
        for axes, image in zip(grid[row], images, strict=True):
            show_image(axes, image.numpy())
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
        grid[row][0].set_ylabel(name)
    save(plot, path)
