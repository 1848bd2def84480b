"""`graftline erase` on a real repository: git, DVC with a remote in git, validate as it is, a store, an index."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from graftline import environment
from graftline.audit.erase.dvc_content import add_raw
from graftline.audit.erase.erasing import PAYLOAD_TYPE, Target, erase
from graftline.audit.erase.plan import ErasurePlan, identity_of, make_plan, plan_key, receipt_key
from graftline.audit.erase.raw import can_rewrite, find_rows, rewrite
from graftline.audit.erase.stored import PLAN_TYPE, store_plan, stored_plan
from graftline.audit.raw_row import digests_of, task_contracts
from graftline.audit.verify.verifying import verify
from graftline.canonical import canonical_json
from graftline.cli.erase import erase as erase_command
from graftline.component import main
from graftline.components.validate import COMPONENT
from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError, RefusalError
from graftline.index.opening import open_index
from graftline.ledger.log import read_chain
from graftline.raw.reader import Asked, Source
from graftline.records.folder import Draft as RecordDraft
from graftline.records.folder import read_record, write_record
from graftline.records.model import Dependency
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.rows.blocklist import block, read_blocklist
from graftline.rows.building import build
from graftline.rows.finding import find, find_row
from graftline.rows.subjects import hash_subject, load_key
from graftline.signing.envelope import open_envelope, seal, signers
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import make_private, read_signer
from graftline.store import Store
from graftline.store.opening import open_store
from graftline.values.contract import load_contract

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
    arguments = ["--in-raw", task / "raw", "--in-expectations", task / "expectations.yaml", "--store", repo / "store"]
    main(COMPONENT, ["--params", document, *map(str, arguments), "--out-dataset", str(repo / "outputs/toy/dataset")])


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
    for path in [*(outputs / "dataset").iterdir(), outputs / "evaluation/mistakes.json"]:
        keep(repo / ".dvc/cache", path.read_bytes())
    store = open_store(str(repo / "store"))
    records = {name: (outputs / name / "record.json").read_bytes() for name in known}
    publish(store, ReleaseDraft("toy", {"model": outputs / "model/model.safetensors"}, records), Publication("one"))
    build(outputs / "dataset/rows.parquet", store, "toy", known["dataset"].content)


def keep(place: Path, data: bytes, ending: str = "") -> str:
    """Store an object as DVC does, in its cache or a remote; return its name."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest() + ending
    kept = place / "files/md5" / md5[:2] / md5[2:]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data)
    return md5


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "ROOT", tmp_path / "repo")
    shutil.copytree(template.parent / "keys", tmp_path / "keys")
    return Path(shutil.copytree(template, tmp_path / "repo", symlinks=True))


ADA = ("--subject", "ada lovelace")


def command_app() -> typer.Typer:
    app = typer.Typer()
    app.command()(erase_command)
    return app


def command(repo: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(command_app(), [*arguments, "--store", str(repo / "store")])
    assert done.exit_code == 0, done.output
    return done


def git(repo: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", "-C", str(repo), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def store_of(repo: Path) -> Store:
    return open_store(str(repo / "store"))


def person(name: str) -> Target:
    key = load_key(create=False)
    return Target(subject=hash_subject(name, key), key=key)


def ada() -> Target:
    return person("ada lovelace")


def plan_for(repo: Path, target: Target) -> ErasurePlan:
    hashed = [target.subject.hex()] if target.subject else []
    return make_plan(store_of(repo), repo, "subject", hashed, target, task_contracts(repo))


def everywhere(repo: Path, secret: str = SECRET) -> list[str]:
    """Return the files outside .git in which a secret stands, in clear or in a table."""
    found = []
    for folder in ("data", "outputs", "build", ".dvc", "store"):
        for path in (repo / folder).rglob("*"):
            if path.is_file() and secret in _text(path):
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
    assert contract.erased.as_blocklist() == blocked
    (key,) = store.list("erasures/")
    sealed = store.get(key).data
    assert signers(open_envelope(sealed), load_keyring().public)
    assert open_envelope(sealed).payload_type == PAYLOAD_TYPE
    marks = [entry for entry in read_chain(store).entries if entry.event == "erase"]
    assert [(e.task, e.version, e.digest) for e in marks] == [("toy", 1, sha256_bytes(sealed))]
    assert store.list("erased/plans/") == []


def test_a_persons_rows_are_gone_from_data_caches_outputs_and_index_and_do_not_come_back(repo: Path) -> None:
    kept = [
        row for row in pq.read_table(repo / "data/toy/raw/c.parquet").to_pylist() if row["person"] != "ada lovelace"
    ]
    assert len(everywhere(repo)) > 10
    done = command(repo, "--subject", "ada lovelace", "--yes", "--json")
    receipt = json.loads(done.stdout)
    assert_erased(repo, receipt)
    assert "ada lovelace" not in done.stdout
    assert pq.read_table(repo / "data/toy/raw/c.parquet").to_pylist() == kept
    assert receipt["retrain"] == ["graftline run toy"]
    assert "git filter-repo" in receipt["not_covered"][0]
    assert {shard["place"].partition("/")[0] for shard in receipt["shards"]} == {"rows", "subjects"}
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
        plan = stored_plan(store, "subject", target)
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
    assert step > 8 and plan is not None
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


def test_orders_to_delete_that_nobody_here_signed_are_not_obeyed(repo: Path, tmp_path: Path) -> None:
    store, target = store_of(repo), [hash_subject("ada lovelace", load_key(create=False)).hex()]
    plan = ErasurePlan(identity_of(store, "subject", target), "subject", target, bundles=store.list("records/"))
    value = canonical_json(asdict(plan))
    pem, _ = make_private()
    (tmp_path / "other.pem").write_bytes(pem)
    forger = read_signer(tmp_path / "other.pem")
    cases = {
        "not a signature envelope": value,
        "not known here": seal(value, PLAN_TYPE, forger),
        "forged": replace(
            open_envelope(seal(value, PLAN_TYPE, forger)), signatures=((load_keyring().signer().keyid, b"x"),)
        ).data,
        "it signs other bytes": seal(value, PAYLOAD_TYPE, load_keyring().signer()),
    }
    before = everywhere(repo)
    for said, data in cases.items():
        store.put_if_absent(plan_key(plan.id), data)
        done = CliRunner().invoke(command_app(), [*ADA, "--yes", "--store", str(repo / "store")])
        assert isinstance(done.exception, InputError) and said in str(done.exception)
        places = {f.place for f in verify(store).findings if f.kind != "erased"}
        assert plan_key(plan.id) in places
        store.delete(plan_key(plan.id))
    assert (everywhere(repo), store.list("records/")) == (before, plan.bundles)
    store_plan(store, replace(plan, bundles=[]))
    block(store, "toy", [], target)
    assert [f for f in verify(store).findings if f.place.startswith("erased/")] == []


def test_a_receipt_that_nobody_here_signed_does_not_pass_for_the_erasure(repo: Path, tmp_path: Path) -> None:
    store, plan, before = store_of(repo), plan_for(repo, ada()), everywhere(repo)
    pem, _ = make_private()
    (tmp_path / "other.pem").write_bytes(pem)
    value = canonical_json({"id": plan.id})
    for data in (value, seal(value, PAYLOAD_TYPE, read_signer(tmp_path / "other.pem"))):
        store.put_if_absent(receipt_key(plan.id), data)
        with pytest.raises(InputError, match=r"not a signature|not known here"):
            erase(store, repo, plan, ada(), task_contracts(repo))
        store.delete(receipt_key(plan.id))
    assert everywhere(repo) == before


def test_an_old_plan_that_is_put_back_deletes_nothing_more(repo: Path) -> None:
    store, plan = store_of(repo), plan_for(repo, ada())
    store_plan(store, plan)
    kept = store.get(plan_key(plan.id)).data
    erase(store, repo, plan, ada(), task_contracts(repo))
    entries = len(read_chain(store).entries)
    validate(repo)
    store.put_if_absent(plan_key(plan.id), kept)
    command(repo, *ADA, "--yes")
    assert (repo / "outputs/toy/dataset/train.parquet").is_file()
    assert (len(read_chain(store).entries), store.list("erased/plans/")) == (entries, [])


def test_models_of_a_dataset_that_was_never_published_are_marked(repo: Path) -> None:
    add_eve(repo)
    dataset = read_record(repo / "outputs/toy/dataset")
    draft = RecordDraft("pretrain", "toy", "trunk")
    draft.dependencies = [Dependency("dataset", dataset.content, dataset.sha256)]
    (repo / "outputs/toy/trunk/model.safetensors").write_text("another trunk")
    (repo / "outputs/toy/trunk/record.json").unlink()
    (repo / "outputs/toy/trunk/record.dsse.json").unlink()
    trunk = write_record(repo / "outputs/toy/trunk", draft)
    plan = plan_for(repo, person("eve"))
    assert (plan.datasets, plan.models) == ([dataset.content], [trunk.content])
    assert {"outputs/toy/dataset", "outputs/toy/trunk"} <= set(plan.outputs)
    build(repo / "outputs/toy/dataset/rows.parquet", store_of(repo), "toy", dataset.content)
    plan = plan_for(repo, person("eve"))
    assert (plan.datasets, plan.models) == ([dataset.content], [])
    assert "outputs/toy/trunk" not in plan.outputs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bundles", ["records/x.json"]),
        ("bundles", ["handover/../records/x.json"]),
        ("outputs", ["outputs/toy/../../data"]),
        ("outputs", ["outputs/toy"]),
        ("outputs", ["data/toy/raw"]),
        ("objects", ["../../config"]),
        ("objects", ["d41d8cd98f00b204e9800998ecf8427e/"]),
        ("tasks", ["../toy"]),
        ("digests", ["ff"]),
        ("entries", [3]),
        ("shards", {"ledger/x": "0" * 64}),
        ("raw", [{"task": "toy", "version": None, "file": "../expectations.yaml"}]),
        ("raw", [{"task": "toy", "version": None, "file": "of/other.csv"}]),
        ("releases", [{"task": "toy", "version": "1"}]),
        ("target", ["0" * 32]),
        ("kind", "row"),
        ("id", "0" * 16 + "-1"),
        ("colour", "red"),
    ],
)
def test_a_signed_plan_that_names_what_no_erasure_of_this_touches_is_refused(
    tmp_path: Path, name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    store, target = open_store(str(tmp_path / "store")), ["a" * 32]
    plan = ErasurePlan(identity_of(store, "subject", target), "subject", target, objects=[f"{'0' * 32}.dir"])
    signer = load_keyring().signer()
    store.put_if_absent(plan_key(plan.id), seal(canonical_json(asdict(plan) | {name: value}), PLAN_TYPE, signer))
    with pytest.raises(InputError, match="not the plan of"):
        stored_plan(store, "subject", target)
    store.delete(plan_key(plan.id))
    store_plan(store, plan)
    assert stored_plan(store, "subject", target) == plan


def test_where_the_ledger_refuses_the_entry_nothing_is_touched(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, target, before, kept = plan_for(repo, ada()), ada(), everywhere(repo), store_of(repo).list("")
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "stranger"))
    with pytest.raises(RefusalError, match="does not take entries by key"):
        erase(store_of(repo), repo, plan, target, task_contracts(repo))
    assert (everywhere(repo), store_of(repo).list("")) == (before, kept)
    assert git(repo, "status", "--porcelain", "--", "data") == ""


EVE = "a secret of Eve"


def add_eve(repo: Path) -> None:
    """Add a person all of whose rows break the contract, and validate again."""
    with (repo / "data/toy/raw/a.csv").open("a", newline="") as file:
        csv.writer(file).writerows([[f"{EVE} {n}", "a text", "eve"] for n in range(3)])
    add_raw(repo, "toy")
    shutil.rmtree(repo / "outputs/toy/dataset")
    validate(repo)
    for beside in ("outputs/toy/.model.work", "outputs/toy/.dataset.records", "outputs/toy/.gone.records"):
        (repo / beside).mkdir(exist_ok=True)
        (repo / beside / "left").write_text(EVE)
    (repo / "outputs/toy/report.html").write_text(EVE)
    for folder in ("build/docker/toy", "build/docker/.toy/artifacts"):  # of runs in containers, and their cache
        (repo / folder).mkdir(parents=True)
        (repo / folder / "raw").write_text(EVE)


@pytest.mark.parametrize("published", [True, False])
def test_a_person_with_nothing_but_quarantined_rows_is_erased_from_outputs_and_copies(
    repo: Path, published: bool
) -> None:
    add_eve(repo)
    outputs = repo / "outputs/toy"
    dataset = read_record(outputs / "dataset")
    if published:
        build(outputs / "dataset/rows.parquet", store_of(repo), "toy", dataset.content)
    for path in (outputs / "dataset").iterdir():
        keep(repo / ".dvc/cache", path.read_bytes())
    found = everywhere(repo, EVE)
    assert {name.split("/")[0] for name in found} == {"data", "outputs", "build", ".dvc"}
    receipt = json.loads(command(repo, "--subject", "eve", "--yes", "--json").stdout)
    assert everywhere(repo, EVE) == []
    assert receipt["datasets"] == [dataset.content]
    assert (receipt["hits"], receipt["digests"], receipt["tasks"]) == ([], [], ["toy"])
    kept = everywhere(repo)  # what Ada wrote is in the older dataset, and in her raw data
    assert "data/toy/raw/a.csv" in kept and any(name.startswith(".dvc/cache") for name in kept)
    assert (receipt["models"], receipt["releases"]) == ([], [])


def test_outputs_that_only_the_remote_still_holds_are_found_by_dvc_lock(repo: Path) -> None:
    add_eve(repo)
    folder, remote = repo / "outputs/toy/dataset", repo / "data/store"
    listing = [{"md5": keep(remote, path.read_bytes()), "relpath": path.name} for path in sorted(folder.iterdir())]
    oid = keep(remote, json.dumps(listing).encode(), ".dir")
    lock = f"stages:\n  validate@toy:\n    outs:\n    - path: outputs/toy/dataset\n      hash: md5\n      md5: {oid}\n"
    (repo / "dvc.lock").write_text(lock)
    git(repo, "add", "dvc.lock")
    git(repo, "commit", "-qm", "a run")
    (repo / "dvc.lock").unlink()
    assert any(name.startswith("data/store") for name in everywhere(repo, EVE))
    receipt = json.loads(command(repo, "--subject", "eve", "--yes", "--json").stdout)
    assert everywhere(repo, EVE) == []
    left = {entry["relpath"] for entry in listing if entry["md5"] not in receipt["objects"]}
    assert left == {"record.json", "record.dsse.json", "execution.json"}


def test_records_of_a_run_that_was_refused_are_seen(repo: Path) -> None:
    open_index(store_of(repo), folders=(repo / "outputs",)).close()
    store = store_of(repo)
    statement = json.loads((repo / "outputs/toy/model/record.json").read_bytes())
    statement["subject"][0]["digest"]["sha256"] = "7" * 64
    data = canonical_json(statement)
    folder = (repo / "store/records").stat()
    store.put_if_absent(f"records/{sha256_bytes(data)}.json", data)
    # As on S3, where no folder's time tells that something came.
    os.utime(repo / "store/records", ns=(folder.st_atime_ns, folder.st_mtime_ns))
    assert "7" * 64 in plan_for(repo, ada()).models


def test_no_option_leaves_a_part_of_it(repo: Path) -> None:
    done = CliRunner().invoke(command_app(), [*ADA, "--task", "toy", "--store", str(repo / "store")])
    assert (done.exit_code, "No such option" in done.output) == (2, True)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
def test_a_parquet_file_of_any_compression_is_written_again(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(pa.Table.from_pylist(table(0, 30)), path, compression=compression)
    before, codec = _rows(path), pq.read_metadata(path).row_group(0).column(0).compression
    rewrite(path, [3], Asked(()))
    assert _rows(path) == before[:3] + before[4:]
    assert pq.read_metadata(path).row_group(0).column(0).compression == codec


@pytest.mark.parametrize("name", ["a.csv", "b.jsonl", "c.parquet"])
def test_a_raw_file_without_rows_has_every_other_row_as_it_was(tmp_path: Path, name: str) -> None:
    write_raw(tmp_path)
    (tmp_path / "contract").write_text(EXPECTATIONS)
    contract = load_contract(tmp_path / "contract")
    before = _rows(tmp_path / name)
    rewrite(tmp_path / name, [0, 7, 79], contract.asked)
    assert _rows(tmp_path / name) == [row for place, row in enumerate(before) if place not in (0, 7, 79)]
    assert find_rows(tmp_path / name, contract, Target(rows=frozenset({b"x" * 32}))).positions == ()
    rewrite(tmp_path / name, range(77), contract.asked)
    assert not (tmp_path / name).exists()


def test_a_raw_file_that_no_row_is_taken_out_of_is_named(repo: Path) -> None:
    (repo / "data/toy/raw/d.csv.gz").write_bytes(b"x")
    (repo / "data/toy/raw/year=2024").mkdir()
    for name in ("d.csv.gz", "year=2024"):
        assert any(f"raw data {name} of toy" in line for line in plan_for(repo, ada()).not_covered)


def test_rows_of_csv_are_divided_as_its_separator_says(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text;topic\na;"x\ny"\nb;z\n')
    rewrite(path, [1], Asked(["text", "topic"]))
    assert path.read_text() == 'text;topic\na;"x\ny"\n'


def test_a_line_that_tells_excel_the_separator_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("sep=;\ntext;topic\na;x\nb;y\nc;z\n")
    rewrite(path, [1], Asked(["text", "topic"]))
    assert path.read_text() == "sep=;\ntext;topic\na;x\nc;z\n"


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


def test_lines_of_interactions_are_not_taken_for_rows() -> None:
    """A row of the dataset is many lines, and its number that of a user: another user's lines would go."""
    for name in ("x.parquet", "x.csv", "x.jsonl"):
        assert can_rewrite(Path(name), Source())
        assert not can_rewrite(Path(name), Source(user="user"))
        assert can_rewrite(Path(name), Source(catalogue="items.csv"))
    assert not can_rewrite(Path("items.csv"), Source(catalogue="items.csv"))
