"""Graftline's side: its training as the components run it, and its loop with the Trainer's recipe."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from bench.text_data import BATCH_TOKENS, Data
from bench.text_trainer import AfterStep, Recipe
from graftline.dataset import Schema
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.loop import Desk, Run, linear, train
from graftline.learning.optimizers import build_optimizers
from graftline.learning.parameters import Precision
from graftline.learning.randomness import generator
from graftline.problems.documents import Documents as Labelled
from graftline.problems.fit import Data as Examples
from graftline.problems.fit import fit
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.tasks.finetune import FinetuneParams
from graftline.text.batches import Batches
from graftline.text.tokenizer import save_tokenizer
from graftline.trunks import write_config
from graftline.trunks.text.language_modelling import LanguageModel
from graftline.trunks.text.objectives import build_language_model
from graftline.trunks.text.parameters import CausalLMParams, MaskedLMParams
from graftline.trunks.text.trunk import KIND, embedding_ids, save_model
from graftline.values.text import TextColumn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Rates:
    """An optimizer and its peak learning rates."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    rate: float = 2e-3
    matrix_rate: float = 0.02
    weight_decay: float = 0.05
    warmup: int = 50
    """Steps of linear warm-up."""


class _After:
    """A watcher that does nothing but call a function with the size of each step."""

    def __init__(self, after_step: AfterStep, size: Callable[[int], int]) -> None:
        self._after_step, self._size = after_step, size

    def after_step(self, step: int) -> bool:
        self._after_step(self._size(step - 1))
        return False

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return {}, {}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        pass


def language_model(
    data: Data, dtype: str, *, seed: int = 0, params: MaskedLMParams | CausalLMParams | None = None
) -> LanguageModel:
    """Return the objective around an untrained model: by default the one that fits the shape, at its defaults."""
    if params is None:
        params = CausalLMParams() if data.params.decodes else MaskedLMParams()
    made = build_language_model(data.model(dropout=False, seed=seed), data.tokenizer(), dtype, params)
    assert isinstance(made, LanguageModel)
    return made


def pretraining_run(
    objective: LanguageModel, data: Data, *, steps: int | None, rates: Rates, after_step: AfterStep, seed: int = 0
) -> Run:
    """Return a run of what the component `pretrain` does, on the glosses; `steps` None for an epoch."""
    documents = data.documents()
    batches = Batches(documents.lengths[documents.train], BATCH_TOKENS, seed)
    total = batches.per_epoch if steps is None else steps

    def loss(step: int) -> torch.Tensor:
        batch = documents.pack(documents.train[batches.documents(step)])
        return objective.loss(batch, generator(seed, step, "objective"))

    optimizers = build_optimizers(
        objective.named_parameters(),
        name=rates.optimizer,
        learning_rate=rates.rate,
        matrix_rate=rates.matrix_rate,
        weight_decay=rates.weight_decay,
        embeddings=embedding_ids(objective.model),
    )
    warmup = min(rates.warmup, total)
    return Run(
        objective, optimizers, loss, total, warmup, watcher=_After(after_step, batches.tokens),
        schedule=lambda step: linear(step, total, warmup), spike_factor=20.0, addends=True,
    )  # fmt: skip


def control_run(recipe: Recipe, *, batch: int, steps: int, after_step: AfterStep) -> Run:
    """Return a run of the Trainer's recipe by Graftline's loop: the same batches, model, optimizer and clipping."""
    model, count = recipe.model, len(recipe.examples)

    def loss(step: int) -> torch.Tensor:
        chosen = torch.randint(count, (batch,), generator=generator(0, step, "batch"))
        found: torch.Tensor = model(**recipe.collate([recipe.examples[int(n)] for n in chosen])).loss
        return found

    decayed = [{"params": list(model.parameters()), "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decayed, lr=5e-5, fused=True)
    watcher = _After(after_step, lambda step: recipe.collate.waiting.popleft())
    model.train()
    return Run(
        model, optimizer, loss, steps, 0, watcher=watcher, schedule=lambda step: linear(step, steps, 0), clip=1.0
    )


def train_at_desk(run: Run, batch: int = BATCH_TOKENS) -> None:
    """Train with metrics file, progress and checkpoints, as a component does."""
    with desk(batch, "tokens") as written:
        train(run, written)


@contextmanager
def desk(batch: int, unit: str) -> Iterator[Desk]:
    """Give a run a place to write to, with `batch` units a step; it goes after the block, and progress is not shown."""
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        home = Path(folder)
        checkpoints = Checkpoints(home / "checkpoints", "bench", 60.0)
        with redirect_stderr(io.StringIO()):  # several runs' progress at once helps nobody
            yield Desk("bench", home / "metrics.jsonl", checkpoints, batch, unit)


def write_trunk(model: PreTrainedModel, data: Data, folder: Path) -> None:
    """Write an encoder into `folder` as the component `pretrain` does."""
    save_model(model, folder)
    save_tokenizer(data.tokenizer(), folder)
    write_config(folder, KIND, data.params.model_dump(mode="json"), MaskedLMParams().model_dump(mode="json"))


def finetune(data: Data, *, batch: int, dtype: Precision, after_step: AfterStep) -> None:
    """Fine-tune for very long, as the component does, from an untrained trunk of the shape."""
    labelled = _Noted(**vars(data.labelled()))
    labelled.note(after_step)
    assert labelled.labels is not None
    classes = tuple(range(int(labelled.labels.max()) + 1))
    head = SequenceClassificationParams(precision=dtype, max_tokens=data.params.max_length)
    params = FinetuneParams(head=head, batch=batch, epochs=100_000)
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        trunk = Path(folder)
        write_trunk(data.model(dropout=False), data, trunk)
        fit(trunk, Examples(labelled, None), params, 0, Schema(TextColumn("text"), "label", classes))


class _Noted(Labelled):
    """Documents that say when a step ends: when the next one draws its batch."""

    def note(self, after_step: AfterStep) -> None:
        object.__setattr__(self, "after_step", after_step)  # the documents are frozen

    def draw(self, seed: int, step: int, size: int) -> torch.Tensor:
        if step:
            self.after_step(size)  # type: ignore[attr-defined]
        return super().draw(seed, step, size)
