"""Raw folders made of real digits, and the validate entry point in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.component import main
from graftline.components.validate import COMPONENT
from graftline.environment import ROOT

RAW = ROOT / "data" / "mnist" / "raw" / "images.parquet"
CONTRACT = {
    "columns": {
        "image": {"type": "image", "shape": [28, 28]},
        "label": {"type": "integer", "role": "label", "classes": list(range(10))},
    }
}


@dataclass(frozen=True)
class Run:
    """How a run ended, and its output folder."""

    code: int
    error: str
    out: Path

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.out / f"{name}.parquet")

    def digest(self) -> str:
        statement = json.loads((self.out / "record.json").read_text())
        return str(statement["subject"][0]["digest"]["sha256"])


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,000 of the shipped digits, 100 a class in turn: (n, 784) uint8, (n,) int64."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW)
    pixels = table["image"].combine_chunks().flatten().to_numpy().reshape(-1, 784)
    labels = table["label"].to_numpy()
    order = (
        np.concatenate([np.flatnonzero(labels == c)[:100] for c in range(10)]).reshape(10, 100).T.reshape(-1)
    )
    return pixels[order], labels[order]


def shipped(task: str, file: str) -> pa.Table:
    path = ROOT / "data" / task / "raw" / file
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `dvc pull`")
    return pq.read_table(path)


@pytest.fixture(scope="session")
def glosses() -> pa.Table:
    """1,500 of the shipped glosses, 500 each of animals and artifacts and 500 without a label, no two equal."""
    table = shipped("glosses", "glosses.parquet")
    first = {text: row for row, text in reversed(list(enumerate(table["text"].to_pylist())))}
    labels = table["label"].to_pylist()
    rows = sorted(first.values())
    kept = [
        [row for row in rows if labels[row] == name][:500] for name in ("noun.animal", "noun.artifact", None)
    ]
    return table.take([row for three in zip(*kept, strict=True) for row in three])


@pytest.fixture(scope="session")
def sentences() -> pa.Table:
    """800 of the shipped Turkish sentences, without the two rarest parts of speech."""
    table = shipped("turkish", "sentences.parquet")
    rare = {"AFFIX", "ONOM"}
    return table.take(
        [row for row, tags in enumerate(table["tags"].to_pylist()) if not rare & set(tags)][:800]
    )


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    def write(table: pa.Table | dict[str, object], name: str = "raw") -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        table = pa.table(table) if isinstance(table, dict) else table
        pq.write_table(table, tmp_path / name / "part.parquet")
        return tmp_path / name

    return write


@pytest.fixture
def write_raw(tmp_path: Path) -> Callable[..., Path]:
    def write(pixels: object, labels: object, name: str = "raw", **columns: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8:
            pixels = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), pixels.shape[1])
        pq.write_table(pa.table({"image": pixels, "label": labels, **columns}), folder / "part.parquet")
        return folder

    return write


@pytest.fixture
def validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run validate on a raw folder; `contract` and `params` change the defaults."""

    def run(
        raw: Path,
        contract: dict[str, object] | None = None,
        params: dict[str, object] | None = None,
        out: str = "dataset",
    ) -> Run:
        expectations = tmp_path / "expectations.yaml"
        expectations.write_text(json.dumps(contract or CONTRACT))
        document = json.dumps({"task": "digits", "validate": params or {}})
        arguments = ["--params", document, "--in-raw", str(raw), "--in-expectations", str(expectations)]
        code = 0
        try:
            main(
                COMPONENT,
                [*arguments, "--store", str(tmp_path / "store"), "--out-dataset", str(tmp_path / out)],
            )
        except SystemExit as end:
            code = int(end.code or 0)
        return Run(code, capsys.readouterr().err, tmp_path / out)

    return run
