"""The importer on the shipped sentences, without a network: the wheel is written from the Parquet file itself.

The download is not tested, nor that the package's files have the expected digests: the command checks that.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import turkish

RAW = ROOT / "data" / "turkish" / "raw" / "sentences.parquet"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The package's files, with the columns that the importer reads."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    made: dict[str, list[str]] = {name: [] for name in turkish.MEMBERS}
    for row in pq.read_table(RAW).to_pylist():
        lines = made["data/web.conllu" if row["sentence"].startswith("tr-") else "data/wiki.conllu"]
        lines += [f"# sent_id = {row['sentence']}", f"# text = {' '.join(row['words'])}"]
        for number, (word, tag) in enumerate(zip(row["words"], row["tags"], strict=True), start=1):
            lines.append(f"{number}\t{word}\t_\t{tag}\tNN\tProper=False\t0\troot\t_\t_")
        lines.append("")
    return {name: "\n".join(lines).encode() for name, lines in made.items()}


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_two_imports_give_the_bytes_of_the_shipped_raw_data(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turkish, "MEMBERS", {name: sha256_bytes(data) for name, data in files.items()})
    wheel = write_wheel(tmp_path / "t.whl", files)
    first = turkish.write(tmp_path / "first", wheel)
    second = turkish.write(tmp_path / "second", wheel)
    assert first.read_bytes() == second.read_bytes() == RAW.read_bytes()


def test_a_wheel_with_other_files_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data/web\.conllu: sha256 .*; expected d6f92b12"):
        turkish.write(tmp_path / "out", write_wheel(tmp_path / "other.whl", files))
    with pytest.raises(InputError, match=r"no data/web\.conllu in it"):
        turkish.write(tmp_path / "out", write_wheel(tmp_path / "empty.whl", {}))
    (tmp_path / "page.whl").write_text("<!doctype html>")
    with pytest.raises(InputError, match="not a wheel"):
        turkish.write(tmp_path / "out", tmp_path / "page.whl")
    assert not (tmp_path / "out").exists()


def test_a_line_that_is_no_token_is_refused() -> None:
    with pytest.raises(InputError, match=r"web\.conllu: line 2: '1\\tword'; expected ten columns"):
        list(turkish.sentences("web.conllu", "# sent_id = a\n1\tword\n"))
