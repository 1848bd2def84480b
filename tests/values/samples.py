"""Parts of the shipped raw data, for tests."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.environment import ROOT

RAW = ROOT / "data" / "mnist" / "raw" / "images.parquet"


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,000 of the shipped digits, 100 a class in turn: (n, 784) uint8, (n,) int64."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW)
    pixels = table["image"].combine_chunks().flatten().to_numpy().reshape(-1, 784)
    labels = table["label"].to_numpy()
    order = np.concatenate([np.flatnonzero(labels == c)[:100] for c in range(10)]).reshape(10, 100).T.reshape(-1)
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
    kept = [[row for row in rows if labels[row] == name][:500] for name in ("noun.animal", "noun.artifact", None)]
    return table.take([row for three in zip(*kept, strict=True) for row in three])


@pytest.fixture(scope="session")
def sentences() -> pa.Table:
    """800 of the shipped Turkish sentences, without the two rarest parts of speech."""
    table = shipped("turkish", "sentences.parquet")
    rare = {"AFFIX", "ONOM"}
    return table.take([row for row, tags in enumerate(table["tags"].to_pylist()) if not rare & set(tags)][:800])
