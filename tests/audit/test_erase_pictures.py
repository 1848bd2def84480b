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
from graftline.audit.erase import dvc_content
from graftline.audit.erase.dvc_content import add_raw
from graftline.audit.erase.plan import make_plan
from graftline.audit.erase.raw import Target, find_files, remove_files
from graftline.audit.raw_row import digests_of
from graftline.cli.erase import erase as erase_command
from graftline.component import main
from graftline.components.validate import COMPONENT
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.records.folder import read_record
from graftline.rows.building import build
from graftline.rows.finding import find_row
from graftline.rows.subjects import hash_subject
from graftline.store.opening import open_store
from graftline.values.contract import Contract, load_contract

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


KEY = b"k" * 32


def of_person(folder: Path, table: str, rows: str) -> tuple[Path, Contract, Target]:
    """Return a folder of two pictures with a table, its contract, and the person p1."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for number in range(2):
        (raw / f"{number}.png").write_bytes(encode(noise(number), "PNG"))
    (raw / table).write_text(rows)
    (folder / "contract").write_text(EXPECTATIONS + "  who: {type: string}\nsubject: who\n")
    return raw, load_contract(folder / "contract"), Target(subject=hash_subject("p1", KEY), key=KEY)


def test_a_row_whose_picture_is_not_there_is_taken_out_of_the_table(tmp_path: Path) -> None:
    rows = "file_name,label,who\n./0.png,cat,p1\ngone.png,dog,p1\n1.png,dog,p2\n"
    raw, contract, person = of_person(tmp_path, "about.csv", rows)
    found = find_files(raw, contract, person)
    assert {name: of.positions for name, of in found.items()} == {"0.png": (0,), "about.csv": (1,)}
    remove_files(raw, found, contract, person)
    assert sorted(path.name for path in raw.iterdir()) == ["1.png", "about.csv"]
    assert (raw / "about.csv").read_text() == "file_name,label,who\n1.png,dog,p2\n"


def test_of_a_table_that_cannot_be_written_again_the_pictures_go_and_it_is_named(tmp_path: Path) -> None:
    rows = "file_name\tlabel\twho\n0.png\tcat\tp1\n1.png\tdog\tp2\n"
    raw, contract, person = of_person(tmp_path / "data/toy", "about.tsv", rows)
    plan = make_plan(
        open_store(str(tmp_path / "store")), tmp_path, "subject", [person.subject.hex()], person, {"toy": contract}
    )
    assert any("raw data about.tsv of toy" in line for line in plan.not_covered)
    remove_files(raw, [str(file["file"]) for file in plan.raw], contract, person)
    assert (sorted(path.name for path in raw.iterdir()), (raw / "about.tsv").read_text()) == (
        ["1.png", "about.tsv"],
        rows,
    )


@pytest.mark.parametrize("repo", [False], indirect=True)
def test_an_old_version_that_the_contract_does_not_read_is_named(repo: Path) -> None:
    contract = repo / "data/toy/expectations.yaml"
    contract.write_text(EXPECTATIONS + "  place: {type: string}\n")
    write_raw(repo / "data/toy/raw", 4, True)
    table = repo / "data/toy/raw/about.jsonl"
    table.write_text("".join(json.dumps(json.loads(line) | {"place": "x"}) + "\n" for line in table.open()))
    wanted = Target(rows=frozenset({b"x" * 32}))
    plan = make_plan(
        open_store(str(repo / "store")), repo, "row", ["78" * 32], wanted, {"toy": load_contract(contract)}
    )
    assert sum("today's contract does not read it" in line for line in plan.not_covered) == 2


def test_an_old_versions_names_lead_nowhere_else(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = dvc_content.files_of
    outside = {"../../escaped/x.png": "0" * 32}
    monkeypatch.setattr(dvc_content, "files_of", lambda found, oid: {**(files(found, oid) or {}), **outside})
    monkeypatch.setattr(dvc_content.Place, "has", lambda *_: True)
    with pytest.raises(InputError, match="escaped"):
        make_plan(
            open_store(str(repo / "store")),
            repo,
            "row",
            ["78" * 32],
            Target(rows=frozenset({b"x" * 32})),
            {"toy": load_contract(repo / "data/toy/expectations.yaml")},
        )
