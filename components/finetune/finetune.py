"""Learn a head, and the trunk with it, from labelled images."""

from __future__ import annotations

import json

import torch

from graftline.component import Context
from graftline.components.finetune.fit import Data, Examples, fit, select
from graftline.components.finetune.model import probabilities, save_model
from graftline.components.finetune.params import FinetuneParams
from graftline.dataset import Images, read_images, read_schema
from graftline.environment import determinism
from graftline.plots import loss_curve
from graftline.training.desk import open_desk
from graftline.training.metrics import read_metrics
from graftline.training.randomness import seed_everything


def run(context: Context) -> None:
    """Fill `context.out` with the model, its config, its metrics and its training curve."""
    params = context.section("finetune", FinetuneParams)
    seed_everything(params.seed, context.threads)
    context.draft.environment = determinism(context.threads)
    dataset = context.paths["dataset"]
    schema = read_schema(dataset)
    count = len(schema.classes)
    labelled = as_examples(read_images(dataset, "train"))
    train = select(labelled, params.labels_per_class, count, params.seed)
    val = as_examples(read_images(dataset, "val"))
    # With few labels nothing is held out to stop early: a validation set would be labels by another name.
    held_out = val if params.labels_per_class is None else None
    unlabelled = torch.from_numpy(read_images(dataset, "unlabelled").pixels) if params.joint_weight else None
    desk = open_desk(context, min(params.batch, len(train)))
    model = fit(
        context.paths["trunk"], Data(train, held_out, unlabelled), params, params.seed, count, desk=desk
    )
    save_model(model, schema, context.out)
    (context.out / "metrics.jsonl").write_bytes(desk.metrics.read_bytes())
    right = probabilities(model, val.pixels).argmax(axis=1) == val.labels.numpy()
    _summarise(
        context, {"examples": len(train), "val_examples": len(val), "val_accuracy": float(right.mean())}
    )


def as_examples(images: Images) -> Examples:
    """Return labelled images as tensors."""
    assert images.labels is not None
    return Examples(torch.from_numpy(images.pixels), torch.from_numpy(images.labels))


def _summarise(context: Context, metrics: dict[str, float]) -> None:
    """Write metrics.json and the training curve, and put the figures into the record."""
    lines = read_metrics(context.out / "metrics.jsonl")
    metrics["steps"] = len(lines)
    context.draft.metrics = metrics
    (context.out / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    loss_curve(lines, context.out / "curve.png", title="Fine-tuning loss", unit="cross entropy")
