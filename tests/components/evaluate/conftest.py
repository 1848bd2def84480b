"""A small dataset of real digits; trunks, a good model and a weak one that the components made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.component import Component, main
from graftline.components.evaluate import COMPONENT as EVALUATE
from graftline.components.finetune import COMPONENT as FINETUNE
from graftline.components.pretrain import COMPONENT as PRETRAIN
from graftline.dataset import Schema
from graftline.environment import ROOT
from graftline.records.folder import Draft, write_record
from graftline.values.image import ImageColumn

RAW = ROOT / "data" / "mnist" / "raw" / "images.parquet"
ROWS = {"train": 30, "val": 10, "test": 30}
"""Images a class in each split."""
TRUNK = {"epochs": 6, "batch": 64, "trunk": {"name": "conv", "channels": [4, 8, 16], "width": 32}}
EVALUATION = {"lift_labels": [3, None], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 8}


@dataclass(frozen=True)
class Evaluation:
    """How a run of evaluate ended, and its output folder."""

    code: int
    error: str
    out: Path

    def json(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())


@dataclass(frozen=True)
class Parts:
    """What evaluate takes."""

    dataset: Path
    trunk: Path
    other_trunk: Path
    """Of the same shape, from another seed."""
    good: Path
    weak: Path


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("parts")
    dataset = ["--threads", "1", "--in-dataset", str(write_dataset(folder / "dataset"))]
    made = Parts(*(folder / name for name in ("dataset", "trunk", "other", "good", "weak")))
    for trunk, seed in ((made.trunk, 0), (made.other_trunk, 1)):
        run(PRETRAIN, {"pretrain": {**TRUNK, "seed": seed}}, [*dataset, "--out-trunk", str(trunk)])
    for model, steps in ((made.good, 120), (made.weak, 4)):
        section = {"min_steps": steps, "epochs": 1, "patience": None}
        inputs = [*dataset, "--in-trunk", str(made.trunk), "--out-model", str(model)]
        run(FINETUNE, {"finetune": section}, inputs)
    return made


@pytest.fixture
def evaluate(parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Evaluation]:
    """Run evaluate's entry point; the store is `tmp_path / "store"`."""

    def evaluate(
        params: dict[str, Any] | None = None,
        *,
        model: Path = parts.good,
        trunk: Path = parts.trunk,
        threads: int = 1,
        out: str = "evaluation",
        finetune: dict[str, Any] | None = None,
    ) -> Evaluation:
        document = {"evaluate": {**EVALUATION, **(params or {})}, "finetune": {"min_steps": 20, **(finetune or {})}}
        arguments = ["--in-dataset", str(parts.dataset), "--in-trunk", str(trunk), "--in-model", str(model)]
        arguments += ["--store", str(tmp_path / "store"), "--threads", str(threads)]
        code = run(EVALUATE, document, [*arguments, "--out-evaluation", str(tmp_path / out)], check=False)
        return Evaluation(code, capsys.readouterr().err, tmp_path / out)

    return evaluate


def run(component: Component, document: dict[str, Any], arguments: list[str], *, check: bool = True) -> int:
    """Run an entry point in this process and return its exit code."""
    try:
        main(component, ["--params", json.dumps({"task": "digits", **document}), *arguments])
    except SystemExit as end:
        assert not check, f"{component.name} ended with {end.code}"
        return int(end.code or 0)
    return 0


def write_dataset(folder: Path) -> Path:
    """Write a dataset as validate does, of the first digits of each class, and return its folder."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    folder.mkdir()
    table = pq.read_table(RAW)
    table = table.append_column("row", pa.array(np.arange(table.num_rows)))
    labels, taken = table["label"].to_numpy(), 0
    for split, count in ROWS.items():
        members = [np.flatnonzero(labels == number)[taken : taken + count] for number in range(10)]
        pq.write_table(table.take(pa.array(np.sort(np.concatenate(members)))), folder / f"{split}.parquet")
        taken += count
    pq.write_table(pq.read_table(folder / "train.parquet").drop(["label"]), folder / "unlabelled.parquet")
    schema = Schema(ImageColumn("image", (28, 28), 255), "label", tuple(range(10)))
    (folder / "schema.json").write_text(json.dumps(schema.as_dict()))
    write_record(folder, Draft("validate", "digits", "dataset"))
    return folder
