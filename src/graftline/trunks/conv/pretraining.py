"""Learn a trunk from unlabelled images."""

from __future__ import annotations

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
    assert isinstance(params.trunk, ConvParams) and not isinstance(
        params.objective, MaskedLMParams | CausalLMParams
    )
    seed_everything(params.seed, context.threads)
    dtype = arithmetic(params.precision, narrow_on_cpu=False)
    context.draft.environment = determinism(context.threads) | {"dtype": dtype}
    pixels = torch.from_numpy(read_images(context.paths["dataset"], "unlabelled").pixels)
    objective = build_objective(ConvTrunk(params.trunk, schema.image.shape), params.objective, dtype).to(
        device()
    )
    part = world()
    steps = max(1, int(params.epochs * len(pixels) / params.batch))

    def loss(step: int) -> torch.Tensor:
        chosen = batch_indices(params.seed, step, params.batch, len(pixels))
        return objective.loss(pixels[chosen], params.seed, step, part)

    desk = open_desk(context, params.batch)
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    train(Run(objective, optimizer, loss, steps, params.warmup_steps, addends=True), desk)
    _write(context, params, objective, pixels[:: max(1, len(pixels) // _SHOWN)][:_SHOWN])
    summarise(context, desk.metrics, {"images": len(pixels), "steps": steps}, unit="squared error a pixel")


def _write(
    context: Context, params: PretrainParams, objective: Reconstruction, examples: torch.Tensor
) -> None:
    from safetensors.torch import save

    write_new(context.out / WEIGHTS, save(objective.trunk.state_dict()))
    write_new(context.out / OBJECTIVE_WEIGHTS, save(objective.decoder.state_dict()))
    write_config(context.out, KIND, objective.trunk.config(), params.objective.model_dump(mode="json"))
    objective.eval()
    with torch.no_grad():
        seen = objective.pictures(examples, params.seed, 0)
    reconstructions(Pictures(*(images.cpu() for images in seen)), context.out / "reconstructions.png")
