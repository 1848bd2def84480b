"""The task `glosses` as its pipeline sees it: validate's splits, the task's parameters, tokens made ahead."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.text_data import GLOSSES, LENGTH, RAW, SHAPES, Data
from bench.text_loop import write_trunk
from graftline.dataset import UNLABELLED, Schema, read_schema
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.evaluation.lift import Experiment, unpack
from graftline.problems.documents import Documents as Labelled
from graftline.problems.fit import select
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.parameters import load_document, section
from graftline.tasks.pretrain import PretrainParams
from graftline.text.corpus import iterate_documents, list_shards
from graftline.text.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from graftline.text.tokens import tokenise
from graftline.trunks.layout import quiet

SHAPE = "modernbert 2x128"
TEST_ROWS = 8000
"""Test rows that accuracy is measured on: those of the task's own report on the lift."""


@dataclass(frozen=True)
class Task:
    """What `prepare` wrote into `folder`."""

    folder: Path

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    @property
    def untrained(self) -> Path:
        """A trunk of the task's shape that has learned nothing, with the task's tokenizer."""
        return self.folder / "untrained"

    @property
    def data(self) -> Data:
        """The unlabelled documents, of which 1,000 are held out, as tokens."""
        return Data(self.folder, SHAPE)

    @property
    def pretraining(self) -> PretrainParams:
        return section(*load_document(GLOSSES / "params.yaml"), "pretrain", PretrainParams)

    @property
    def finetuning(self) -> FinetuneParams:
        return section(*load_document(GLOSSES / "params.yaml"), "finetune", FinetuneParams)

    def schema(self) -> Schema:
        return read_schema(self.dataset)

    def labelled(self, labels: int, seed: int) -> Labelled:
        """Return `labels` training documents of each class, those that `finetune` takes at the seed."""
        return select(self._split("train"), labels, len(self.schema().classes), seed)

    def test(self) -> Labelled:
        """Return the sample of the test documents."""
        return self._split("test")

    def _split(self, split: str) -> Labelled:
        arrays = {path.stem: np.load(path) for path in (self.folder / split).glob("*.npy")}
        return Labelled.from_arrays(arrays)


def prepare(folder: Path) -> Task:
    """Split the glosses, train the tokenizer, and write all that is tokenised into `folder`."""
    quiet()
    task = Task(folder)
    pretraining = task.pretraining
    if pretraining.trunk != SHAPES[SHAPE]:
        raise InputError(
            GLOSSES / "params.yaml", "another pretrain.trunk", expected=SHAPE, fix="measure that in SHAPES"
        )
    assert pretraining.tokenizer is not None
    _validate(task.dataset)
    home, shards = task.data.home, list_shards(task.dataset / f"{UNLABELLED}.parquet")
    save_tokenizer(train_tokenizer(iterate_documents(shards, "text"), pretraining.tokenizer), home / "tokenizer")
    tokenizer = load_tokenizer(home / "tokenizer")
    tokenise(shards, "text", tokenizer, home / "tokens", workers=2, max_length=LENGTH)
    task.untrained.mkdir()
    write_trunk(task.data.model(dropout=False), task.data, task.untrained)
    unpack(Experiment(task.dataset, task.untrained, task.finetuning, folder, test_rows=TEST_ROWS))
    return task


def _validate(out: Path) -> None:
    """Run the component, as the pipeline does."""
    command: list[str | Path] = [
        sys.executable, "-m", "graftline.components.validate", "--params", GLOSSES / "params.yaml",
        "--in-raw", RAW.parent, "--in-expectations", GLOSSES / "expectations.yaml", "--out-dataset", out,
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT)
