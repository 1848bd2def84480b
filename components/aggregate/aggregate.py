"""Make a round's next model out of the sites' signed updates; before the first round, the model that it starts from."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from graftline.component import Context
from graftline.dataset import Schema, read_schema
from graftline.environment import determinism
from graftline.federated.account import Examined, Gathered, asked_of, examine
from graftline.federated.averaging import Weights, average
from graftline.federated.updates import RUN, START, UPDATE
from graftline.learning.randomness import seed_everything
from graftline.privacy.promise import read_promise, write_rounds_promise
from graftline.problems.fit import Data, training
from graftline.problems.groups import read_groups
from graftline.problems.model import FACTS, load_model, save_model
from graftline.problems.reading import read_examples
from graftline.problems.registry import make_problem
from graftline.problems.weighing import answer
from graftline.records.model import Dependency
from graftline.tasks.federated import ROUND, FederatedParams, round_of
from graftline.tasks.finetune import FinetuneParams

_OF_THE_MODEL_BEFORE = ("metrics.json", "record.json", "record.dsse.json", "execution.json")
"""Files that tell of how the model before was made."""


def run(context: Context) -> None:
    """Fill `context.out` with the model and the round's account.

    Raises:
        InputError: the inputs do not belong together.
        RefusalError: fewer updates than the quorum go in.
    """
    params = context.section("federated", FederatedParams)
    finetune = context.section("finetune", FinetuneParams)
    seed_everything(finetune.seed, context.threads)
    schema = read_schema(context.paths["dataset"])
    problem = make_problem(finetune.head, schema)
    context.draft.environment = determinism(context.threads) | problem.environment(context.paths["trunk"])
    account = (
        _average(context, params, finetune) if START in context.paths else _begin(context, params, finetune, schema)
    )
    account |= _measure(context, finetune, schema)
    context.draft.metrics = account
    (context.out / "metrics.json").write_text(json.dumps(account, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _begin(context: Context, params: FederatedParams, finetune: FinetuneParams, schema: Schema) -> dict[str, Any]:
    """Write the untrained model that all sites start from."""
    gathered = Gathered.read(context.paths["updates"])
    problem = make_problem(finetune.head, schema)
    train = read_examples(problem, context.paths["dataset"], "train", context.paths["trunk"])
    scratch = params.start == "scratch"
    plain = finetune.model_copy(update={"privacy": None})  # nothing is learned from the coordinator's rows
    model, _ = training(context.paths["trunk"], Data(train, None), plain, finetune.seed, schema, scratch=scratch)
    save_model(problem, model.eval(), schema, context.out)
    return {ROUND: gathered.number, "rows": 0, "updates": 0, "sites": [], "left_out": []}


def _average(context: Context, params: FederatedParams, finetune: FinetuneParams) -> dict[str, Any]:
    """Write the average of the updates that go in; return the round's account."""
    start, record = context.paths[START], context.records[START]
    number = round_of(record.metrics, start) + 1
    parameters = {name: context.draft.parameters[name] for name in ("finetune", "federated")}
    parameters[RUN] = Gathered.read(context.paths["updates"]).run
    examined = examine(context.paths["updates"], asked_of(start, record, number, parameters, params), params)
    for site, (rule, reason) in sorted(examined.left_out.items()):
        print(f"round {number}: {site} is left out: {rule}: {reason}", file=sys.stderr)
    examined.check_quorum(params.quorum)
    _copy_rest(start, context.out)
    shared = [(update.weights, examined.shares[update.site]) for update in examined.updates]
    average(Weights.of(start), shared, context.out)
    context.draft.dependencies += _dependencies(examined)
    account = examined.account()
    if finetune.privacy is not None:
        spent = [update.bound for update in examined.updates]
        account |= write_rounds_promise(read_promise(start), spent, finetune.privacy, context.out)
    return account


def _dependencies(examined: Examined) -> list[Dependency]:
    """Return what went in, for a trace: each update leads to the site's own record."""
    return [
        Dependency(
            f"{UPDATE}-{update.site}", update.record.content, update.record.sha256,
            annotations={"site": update.site, "rows": update.rows, "share": examined.shares[update.site]},
        )
        for update in examined.updates
    ]  # fmt: skip


def _copy_rest(start: Path, out: Path) -> None:
    """Copy what belongs to the model besides its weights, such as a tokenizer."""
    for path in sorted(start.rglob("*")):
        place = out / path.relative_to(start)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        elif path.suffix != ".safetensors" and path.name not in _OF_THE_MODEL_BEFORE:
            shutil.copyfile(path, place)


def _measure(context: Context, finetune: FinetuneParams, schema: Schema) -> dict[str, Any]:
    """Let the coordinator's val rows calibrate the model, as they would one that was fine-tuned here; return its score.

    Weights stay as they were averaged, byte by byte: of the calibrated model only head.json is taken.
    """
    problem = make_problem(finetune.head, schema)
    val = read_examples(problem, context.paths["dataset"], "val", context.paths["trunk"])
    model = load_model(context.out)
    model.calibrate(val, read_groups(context.paths["dataset"], "val"))
    answers = answer(model.eval(), val)
    aside = context.work / "calibrated"
    aside.mkdir(parents=True, exist_ok=True)
    save_model(problem, model, schema, aside)
    shutil.copyfile(aside / FACTS, context.out / FACTS)
    return {f"val_{answers.scores[0].name}": answers.value}
