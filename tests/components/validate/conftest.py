"""Raw folders made of real digits, and the validate entry point in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.component import main
from graftline.components.validate import COMPONENT

sys.path.insert(0, str(Path(__file__).parents[2] / "values"))

from samples import digits, glosses, sentences

__all__ = ["digits", "glosses", "sentences"]

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
            main(COMPONENT, [*arguments, "--store", str(tmp_path / "store"), "--out-dataset", str(tmp_path / out)])
        except SystemExit as end:
            code = int(end.code or 0)
        return Run(code, capsys.readouterr().err, tmp_path / out)

    return run
