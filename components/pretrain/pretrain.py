"""Learn a trunk from unlabelled images."""

from __future__ import annotations

import json

import torch

from graftline.component import Context
from graftline.components.pretrain.objectives import WEIGHTS as OBJECTIVE_WEIGHTS
from graftline.components.pretrain.objectives import build_objective
from graftline.components.pretrain.objectives.reconstruction import Reconstruction
from graftline.components.pretrain.params import PretrainParams
from graftline.components.pretrain.plots import reconstructions
from graftline.dataset import read_images, read_schema
from graftline.durable import write_new
from graftline.environment import determinism
from graftline.plots import loss_curve
from graftline.training.desk import open_desk
from graftline.training.loop import Run, train
from graftline.training.metrics import read_metrics
from graftline.training.randomness import batch_indices, seed_everything
from graftline.trunks import CONFIG, WEIGHTS
from graftline.trunks.conv import ConvTrunk

_SHOWN = 10
_LAST_STEPS = 100


def run(context: Context) -> None:
    """Fill `context.out` with the trunk, its config, its metrics and its pictures."""
    params = context.section("pretrain", PretrainParams)
    seed_everything(params.seed, context.threads)
    context.draft.environment = determinism(context.threads)
    schema = read_schema(context.paths["dataset"])
    pixels = torch.from_numpy(read_images(context.paths["dataset"], "unlabelled").pixels)
    objective = build_objective(ConvTrunk(params.trunk, schema.image.shape), params.objective)
    steps = max(1, params.epochs * len(pixels) // params.batch)

    def loss(step: int) -> torch.Tensor:
        chosen = batch_indices(params.seed, step, params.batch, len(pixels))
        return objective.loss(pixels[chosen], params.seed, step)

    desk = open_desk(context, params.batch)
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    train(Run(objective, optimizer, loss, steps, params.warmup_steps), desk)
    _write(context, params, objective, pixels[:: max(1, len(pixels) // _SHOWN)][:_SHOWN])
    (context.out / "metrics.jsonl").write_bytes(desk.metrics.read_bytes())
    _summarise(context, len(pixels), steps)


def _write(
    context: Context, params: PretrainParams, objective: Reconstruction, examples: torch.Tensor
) -> None:
    from safetensors.torch import save

    write_new(context.out / WEIGHTS, save(objective.trunk.state_dict()))
    write_new(context.out / OBJECTIVE_WEIGHTS, save(objective.decoder.state_dict()))
    config = {"trunk": objective.trunk.config(), "objective": params.objective.model_dump(mode="json")}
    (context.out / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    objective.eval()
    with torch.no_grad():
        reconstructions(objective.pictures(examples, params.seed, 0), context.out / "reconstructions.png")


def _summarise(context: Context, images: int, steps: int) -> None:
    """Write metrics.json and the loss curve, and put the figures into the record."""
    lines = read_metrics(context.out / "metrics.jsonl")
    last = [line["loss"] for line in lines[-_LAST_STEPS:]]
    metrics = {"images": images, "steps": steps, "final_loss": sum(last) / len(last)}
    context.draft.metrics = metrics
    (context.out / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    loss_curve(
        lines, context.out / "loss.png", title="Pretraining loss", unit="squared error a pixel", log=True
    )
