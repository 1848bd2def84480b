"""`graftline erase` of a picture: its file, its line in the table beside it, its pixels and every old version."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from graftline import environment
from graftline.audit.erase.dvc_content import add_raw
from graftline.audit.raw_row import digests_of
from graftline.cli.erase import erase as erase_command
from graftline.component import main
from graftline.components.validate import COMPONENT
from graftline.environment import ROOT
from graftline.records.folder import read_record
from graftline.rows.building import build
from graftline.rows.finding import find_row
from graftline.store.opening import open_store
from graftline.values.contract import load_contract

sys.path.insert(0, str(Path(__file__).parents[1] / "values"))

from pictures import encode, noise

EXPECTATIONS = """\
columns:
  image: {type: image, shape: [24, 32], mode: rgb}
  label: {type: string, role: label, classes: [cat, dog]}
"""
COUNT, GONE = 60, 7


def write_raw(raw: Path, count: int, manifest: bool) -> None:
    """Write numbered pictures: in a folder a class, or in one folder with a table."""
    shutil.rmtree(raw, ignore_errors=True)
    lines = []
    for number in range(count):
        name = f"{'all' if manifest else ('cat', 'dog')[number % 2]}/{number}.png"
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(encode(noise(number), "PNG"))
        lines.append({"file_name": name, "label": ("cat", "dog")[number % 2]})
    if manifest:
        (raw / "about.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def validate(repo: Path) -> None:
    task = repo / "data/toy"
    arguments = ["--in-raw", task / "raw", "--in-expectations", task / "expectations.yaml", "--store", repo / "store"]
    document = json.dumps({"task": "toy", "validate": {"max_bad_fraction": 0.2}})
    main(COMPONENT, ["--params", document, *map(str, arguments), "--out-dataset", str(repo / "outputs/toy/dataset")])


@pytest.fixture(params=[False, True], ids=["folders", "manifest"])
def repo(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two versions of its pictures, and their rows in the index."""
    repo = tmp_path / "repo"
    (repo / ".dvc").mkdir(parents=True)
    for name in (".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, repo / name)
    (repo / "data/toy").mkdir(parents=True)
    (repo / "data/toy/expectations.yaml").write_text(EXPECTATIONS)
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr(environment, "ROOT", repo)
    monkeypatch.chdir(repo)
    git(repo, "init", "-q")
    for count in (COUNT - 10, COUNT):
        write_raw(repo / "data/toy/raw", count, request.param)
        add_raw(repo, "toy")
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", f"{count} pictures")
    validate(repo)
    dataset = repo / "outputs/toy/dataset"
    build(dataset / "rows.parquet", open_store(str(repo / "store")), "toy", read_record(dataset).content)
    return repo


def git(repo: Path, *arguments: str) -> None:
    name = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *name, *arguments], cwd=repo, check=True, capture_output=True)


def erase(repo: Path, row: Path) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(erase_command)
    done = CliRunner().invoke(app, ["--row", str(row), "--yes", "--json", "--store", str(repo / "store")])
    assert done.exit_code == 0, done.output
    receipt: dict[str, Any] = json.loads(done.stdout)
    return receipt


def everywhere(repo: Path) -> list[str]:
    """Return the files outside .git that hold the picture, encoded or as pixels."""
    secrets = (encode(noise(GONE), "PNG"), np.asarray(noise(GONE)).tobytes())
    return [
        path.relative_to(repo).as_posix()
        for folder in ("data", "outputs", ".dvc", "store")
        for path in (repo / folder).rglob("*")
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets)
    ]


def test_a_picture_is_erased_from_files_versions_and_pixels_and_does_not_come_back(repo: Path, tmp_path: Path) -> None:
    assert len(everywhere(repo)) > 2
    asked = tmp_path / "asked.bmp"
    asked.write_bytes(encode(noise(GONE), "BMP"))  # the same pixels in another file
    contract = load_contract(repo / "data/toy/expectations.yaml")
    by_index = [digest for digest in digests_of(asked, contract) if find_row(open_store(str(repo / "store")), digest)]
    assert len(by_index) == 1
    receipt = erase(repo, asked)
    assert everywhere(repo) == []
    assert find_row(open_store(str(repo / "store")), by_index[0]) == []
    assert by_index[0].hex() in receipt["digests"]  # beside that of the other label that it may have
    pictures = sorted(path.stem for path in (repo / "data/toy/raw").rglob("*.png"))
    assert pictures == sorted(str(number) for number in range(COUNT) if number != GONE)
    manifest = repo / "data/toy/raw/about.jsonl"
    assert not manifest.exists() or len(manifest.read_text().splitlines()) == COUNT - 1
    write_raw(repo / "data/toy/raw", COUNT, manifest.exists())
    validate(repo)
    quarantine = pq.read_table(repo / "outputs/toy/dataset/quarantine.parquet").to_pylist()
    assert [(line["rule"], line["value"]) for line in quarantine] == [("erased", "")]
    assert not any(name.startswith("outputs") for name in everywhere(repo))
