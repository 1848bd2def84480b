"""How one text trunk is trained on tokenised documents, and written in the Hugging Face layout."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graftline.learning import distributed
from graftline.learning.device import compile_if_worth, device
from graftline.learning.loop import Run, linear
from graftline.learning.precision import arithmetic
from graftline.learning.randomness import generator
from graftline.text.batches import Batches
from graftline.text.tokenizer import save_tokenizer
from graftline.trunks import write_config
from graftline.trunks.text.documents import Documents
from graftline.trunks.text.language_modelling import TextObjective
from graftline.trunks.text.objectives import build_language_model
from graftline.trunks.text.parameters import TextObjectiveParams, TextParams
from graftline.trunks.text.rootstock import RootstockParams
from graftline.trunks.text.trunk import KIND, count_parameters, embedding_ids, save_model, training_flops
from graftline.trunks.training import Training, optimizers_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from graftline.tasks.pretrain import PretrainParams

BUDGET = "budget.json"
_LOOKS = 16
"""How often the held-out loss is measured in a run."""


@dataclass(frozen=True)
class Recipe:
    """One trunk to train."""

    name: str
    """Empty for the main trunk."""
    epochs: float
    build: Callable[[], PreTrainedModel]
    shape: TextParams | RootstockParams


def training(documents: Documents, params: PretrainParams, recipe: Recipe) -> Training:
    """Return the training of one trunk on the documents."""
    assert isinstance(params.objective, TextObjectiveParams)
    torch.manual_seed(params.seed)
    dtype = arithmetic(params.precision, narrow_on_cpu=params.objective.narrow_on_cpu)
    objective = build_language_model(recipe.build(), documents.tokenizer, dtype, params.objective).to(device())
    batches = Batches(documents.lengths[documents.train], params.batch_tokens, params.seed)
    steps = math.ceil(recipe.epochs * batches.per_epoch)
    compile_if_worth(objective.model.base_model, steps)
    look = HeldOut(objective, documents, max(1, math.ceil(steps / _LOOKS)), batches, params.batch_tokens)
    part = distributed.world()

    def loss(step: int) -> torch.Tensor:
        batch = documents.pack(documents.train[batches.documents(step)])
        return objective.loss(batch, generator(params.seed, step, "objective"), part)

    optimizers = optimizers_of(objective, params, embedding_ids(objective.model))
    run = Run(
        objective,
        optimizers,
        loss,
        steps,
        params.warmup_steps,
        watcher=look,
        schedule=lambda step: linear(step, steps, min(params.warmup_steps, steps)),
        rows=lambda step: documents.rows(documents.train[batches.documents(step)]),
        spike_factor=params.spike_factor,
        addends=True,
    )

    def write(folder: Path) -> dict[str, float]:
        look.finish(steps)
        figures = _write(folder, objective.model, documents, params, recipe, look)
        return {"documents": len(documents.train), "tokens": documents.tokens, **figures}

    return Training(run, batches.tokens, "tokens", write, recipe.name)


def _write(
    out: Path, model: PreTrainedModel, documents: Documents, params: PretrainParams, recipe: Recipe, look: HeldOut
) -> dict[str, float]:
    """Write a trunk folder with its budget; return the flat metrics."""
    out.mkdir(parents=True, exist_ok=True)
    save_model(model, out)
    save_tokenizer(documents.tokenizer, out)
    write_config(out, KIND, recipe.shape.model_dump(mode="json"), params.objective.model_dump(mode="json"))
    counts = count_parameters(model)
    seen, loss = look.curve[-1]
    budget: dict[str, Any] = {
        "parameters": counts["all"],
        "layer_parameters": counts["layers"],
        "tokens": seen,
        "flops": training_flops(model, seen, documents.mean_length),
        "held_out": look.curve,
    }
    (out / BUDGET).write_text(json.dumps(budget, indent=1) + "\n", encoding="utf-8")
    return {"tokens_trained": seen, "parameters": counts["all"], "held_out_loss": loss}


class HeldOut:
    """Measures the loss on the held-out documents now and then; stops nothing."""

    def __init__(
        self, objective: TextObjective, documents: Documents, every: int, batches: Batches, tokens: int
    ) -> None:
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
