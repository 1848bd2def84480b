"""Learn a trunk from text: tokenise once, train on packed documents, keep the trunk in Hugging Face layout."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graftline.component import Context
from graftline.dataset import Schema
from graftline.environment import determinism
from graftline.errors import InputError
from graftline.learning import distributed
from graftline.learning.desk import open_desk
from graftline.learning.device import compile_if_worth, device
from graftline.learning.loop import Run, linear, train
from graftline.learning.memory import keep_freed_memory
from graftline.learning.optimizers import build_optimizers
from graftline.learning.precision import arithmetic
from graftline.learning.randomness import generator, seed_everything
from graftline.records.model import ROOTSTOCK, Dependency
from graftline.tasks.pretrain import PretrainParams
from graftline.text.batches import Batches
from graftline.text.tokenizer import save_tokenizer
from graftline.trunks import write_config
from graftline.trunks.summary import summarise
from graftline.trunks.text.documents import Documents, open_documents
from graftline.trunks.text.language_modelling import LanguageModel
from graftline.trunks.text.objectives import build_language_model
from graftline.trunks.text.parameters import CausalLMParams, MaskedLMParams, TextParams
from graftline.trunks.text.rootstock import Rootstock, RootstockParams, check_loads, resolve
from graftline.trunks.text.trunk import (
    KIND,
    build_config,
    build_model,
    count_parameters,
    embedding_ids,
    load_model,
    quiet,
    save_model,
    training_flops,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BUDGET = "budget.json"
_LOOKS = 16
"""How often the held-out loss is measured in a run."""


@dataclass(frozen=True)
class _Recipe:
    """One trunk to train."""

    name: str
    """Empty for the main trunk."""
    epochs: float
    build: Callable[[], PreTrainedModel]
    shape: TextParams | RootstockParams


def pretrain(context: Context, params: PretrainParams, schema: Schema) -> None:
    """Fill `context.out` with the trunk, its tokenizer, its metrics and pictures, and the trunks to compare it with."""
    if params.sizes and distributed.world().size > 1:
        raise InputError(
            "torchrun", "pretrain.sizes, which are trained one after the other", expected="one trunk",
            fix="leave pretrain.sizes out, or start it without torchrun",
        )  # fmt: skip
    quiet()
    keep_freed_memory()
    seed_everything(params.seed, context.threads)
    dtype = arithmetic(params.precision)
    context.draft.environment = determinism(context.threads) | {"dtype": dtype}
    rootstock = _rootstock(context, params)
    documents = open_documents(context, params, schema, rootstock)
    decodes = isinstance(params.objective, CausalLMParams)
    assert isinstance(params.trunk, TextParams | RootstockParams)
    if isinstance(params.trunk, TextParams):
        build = _untrained(params.trunk, documents)
    else:
        assert rootstock is not None
        build = partial(load_model, rootstock.folder, decodes=decodes)
    main = _Recipe("", params.epochs, build, params.trunk)
    metrics = _train(context, params, documents, main, dtype, context.out)
    for name, size in params.sizes.items():
        shape = size.trunk.model_copy(update={"max_length": documents.max_length})
        recipe = _Recipe(name, size.epochs, _untrained(shape, documents), shape)
        _train(context, params, documents, recipe, dtype, context.out / "sizes" / name)
    counts = {"documents": len(documents.train), "tokens": documents.tokens, **metrics}
    summarise(context, context.work / "metrics.jsonl", counts, unit=LanguageModel.unit)


def _rootstock(context: Context, params: PretrainParams) -> Rootstock | None:
    """Return the checked checkpoint that the trunk starts from, recorded as a dependency; None for a new trunk."""
    if not isinstance(params.trunk, RootstockParams):
        return None
    found = resolve(params.trunk, where="pretrain.trunk")
    check_loads(found.folder)
    context.draft.dependencies.append(Dependency(ROOTSTOCK, found.digest, annotations=found.annotations()))
    return found


def _untrained(shape: TextParams, documents: Documents) -> Callable[[], PreTrainedModel]:
    config = build_config(shape, documents.tokenizer)
    return partial(build_model, config, decodes=shape.decodes)


def _train(
    context: Context, params: PretrainParams, documents: Documents, recipe: _Recipe, dtype: str, out: Path
) -> dict[str, float]:
    """Train one trunk, write it into `out`, return its figures."""
    torch.manual_seed(params.seed)
    made = training(params, documents, recipe.build(), recipe.epochs, dtype)
    desk = open_desk(context, made.batches.tokens, "tokens", part=recipe.name)
    if made.run.steps:
        train(made.run, desk)
    else:
        desk.metrics.parent.mkdir(parents=True, exist_ok=True)
        desk.metrics.write_bytes(b"")
    made.look.finish(made.run.steps)
    if not recipe.name:
        (context.work / "metrics.jsonl").write_bytes(desk.metrics.read_bytes())
    return _write(out, made.objective.model, documents, params, recipe, made.look)


@dataclass(frozen=True)
class Training:
    """The training of one trunk, and what it is made of."""

    run: Run
    objective: LanguageModel
    batches: Batches
    look: HeldOut


def training(
    params: PretrainParams, documents: Documents, model: PreTrainedModel, epochs: float, dtype: str
) -> Training:
    """Return the training of a model on documents."""
    assert isinstance(params.objective, MaskedLMParams | CausalLMParams)
    objective = build_language_model(model, documents.tokenizer, dtype, params.objective).to(device())
    batches = Batches(documents.lengths[documents.train], params.batch_tokens, params.seed)
    steps = math.ceil(epochs * batches.per_epoch)
    compile_if_worth(objective.model.base_model, steps)
    look = HeldOut(objective, documents, max(1, math.ceil(steps / _LOOKS)), batches, params.batch_tokens)
    part = distributed.world()

    def loss(step: int) -> torch.Tensor:
        batch = documents.pack(documents.train[batches.documents(step)])
        return objective.loss(batch, generator(params.seed, step, "objective"), part)

    optimizers = build_optimizers(
        objective.named_parameters(), name=params.optimizer, learning_rate=params.learning_rate,
        matrix_rate=params.matrix_rate, weight_decay=params.weight_decay,
        embeddings=embedding_ids(objective.model),
    )  # fmt: skip
    run = Run(
        objective, optimizers, loss, steps, params.warmup_steps, watcher=look,
        schedule=lambda step: linear(step, steps, min(params.warmup_steps, steps)),
        rows=lambda step: documents.rows(documents.train[batches.documents(step)]),
        spike_factor=params.spike_factor, addends=True,
    )  # fmt: skip
    return Training(run, objective, batches, look)


def _write(
    out: Path,
    model: PreTrainedModel,
    documents: Documents,
    params: PretrainParams,
    recipe: _Recipe,
    look: HeldOut,
) -> dict[str, float]:
    """Write a trunk folder with its budget; return the flat metrics."""
    out.mkdir(parents=True, exist_ok=True)
    save_model(model, out)
    save_tokenizer(documents.tokenizer, out)
    write_config(out, KIND, recipe.shape.model_dump(mode="json"), params.objective.model_dump(mode="json"))
    counts = count_parameters(model)
    seen, loss = look.curve[-1]
    budget: dict[str, Any] = {
        "parameters": counts["all"], "layer_parameters": counts["layers"], "tokens": seen,
        "flops": training_flops(model, seen, documents.mean_length), "held_out": look.curve,
    }  # fmt: skip
    (out / BUDGET).write_text(json.dumps(budget, indent=1) + "\n", encoding="utf-8")
    return {"tokens_trained": seen, "parameters": counts["all"], "held_out_loss": loss}


class HeldOut:
    """Measures the loss on the held-out documents now and then; stops nothing."""

    def __init__(
        self, objective: LanguageModel, documents: Documents, every: int, batches: Batches, tokens: int,
    ) -> None:  # fmt: skip
        """Look every `every` steps, at batches of about `tokens` tokens."""
        self._objective, self._every, self._batches = objective, every, batches
        self._held_out = documents.held_out_batches(tokens)
        self.curve: list[tuple[int, float]] = []
        """(tokens trained on, mean held-out loss in nats) at each look."""
        self._seen = 0

    def after_step(self, step: int) -> bool:
        self._seen += self._batches.tokens(step - 1)
        if step == 1 or step % self._every == 0:
            self._look()
        return False

    def finish(self, steps: int) -> None:
        """Look once more after the last step, unless there was a look."""
        if not self.curve or self.curve[-1][0] != self._seen:
            self._look()

    def _look(self) -> None:
        self.curve.append((self._seen, self._objective.held_out_loss(self._held_out)))

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return {}, {"curve": self.curve, "seen": self._seen}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        self.curve = [(int(tokens), float(loss)) for tokens, loss in facts["curve"]]
        self._seen = int(facts["seen"])
