"""The baselines of heads: transformers' own Trainer, as its examples use it.

https://github.com/huggingface/transformers/tree/main/examples/pytorch: question-answering/run_qa.py,
translation/run_translation.py and speech-recognition/run_speech_recognition_ctc.py; head_wrapped.py has what goes by
others. The model is Graftline's own, with the same first weights, and so are the tokens; what the examples compute
ahead comes from memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from bench.head_wrapped import detection, recommendation
from bench.rounds import Form
from bench.text_trainer import Collate, Counting, Example, Recipe
from graftline.problems.detection.examples import Scenes
from graftline.problems.documents import IGNORED
from graftline.problems.question_answering.windows import Windows
from graftline.problems.recognition.utterances import Utterances
from graftline.problems.recommendation.examples import Histories
from graftline.problems.sequence_to_sequence.pairs import Pairs
from graftline.text.tokenizer import load_tokenizer


class Rows(Dataset[Example]):
    """Examples as the datasets library hands them out; `input_ids` tells the Trainer's sampler their lengths."""

    def __init__(self, rows: list[Example]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Example:
        return self._rows[place]


def recipe(model: Any, examples: Any, trunk: Path, head: Any, rows: str, form: Form) -> Recipe:
    """Return how the example of the examples' kind learns: `head` are its parameters, `rows`, `form` a contender's."""
    filled = rows == "full_length"
    made: dict[type, Callable[[], tuple[nn.Module, list[Example], Collate]]] = {
        Windows: lambda: _questions(model, examples, trunk, head.max_tokens if filled else None),
        Pairs: lambda: _translation(model, examples, trunk),
        Utterances: lambda: _recognition(model, examples, trunk),
        Scenes: lambda: detection(model, examples, head.augmentation, form, decoded=rows == "pixels"),
        Histories: lambda: recommendation(model, examples, filled=filled),
    }
    module, found, collate = made[type(examples)]()
    return Recipe(module.train(), Rows(found), Counting(collate, samples=True))  # type: ignore[arg-type]


def _questions(
    model: Any, examples: Windows, trunk: Path, full: int | None
) -> tuple[nn.Module, list[Example], Collate]:
    from transformers import DataCollatorWithPadding

    assert examples.labels is not None
    tokens = _tokens(examples)
    rows = [
        {**row, "start_positions": start, "end_positions": end}
        for row, (start, end) in zip(tokens, examples.labels.tolist(), strict=True)
    ]
    padding: dict[str, Any] = {} if full is None else {"padding": "max_length", "max_length": full}
    return model.network, rows, DataCollatorWithPadding(load_tokenizer(trunk), **padding)


def _translation(model: Any, examples: Pairs, trunk: Path) -> tuple[nn.Module, list[Example], Collate]:
    from transformers import DataCollatorForSeq2Seq

    wanted = examples.target.split(examples.target_offsets.diff().tolist())
    rows = [{**row, "labels": ids.tolist()} for row, ids in zip(_tokens(examples), wanted, strict=True)]
    return model.network, rows, DataCollatorForSeq2Seq(load_tokenizer(trunk), model=model.network)


def _recognition(model: Any, examples: Utterances, trunk: Path) -> tuple[nn.Module, list[Example], Collate]:
    from transformers import AutoFeatureExtractor

    extractor = AutoFeatureExtractor.from_pretrained(trunk, local_files_only=True)
    number = {token: place for place, token in enumerate(model.tokens)} | {" ": model.tokens.index("|")}
    rows = []
    for wave, text in zip(examples.waves(), examples.texts(), strict=True):
        values = extractor(wave / 32768.0, sampling_rate=model.rate).input_values[0]
        rows.append({"input_ids": values, "labels": [number[letter] for letter in text]})

    def collate(some: list[Example]) -> dict[str, torch.Tensor]:
        padded = extractor.pad([{"input_values": row["input_ids"]} for row in some], padding=True, return_tensors="pt")
        labels = [torch.tensor(row["labels"]) for row in some]
        wanted = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        return {**padded, "labels": wanted}

    return model.network, rows, collate


def _tokens(examples: Windows | Pairs) -> list[Example]:
    ids = examples.ids.long().split(examples.lengths.tolist())
    return [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in ids]
