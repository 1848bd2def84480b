"""Learn a trunk from unlabelled data: what its family prepares, trained one after the other."""

from __future__ import annotations

from graftline.component import Context
from graftline.dataset import read_schema
from graftline.environment import determinism
from graftline.learning.desk import open_desk
from graftline.learning.loop import train
from graftline.learning.randomness import seed_everything
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks import SIZES
from graftline.trunks.registry import family_for
from graftline.trunks.summary import summarise


def run(context: Context) -> None:
    """Fill `context.out` with the trunk, its configuration, its metrics and its pictures. Raises InputError."""
    params = context.section("pretrain", PretrainParams)
    schema = read_schema(context.paths["dataset"])
    family = family_for(params, schema, context.where)
    seed_everything(params.seed, context.threads)
    context.draft.environment = determinism(context.threads) | family.environment(params)
    found = []
    for training in family.prepare(context, params, schema):
        desk = open_desk(context, training.batch, training.unit, part=training.name)
        if training.run.steps:
            train(training.run, desk)
        else:  # a checkpoint that is taken as it is
            desk.metrics.parent.mkdir(parents=True, exist_ok=True)
            desk.metrics.write_bytes(b"")
        out = context.out / SIZES / training.name if training.name else context.out
        found.append((desk.metrics, training.write(out)))
    metrics, figures = found[0]
    summarise(context, metrics, figures, unit=params.objective.loss_unit)
