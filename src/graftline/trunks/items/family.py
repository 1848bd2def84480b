"""Learn trunks of histories: count the items, hide some of each history, keep the trunk with its vocabulary."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from graftline.dataset import UNLABELLED, Schema, read_schema
from graftline.errors import InputError
from graftline.learning.device import compile_if_worth, device
from graftline.learning.distributed import world
from graftline.learning.loop import Run
from graftline.text.batches import Batches
from graftline.trunks import write_config
from graftline.trunks.items.objective import MaskedItems
from graftline.trunks.items.parameters import ItemsParams, MaskedItemsParams
from graftline.trunks.items.trunk import KIND, ItemTrunk
from graftline.trunks.items.vocabulary import Vocabulary, build_vocabulary
from graftline.trunks.training import Family, Planned, Training, optimizers_of
from graftline.values.items import ItemsColumn, open_catalogue
from graftline.values.splits import read_histories

if TYPE_CHECKING:
    from graftline.component import Context
    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams


class Items(Family):
    plural: ClassVar[str] = "histories"

    sees: ClassVar = (ItemsColumn,)

    narrow_on_cpu: ClassVar = False  # batches differ in shape, and products are small

    def prepare(self, context: Context, params: PretrainParams, schema: Schema) -> Iterator[Training]:
        yield training(context.paths["dataset"], params)

    def plan(self, sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
        made = training(sample.folder, params)
        made.write(trunk)
        assert callable(made.batch)
        items = float(np.mean([made.batch(step) for step in range(made.run.steps)]))
        histories = len(made.run.rows(0)) if made.run.rows else 1
        steps = math.ceil(params.epochs * sample.rows[UNLABELLED] / histories)
        yield Planned(made, histories, items, steps, histories)


def training(dataset: Path, params: PretrainParams) -> Training:
    """Return the training of a trunk on the pool of a dataset. Raises InputError."""
    assert isinstance(params.trunk, ItemsParams) and isinstance(params.objective, MaskedItemsParams)
    column = read_schema(dataset).only(ItemsColumn)
    pool = read_histories(dataset, UNLABELLED)
    catalogue, where = open_catalogue(dataset, column.name), dataset / f"{UNLABELLED}.parquet"
    vocabulary = build_vocabulary(
        pool.items, catalogue, where,
        min_users=params.trunk.min_users, words=params.trunk.words, ordered=column.ordered,
    )  # fmt: skip
    histories, rows = _encoded(pool.items, pool.rows, vocabulary, where)
    torch.manual_seed(params.seed)
    trunk = ItemTrunk(params.trunk, vocabulary)
    objective = MaskedItems(trunk, params.objective, FAMILY.arithmetic(params)).to(device())
    batches = Batches(np.array([len(history) for history in histories]), params.batch_tokens, params.seed)
    steps = max(1, math.ceil(params.epochs * batches.per_epoch))
    compile_if_worth(trunk.base, steps)
    part = world()

    def loss(step: int) -> torch.Tensor:
        return objective.loss([histories[n] for n in batches.documents(step)], params.seed, step, part)

    tables = {
        id(table.weight) for table in (trunk.base.embeddings.tok_embeddings, trunk.words, trunk.word_bias) if table
    }
    optimizers = optimizers_of(objective, params, tables)
    run = Run(
        objective, optimizers, loss, steps, params.warmup_steps,
        rows=lambda step: rows[batches.documents(step)].tolist(), addends=True,
    )  # fmt: skip

    def write(folder: Path) -> dict[str, float]:
        folder.mkdir(parents=True, exist_ok=True)
        trunk.save(folder)
        write_config(folder, KIND, params.trunk.model_dump(mode="json"), params.objective.model_dump(mode="json"))
        known = int(vocabulary.own.sum())
        told = {"items": known, "items_by_words": len(vocabulary) - known}
        return {"histories": len(histories), "interactions": sum(map(len, histories)), **told, "steps": steps}

    return Training(run, batches.tokens, "items", write)


def _encoded(
    items: list[list[str]], rows: np.ndarray, vocabulary: Vocabulary, where: Path
) -> tuple[list[torch.Tensor], np.ndarray]:
    """Return the histories as numbers, and their rows; say how many have too few items that are known."""
    numbers = [vocabulary.known(history) for history in items]
    kept = [place for place, history in enumerate(numbers) if len(history) > 1]
    if len(kept) < len(numbers):
        print(f"items: {len(numbers) - len(kept):,} histories have fewer than two known items", file=sys.stderr)
    if not kept:
        raise InputError(where, "no history with two known items", expected="some", fix="lower trunk.min_users")
    return [torch.tensor(numbers[place]) for place in kept], rows[kept]


FAMILY = Items()
