"""The importer on the shipped digits, without a network: the CSV is written from the Parquet file itself.

The download is not tested, nor that the package's file has the expected digest: the command checks that.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import mnist

RAW = ROOT / "data" / "mnist" / "raw" / "images.parquet"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW).to_pydict()
    lines = [",".join(map(str, [*image, label])) for image, label in zip(table["image"], table["label"], strict=True)]
    path = tmp_path_factory.mktemp("source") / "mnist_5k.csv.gz"
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return path


def test_two_imports_give_the_bytes_of_the_shipped_raw_data(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "SHA256", sha256_bytes(source.read_bytes()))  # gzip wrote other bytes than the package's
    first = mnist.write(tmp_path / "first", source)
    second = mnist.write(tmp_path / "second", source)
    assert first.read_bytes() == second.read_bytes() == RAW.read_bytes()


def test_a_file_with_another_digest_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"sha256 .*expected {mnist.SHA256}"):
        mnist.write(tmp_path / "out", source)
    with pytest.raises(InputError, match="no such file"):
        mnist.write(tmp_path / "out", tmp_path / "nowhere.csv.gz")
    assert not (tmp_path / "out").exists()
