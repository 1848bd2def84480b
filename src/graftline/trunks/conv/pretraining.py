"""Learn a trunk from unlabelled images."""

from __future__ import annotations

from pathlib import Path

import torch

from graftline.component import Context
from graftline.dataset import Schema, read_images
from graftline.durable import write_new
from graftline.environment import determinism
from graftline.learning.desk import open_desk
from graftline.learning.device import device
from graftline.learning.distributed import world
from graftline.learning.loop import Run, train
from graftline.learning.precision import arithmetic
from graftline.learning.randomness import batch_indices, seed_everything
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks import WEIGHTS, write_config
from graftline.trunks.conv.objectives import WEIGHTS as OBJECTIVE_WEIGHTS
from graftline.trunks.conv.objectives import build_objective
from graftline.trunks.conv.parameters import ConvParams
from graftline.trunks.conv.plots import reconstructions
from graftline.trunks.conv.reconstruction import Pictures, Reconstruction
from graftline.trunks.conv.trunk import KIND, ConvTrunk
from graftline.trunks.summary import summarise
from graftline.trunks.text.parameters import CausalLMParams, MaskedLMParams

_SHOWN = 10


def pretrain(context: Context, params: PretrainParams, schema: Schema) -> None:
    """Fill `context.out` with the trunk, its config, its metrics and its pictures."""
    seed_everything(params.seed, context.threads)
    context.draft.environment = determinism(context.threads) | {"dtype": _arithmetic(params)}
    pixels = torch.from_numpy(read_images(context.paths["dataset"], "unlabelled").pixels)
    objective, run = training(params, schema, pixels)
    desk = open_desk(context, params.batch)
    train(run, desk)
    write(context.out, params, objective)
    objective.eval()
    with torch.no_grad():
        examples = pixels[:: max(1, len(pixels) // _SHOWN)][:_SHOWN]
        pictures = (images.cpu() for images in objective.pictures(examples, params.seed, 0))
    reconstructions(Pictures(*pictures), context.out / "reconstructions.png")
    summarise(
        context, desk.metrics, {"images": len(pixels), "steps": run.steps}, unit="squared error a pixel"
    )


def training(params: PretrainParams, schema: Schema, pixels: torch.Tensor) -> tuple[Reconstruction, Run]:
    """Return the objective around a new trunk, and its training on (n, height, width) pixels from 0 to 1."""
    assert isinstance(params.trunk, ConvParams) and not isinstance(
        params.objective, MaskedLMParams | CausalLMParams
    )
    trunk, dtype = ConvTrunk(params.trunk, schema.image.shape), _arithmetic(params)
    objective = build_objective(trunk, params.objective, dtype).to(device())
    part = world()

    def loss(step: int) -> torch.Tensor:
        chosen = batch_indices(params.seed, step, params.batch, len(pixels))
        return objective.loss(pixels[chosen], params.seed, step, part)

    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    steps = steps_for(params, len(pixels))
    return objective, Run(objective, optimizer, loss, steps, params.warmup_steps, addends=True)


def _arithmetic(params: PretrainParams) -> str:
    return arithmetic(params.precision, narrow_on_cpu=False)


def steps_for(params: PretrainParams, images: int) -> int:
    """Return the steps of a pretraining on so many images."""
    return max(1, int(params.epochs * images / params.batch))


def write(out: Path, params: PretrainParams, objective: Reconstruction) -> None:
    """Write the trunk, what paints from it, and their configuration."""
    from safetensors.torch import save

    write_new(out / WEIGHTS, save(objective.trunk.state_dict()))
    write_new(out / OBJECTIVE_WEIGHTS, save(objective.decoder.state_dict()))
    write_config(out, KIND, objective.trunk.config(), params.objective.model_dump(mode="json"))
