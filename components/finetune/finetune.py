"""Learn a head, and the trunk with it, from labelled data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from graftline.component import Context
from graftline.dataset import SCHEMA, read_schema
from graftline.environment import determinism
from graftline.errors import InputError
from graftline.learning.desk import open_desk
from graftline.learning.distributed import world
from graftline.learning.memory import keep_freed_memory
from graftline.learning.metrics import read_metrics
from graftline.learning.randomness import seed_everything
from graftline.plots import loss_curve
from graftline.privacy.accounting import Budget
from graftline.privacy.promise import write_promise
from graftline.privacy.units import read_units
from graftline.problems.fit import Data, Near, budget, fit, select
from graftline.problems.groups import read_groups
from graftline.problems.model import check_dataset, read_facts, save_model
from graftline.problems.problem import Examples
from graftline.problems.reading import alike, lost_tokens, read_examples
from graftline.problems.registry import make_problem
from graftline.problems.weighing import answer
from graftline.tasks.federated import ROUND, FederatedParams, round_of
from graftline.tasks.finetune import FinetuneParams


def run(context: Context) -> None:
    """Fill `context.out` with the model, what it is, its metrics and its training curve."""
    params = context.section("finetune", FinetuneParams)
    seed_everything(params.seed, context.threads)
    keep_freed_memory()
    dataset, trunk = context.paths["dataset"], context.paths["trunk"]
    near, number, rounds, told = None, 1, 1, {}
    if "start" in context.paths:
        params, near, number, rounds = _in_a_round(context, params)
        told = {ROUND: number}
    schema = read_schema(dataset)
    problem = make_problem(params.head, schema)
    problem.check(schema, dataset / SCHEMA)
    context.draft.environment = determinism(context.threads) | problem.environment(trunk)
    if params.privacy is not None:
        context.draft.environment["noise"] = params.privacy.noise
    labelled = read_examples(problem, dataset, "train", trunk)
    train = select(labelled, params.labels_per_class, len(schema.classes), params.seed)
    val = read_examples(problem, dataset, "val", trunk)
    # With few labels nothing is held out to stop early: a validation set would be labels by another name.
    held_out = val if params.labels_per_class is None else None
    unlabelled = read_examples(problem, dataset, "unlabelled", trunk) if params.joint_weight else None
    desk = open_desk(context, min(params.batch, len(train)), problem.plural)
    units = read_units(params.privacy, dataset, train.rows)
    data = Data(train, held_out, unlabelled, units, read_groups(dataset, "val"))
    promised = budget(params, data, rounds)
    model = fit(trunk, data, params, params.seed, schema, desk=desk, near=near)
    answers = answer(model, val)
    save_model(problem, model, schema, context.out)
    measured = {f"val_{answers.scores[0].name}": answers.value, **_as_read(problem.plural, labelled, val)}
    if promised is None:
        (context.out / "metrics.jsonl").write_bytes(desk.metrics.read_bytes())
    else:
        measured |= _promise(context, params, promised, desk.metrics, earlier=number - 1)
    _summarise(context, problem.loss_unit, {"examples": train.wholes, "val_examples": val.wholes, **measured, **told})


def _in_a_round(context: Context, params: FinetuneParams) -> tuple[FinetuneParams, Near, int, int]:
    """Return how a site fine-tunes in the round that begins with the model `start`, its number, and of how many."""
    start, federated = context.paths["start"], context.section("federated", FederatedParams)
    if context.shard:
        raise InputError("--shard", "a site's part in a federated round", fix="leave it out")
    check_dataset(read_facts(start), context.paths["dataset"], "the round's model")
    number = 1 + round_of(context.records["start"].metrics, start)
    return federated.at_a_site(params, number), Near(start, federated.mu or 0.0), number, federated.rounds


def _promise(
    context: Context, params: FinetuneParams, promised: Budget, metrics: Path, *, earlier: int
) -> dict[str, float]:
    """Write what the model promises, and the training's lines without the losses, which are of the rows as they are."""
    calibrates = params.head.holds_out is not None
    looked = [] if params.labels_per_class is not None else [
        what for what, is_so in (("early stopping", params.patience is not None), ("calibration", calibrates)) if is_so
    ]  # fmt: skip
    write_promise(promised, looked, context.out, chosen=params.labels_per_class is not None, earlier=earlier)
    lines = [{"step": line["step"], "learning_rate": line["learning_rate"]} for line in read_metrics(metrics)]
    (context.out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return promised.metrics()


def _as_read(plural: str, train: Examples, val: Examples) -> dict[str, float]:
    """Return, and say, how much of the examples the model does not see, and how many are to it as an earlier one."""
    found: dict[str, float] = {}
    lines = []
    for split, examples in (("train", train), ("val", val)):
        if lost := lost_tokens(examples):
            found |= lost.metrics(split)
            lines += [f"{split}: {lost.told(plural)}"] if lost.examples else []
    if same := alike(train):
        found |= same.metrics("train_alike")
        lines += [f"train: {same.told(plural, 'an earlier one')}"] if same.examples else []
    for line in lines if world().leads else ():
        print(line, file=sys.stderr)
    return found


def _summarise(context: Context, loss_unit: str, metrics: dict[str, float]) -> None:
    """Write metrics.json and the training curve, and put the figures into the record."""
    lines = read_metrics(context.out / "metrics.jsonl")
    metrics["steps"] = len(lines)
    context.draft.metrics = metrics
    (context.out / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if lines and "loss" in lines[0]:  # a head that was solved took no step; of a private one no loss is told
        loss_curve(lines, context.out / "curve.png", title="Fine-tuning loss", unit=loss_unit)
