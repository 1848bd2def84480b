"""`graftline erase` on a real repository: git, DVC with a remote in git, validate as it is, a store, an index."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from graftline import environment
from graftline.audit.erase import PAYLOAD_TYPE, Target, erase
from graftline.audit.erase_dvc import add_raw
from graftline.audit.erase_plan import identity_of, make_plan, stored_plan
from graftline.audit.erase_raw import find_rows, rewrite
from graftline.audit.raw_row import digests_of, task_contracts
from graftline.cli.erase import erase as erase_command
from graftline.component import main
from graftline.components.validate import COMPONENT
from graftline.components.validate.contract import load_contract
from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.ledger import read_ledger
from graftline.records import Dependency, read_record, write_record
from graftline.records import Draft as RecordDraft
from graftline.releases.publishing import Draft, Publication, publish
from graftline.rows.blocklist import read_blocklist
from graftline.rows.building import build
from graftline.rows.finding import find, find_row
from graftline.rows.subjects import hash_subject, load_key
from graftline.signing.envelope import open_envelope, signers
from graftline.signing.keys import load_keyring
from graftline.store import Store, open_store

EXPECTATIONS = """\
columns:
  text: {type: text}
  topic: {type: string, role: label, classes: [cat, dog]}
  person: {type: string, nullable: true}
subject: person
"""
SECRET = "a secret of Ada"


def table(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "text": f'{SECRET}, "no. {n}"\nand more' if n % 20 == 7 else f"document number {n}",
            "topic": ("cat", "dog")[n % 2],
            "person": "ada lovelace" if n % 20 == 7 else f"person-{n % 20}",
        }
        for n in range(first, first + count)
    ]


def write_raw(raw: Path, count: int = 80) -> None:
    """Three files, one of each format; each holds rows of every person."""
    with (raw / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["topic", "text", "person"])
        writer.writeheader()
        writer.writerows(table(0, count))
    (raw / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table(100, count)))
    pq.write_table(pa.Table.from_pylist(table(200, count)), raw / "c.parquet")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a release, and an older version of the raw data."""
    repo = tmp_path_factory.mktemp("template") / "repo"
    (repo / "data/toy/raw").mkdir(parents=True)
    (repo / ".dvc").mkdir()
    for name in (".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, repo / name)
    (repo / "data/toy/expectations.yaml").write_text(EXPECTATIONS)
    git(repo, "init", "-q")
    for count in (60, 80):
        write_raw(repo / "data/toy/raw", count)
        add_raw(repo, "toy")
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", f"{count} rows a file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFTLINE_KEYS", str(repo.parent / "keys"))
        validate(repo)
        release(repo)
    return repo


def validate(repo: Path) -> None:
    """Make the dataset as an engine does."""
    task = repo / "data/toy"
    document = json.dumps({"task": "toy", "validate": {"max_bad_fraction": 0.2}})
    arguments = [
        "--in-raw",
        task / "raw",
        "--in-expectations",
        task / "expectations.yaml",
        "--store",
        repo / "store",
    ]
    main(
        COMPONENT,
        ["--params", document, *map(str, arguments), "--out-dataset", str(repo / "outputs/toy/dataset")],
    )


def release(repo: Path) -> None:
    """Make a trunk and a model of the dataset, an evaluation that shows a row, and a release of them."""
    outputs, known = repo / "outputs/toy", {"dataset": read_record(repo / "outputs/toy/dataset")}
    for component, name in (("pretrain", "trunk"), ("finetune", "model"), ("evaluate", "evaluation")):
        folder = outputs / name
        folder.mkdir()
        (folder / "model.safetensors").write_text(name)
        if name == "evaluation":
            (folder / "mistakes.json").write_text(SECRET)
        draft = RecordDraft(component, "toy", name)
        draft.dependencies = [Dependency(of, record.content, record.sha256) for of, record in known.items()]
        known[name] = write_record(folder, draft)
    for path in [
        *(outputs / "dataset").iterdir(),
        outputs / "evaluation/mistakes.json",
    ]:  # as DVC keeps outputs
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        kept = repo / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
    store = open_store(str(repo / "store"))
    records = {name: (outputs / name / "record.json").read_bytes() for name in known}
    publish(store, Draft("toy", {"model": outputs / "model/model.safetensors"}, records), Publication("one"))
    build(outputs / "dataset/rows.parquet", store, "toy", known["dataset"].content)


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "ROOT", tmp_path / "repo")
    shutil.copytree(template.parent / "keys", tmp_path / "keys")
    return Path(shutil.copytree(template, tmp_path / "repo", symlinks=True))


def command(repo: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(erase_command)
    done = CliRunner().invoke(app, [*arguments, "--store", str(repo / "store")])
    assert done.exit_code == 0, done.output
    return done


def git(repo: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", "-C", str(repo), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def store_of(repo: Path) -> Store:
    return open_store(str(repo / "store"))


def ada() -> Target:
    key = load_key(create=False)
    return Target(subject=hash_subject("ada lovelace", key), key=key)


def everywhere(repo: Path) -> list[str]:
    """Return the files outside .git in which a secret stands, in clear or in a table."""
    found = []
    for folder in ("data", "outputs", ".dvc", "store"):
        for path in (repo / folder).rglob("*"):
            if path.is_file() and SECRET in _text(path):
                found.append(path.relative_to(repo).as_posix())
    return found


def _text(path: Path) -> str:
    data = path.read_bytes()
    return str(pq.read_table(path).to_pylist()) if data[:4] == b"PAR1" else data.decode(errors="replace")


def assert_erased(repo: Path, receipt: dict[str, Any]) -> None:
    store = store_of(repo)
    assert everywhere(repo) == []
    assert find(store, "subjects", bytes.fromhex(receipt["target"][0])) == []
    assert all(find_row(store, bytes.fromhex(digest)) == [] for digest in receipt["digests"])
    assert len(receipt["digests"]) == 12
    blocked = read_blocklist(store, "toy")
    assert (list(blocked.rows), list(blocked.subjects)) == (receipt["digests"], receipt["target"])
    contract = load_contract(repo / "data/toy/expectations.yaml")
    assert (contract.erased.rows, contract.erased.subjects) == (blocked.rows, blocked.subjects)
    (key,) = store.list("erasures/")
    sealed = store.get(key).data
    assert signers(open_envelope(sealed), load_keyring().public)
    assert open_envelope(sealed).payload_type == PAYLOAD_TYPE
    marks = [entry for entry in read_ledger(store) if entry.event == "erase"]
    assert [(e.task, e.version, e.digest) for e in marks] == [("toy", 1, sha256_bytes(sealed))]
    assert store.list("erased/plans/") == []


def test_a_persons_rows_are_gone_from_data_caches_outputs_and_index_and_do_not_come_back(repo: Path) -> None:
    kept = [
        row
        for row in pq.read_table(repo / "data/toy/raw/c.parquet").to_pylist()
        if row["person"] != "ada lovelace"
    ]
    assert len(everywhere(repo)) > 10
    done = command(repo, "--subject", "ada lovelace", "--yes", "--json")
    receipt = json.loads(done.stdout)
    assert_erased(repo, receipt)
    assert "ada lovelace" not in done.stdout
    assert pq.read_table(repo / "data/toy/raw/c.parquet").to_pylist() == kept
    assert receipt["retrain"] == ["graftline run toy"]
    assert "git filter-repo" in receipt["not_covered"][0]
    assert all(shard["before"] != shard["after"] for shard in receipt["shards"])
    assert not (repo / "outputs/toy/dataset").exists()
    # The same rows, ingested again: they go to the quarantine without a value.
    write_raw(repo / "data/toy/raw")
    validate(repo)
    quarantine = pq.read_table(repo / "outputs/toy/dataset/quarantine.parquet").to_pylist()
    assert [(line["rule"], line["value"]) for line in quarantine] == [("erased", "")] * 12
    assert set(everywhere(repo)) == {f"data/toy/raw/{name}" for name in ("a.csv", "b.jsonl", "c.parquet")}


class Killed(BaseException):
    """Ends an erasure where a kill would."""


def test_an_erasure_that_is_killed_anywhere_is_finished_by_the_next(repo: Path, tmp_path: Path) -> None:
    contracts, target = task_contracts(repo), [ada().subject.hex()]  # type: ignore[union-attr]
    step, ended = 0, False
    while not ended:
        store = store_of(repo)
        identity = identity_of(store, "subject", target)
        plan = stored_plan(store, identity)
        if step > 1:
            assert plan is not None, "what was planned before anything was removed"
        plan = plan or make_plan(store, repo, "subject", target, ada(), contracts)
        said = 0

        def kill(line: str, limit: int = step) -> None:
            nonlocal said
            said += 1
            if said > limit:
                raise Killed(line)

        try:
            receipt = erase(store, repo, plan, ada(), contracts, on_event=kill)
            ended = True
        except Killed:
            step += 1
    assert step > 8
    assert_erased(repo, receipt)
    assert receipt["raw"] == asdict(plan)["raw"]


def test_one_row_is_erased_by_its_file_and_its_neighbours_stay(repo: Path, tmp_path: Path) -> None:
    row = {"text": "document number 3", "topic": "dog"}
    (tmp_path / "row.json").write_text(json.dumps(row))
    (tmp_path / "row.txt").write_text("document number 3\n")
    contract = load_contract(repo / "data/toy/expectations.yaml")
    (digest,) = digests_of(tmp_path / "row.json", contract)
    assert digest in digests_of(tmp_path / "row.txt", contract)
    done = command(repo, "--row", str(tmp_path / "row.txt"), "--yes", "--json")
    receipt = json.loads(done.stdout)
    assert [hit["row"] for hit in receipt["hits"]] == [3]
    assert find_row(store_of(repo), digest) == []
    left = list(csv.DictReader((repo / "data/toy/raw/a.csv").open(newline="")))
    assert [row for row in table(0, 80) if row["text"] != "document number 3"] == [
        {name: row[name] for name in ("text", "topic", "person")} for row in left
    ]
    again = command(repo, "--row", str(tmp_path / "row.txt"), "--yes")
    assert "nothing of it" in again.stdout


def test_rows_of_a_dataset_whose_raw_data_is_gone_are_taken_out_of_the_index_too(repo: Path) -> None:
    store = store_of(repo)
    index = pq.read_table(repo / "outputs/toy/dataset/rows.parquet").to_pylist()
    digests = [line["digest"] for line in index if line["subject"] == ada().subject]
    shutil.rmtree(repo / "data/toy/raw")
    shutil.rmtree(repo / ".dvc/cache")
    shutil.rmtree(repo / "data/store")
    receipt = json.loads(command(repo, "--subject", "ada lovelace", "--yes", "--json").stdout)
    assert (len(digests), receipt["digests"]) == (12, [])
    assert all(find_row(store, digest) == [] for digest in digests)
    assert any("neither the DVC cache nor the remote" in line for line in receipt["not_covered"])


def test_nothing_is_touched_without_a_yes(repo: Path) -> None:
    before = everywhere(repo)
    done = command(repo, "--subject", "ada lovelace", "--json")
    assert json.loads(done.stdout)["releases"][0]["version"] == 1
    assert everywhere(repo) == before
    assert store_of(repo).list("erased/") == []
    assert git(repo, "status", "--porcelain", "--", "data") == ""


@pytest.mark.parametrize("name", ["a.csv", "b.jsonl", "c.parquet"])
def test_a_raw_file_without_rows_has_every_other_row_as_it_was(tmp_path: Path, name: str) -> None:
    write_raw(tmp_path)
    (tmp_path / "contract").write_text(EXPECTATIONS)
    contract = load_contract(tmp_path / "contract")
    before = _rows(tmp_path / name)
    rewrite(tmp_path / name, [0, 7, 79])
    assert _rows(tmp_path / name) == [row for place, row in enumerate(before) if place not in (0, 7, 79)]
    assert find_rows(tmp_path / name, contract, Target(rows=frozenset({b"x" * 32}))).positions == ()
    rewrite(tmp_path / name, range(77))
    assert not (tmp_path / name).exists()


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        return list(csv.DictReader(path.open(newline="")))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("row.json", "[1]", "a JSON object"),
        ("row.json", '{"text": "x", "topic": "bird"}', "breaks the contract"),
        ("row.json", '{"texts": "x", "topic": "cat"}', "did you mean"),
        ("row.jsonl", '{"text": "x", "topic": "cat"}\n{"text": "y", "topic": "cat"}\n', "2 rows"),
    ],
)
def test_a_file_that_is_no_row_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / "contract").write_text(EXPECTATIONS)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        digests_of(tmp_path / name, load_contract(tmp_path / "contract"))
