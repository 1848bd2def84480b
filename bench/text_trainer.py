"""The baselines: transformers' own Trainer, as its examples use it (run_mlm.py, run_clm.py, run_glue.py).

https://github.com/huggingface/transformers/tree/main/examples/pytorch. What differs is in the Trainer's favour:
examples come from memory instead of an Arrow file, and masking is told of the special tokens, which run_mlm means to
do but the Trainer's removal of unused columns undoes.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from bench.text_data import LENGTH, Data, grouped
from graftline.problems.documents import Documents as Labelled

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Example = dict[str, Any]
Collate = Callable[[list[Example]], dict[str, Any]]
AfterStep = Callable[[int], None]
"""Called after each step with what it learned from: tokens that are no padding, or samples."""


class Lists(Dataset[Example]):
    """Examples as lists of numbers, as the datasets library hands them out."""

    def __init__(self, rows: Sequence[np.ndarray], special: np.ndarray, labels: np.ndarray | None = None) -> None:
        self._rows, self._special, self._labels = rows, special, labels

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Example:
        row = self._rows[place]
        example: Example = {"input_ids": row.tolist(), "attention_mask": [1] * len(row)}
        if self._labels is not None:
            return example | {"label": int(self._labels[place])}
        return example | {"special_tokens_mask": np.isin(row, self._special).astype(int).tolist()}


class Counting:
    """A collator that notes how much each batch holds: batches are made ahead of the steps that use them."""

    def __init__(self, collate: Collate, *, samples: bool) -> None:
        self._collate, self._samples = collate, samples
        self.waiting: deque[int] = deque()

    def __call__(self, examples: list[Example]) -> dict[str, Any]:
        count = len(examples) if self._samples else sum(len(example["input_ids"]) for example in examples)
        self.waiting.append(count)
        return self._collate(examples)


@dataclass(frozen=True)
class Recipe:
    """What a baseline learns from and how its batches are made."""

    model: PreTrainedModel
    examples: Lists
    collate: Counting


def pretraining(data: Data, rows: str, *, seed: int = 0) -> Recipe:
    """Return run_mlm's recipe, or run_clm's for a decoder.

    Args:
        data: the glosses and the shape.
        rows: `grouped` for blocks of LENGTH tokens; `lines` for a document a row, padded to the longest of its batch;
            `padded` for a document a row, padded to LENGTH (`--pad_to_max_length`).
        seed: of the first weights.
    """
    from transformers import DataCollatorForLanguageModeling, default_data_collator

    documents = data.documents()
    tokenizer = documents.tokenizer
    if rows == "grouped":
        blocks: Sequence[np.ndarray] = list(grouped(documents, documents.train))
    else:
        ids, lengths = documents.files.gather(documents.train)
        blocks = np.split(ids, np.cumsum(lengths)[:-1])
    examples = Lists(blocks, np.array(tokenizer.all_special_ids))
    if data.params.decodes:
        collate: Any = lambda rows: default_data_collator([_causal(row) for row in rows])  # noqa: E731
    else:
        collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        if rows == "padded":
            collate = _to_length(tokenizer, collate)
    return Recipe(data.model(dropout=True, seed=seed), examples, Counting(collate, samples=False))


def _causal(row: Example) -> Example:
    return {key: row[key] for key in ("input_ids", "attention_mask")} | {"labels": row["input_ids"]}


def _to_length(tokenizer: PreTrainedTokenizerFast, collate: Any) -> Collate:
    fill = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "special_tokens_mask": 1}

    def padded(rows: list[Example]) -> dict[str, torch.Tensor]:
        full = [{k: v + [fill[k]] * (LENGTH - len(v)) for k, v in row.items()} for row in rows]
        made: dict[str, torch.Tensor] = collate(full)
        return made

    return padded


def classification(data: Data, labelled: Labelled | None = None, *, trunk: Path | None = None, seed: int = 0) -> Recipe:
    """Return run_glue's recipe: rows in random order, padded to the longest of their batch.

    Args:
        data: the glosses and the shape.
        labelled: what to learn from; by default all that `data` has.
        trunk: a folder with the pretrained model; None for untrained weights of the shape.
        seed: of the weights that are new.
    """
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

    labelled = data.labelled() if labelled is None else labelled
    assert labelled.labels is not None
    rows = [row.numpy() for row in labelled.ids.long().split(labelled.lengths.tolist())]
    examples = Lists(rows, np.array([]), labelled.labels.numpy())
    classes = int(labelled.labels.max()) + 1
    torch.manual_seed(seed)
    if trunk is None:
        config = data.config(dropout=True)
        config.num_labels = classes
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(trunk, num_labels=classes, local_files_only=True)
    return Recipe(model, examples, Counting(DataCollatorWithPadding(data.tokenizer()), samples=True))


def run_trainer(
    recipe: Recipe,
    *,
    batch: int,
    dtype: str,
    steps: int,
    after_step: AfterStep,
    rate: float = 5e-5,
    seed: int = 0,
    **more: Any,
) -> None:
    """Train with the Trainer's defaults but for the arguments.

    Args:
        recipe: what to train.
        batch: rows a step.
        dtype: `float32`, or `bfloat16` for its mixed precision.
        steps: steps of the schedule.
        after_step: called after each step.
        rate: peak learning rate.
        seed: of batches, masks and dropout.
        more: further arguments of the Trainer.
    """
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class After(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            after_step(recipe.collate.waiting.popleft())

    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=batch, bf16=dtype == "bfloat16", max_steps=steps, use_cpu=True,
            report_to="none", save_strategy="no", disable_tqdm=True, remove_unused_columns=False, seed=seed,
            learning_rate=rate, **more,
        )  # fmt: skip
        trainer = Trainer(
            model=recipe.model,
            args=arguments,
            train_dataset=recipe.examples,
            data_collator=recipe.collate,
            callbacks=[After()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
