"""Learn a trunk from unlabelled images."""

from __future__ import annotations

import torch

from graftline.component import Context
from graftline.dataset import Schema
from graftline.durable import write_new
from graftline.environment import determinism
from graftline.learning.desk import open_desk
from graftline.learning.loop import Run, train
from graftline.learning.randomness import batch_indices, seed_everything
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks import WEIGHTS, write_config
from graftline.trunks.conv.plots import reconstructions
from graftline.trunks.conv.reconstruction import Reconstruction
from graftline.trunks.conv.trunk import KIND, ConvTrunk
from graftline.trunks.objective_parameters import CausalLMParams, MaskedLMParams
from graftline.trunks.objectives import WEIGHTS as OBJECTIVE_WEIGHTS
from graftline.trunks.objectives import build_objective
from graftline.trunks.parameters import ConvParams
from graftline.trunks.summary import summarise
from graftline.values.splits import read_images

_SHOWN = 10


def pretrain(context: Context, params: PretrainParams, schema: Schema) -> None:
    """Fill `context.out` with the trunk, its config, its metrics and its pictures."""
    assert isinstance(params.trunk, ConvParams) and not isinstance(
        params.objective, MaskedLMParams | CausalLMParams
    )
    seed_everything(params.seed, context.threads)
    context.draft.environment = determinism(context.threads)
    pixels = torch.from_numpy(read_images(context.paths["dataset"], "unlabelled").pixels)
    objective = build_objective(ConvTrunk(params.trunk, schema.image.shape), params.objective)
    steps = max(1, int(params.epochs * len(pixels) / params.batch))

    def loss(step: int) -> torch.Tensor:
        chosen = batch_indices(params.seed, step, params.batch, len(pixels))
        return objective.loss(pixels[chosen], params.seed, step)

    desk = open_desk(context, params.batch)
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    train(Run(objective, optimizer, loss, steps, params.warmup_steps), desk)
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
        reconstructions(objective.pictures(examples, params.seed, 0), context.out / "reconstructions.png")
