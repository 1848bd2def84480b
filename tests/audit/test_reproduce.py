"""`graftline reproduce` on a real repository with git, DVC, components as processes and a store."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy_repository import add_raw, command, git, make_repository, run_components

from graftline import environment
from graftline.audit.reproduce import checkouts
from graftline.audit.reproduce.reproducing import reproduce as make_again
from graftline.audit.reproduce.steps import _PUBLISH
from graftline.audit.reproduce.verdict import PAYLOAD_TYPE, compare_metrics
from graftline.audit.verify.verifying import Options, verify
from graftline.canonical import canonical_json
from graftline.digests import RECORD
from graftline.records.folder import Draft as RecordDraft
from graftline.records.folder import write_record
from graftline.releases.catalogue import champion
from graftline.releases.layout import is_content
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.signing.envelope import STATEMENT_TYPE, open_envelope, seal, signers
from graftline.signing.keyring import load_keyring
from graftline.store.opening import open_store


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one release."""
    repo = tmp_path_factory.mktemp("template") / "repo"
    make_repository(repo, ("validate", "pretrain", "finetune", "evaluate"), "columns: {}\n")
    (repo / "data/toy/raw/rows.csv").write_text("a,b\n1,2\n")
    add_raw(repo)
    run_components(repo)
    return repo


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    for module in (environment, checkouts):
        monkeypatch.setattr(module, "ROOT", tmp_path / "repo")
    shutil.copytree(template.parent / "keys", tmp_path / "keys")
    return Path(shutil.copytree(template, tmp_path / "repo", symlinks=True))


def reproduce(repo: Path, *, anyway: bool = False) -> dict[str, Any]:
    """Return the verdict, of which the signature was checked. The components run in processes of their own."""
    folder = repo.parent / f"made-{len(list(repo.parent.iterdir()))}"
    folder.mkdir()
    last = max(path.name for path in (repo / "store/releases/toy").iterdir())
    return opened(make_again(open_store(str(repo / "store")), f"toy@{last}", folder, anyway=anyway).sealed())


def opened(sealed: bytes) -> dict[str, Any]:
    envelope = open_envelope(sealed)
    assert signers(envelope, load_keyring(create=False).public)
    assert envelope.payload_type == PAYLOAD_TYPE
    return dict(json.loads(envelope.payload))


def change_record(repo: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Release it again with a changed record, as someone would who may publish."""
    store, signer = open_store(str(repo / "store")), load_keyring().signer()
    folder = repo / "store/releases/toy/1"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    records = {of: (folder / f"records/{of}.json").read_bytes() for of in manifest["records"]}
    statement = json.loads(records[name])
    change(statement["predicate"]["buildDefinition"])
    records[name] = canonical_json(statement)
    draft = ReleaseDraft(
        "toy",
        {path: folder / path for path in content(manifest)},
        records,
        manifest["metrics"],
        envelopes={of: seal(data, STATEMENT_TYPE, signer) for of, data in records.items()},
        locks={digest: (repo / f"store/locks/{digest}.txt").read_bytes() for digest in manifest["locks"]},
    )
    publish(store, draft, Publication("changed"))


def content(manifest: dict[str, Any]) -> list[str]:
    return [file["path"] for file in manifest["files"] if is_content(file["path"])]


def name_commit(repo: Path, record: str) -> None:
    """Have the record name the present commit."""
    commit = git(repo, "rev-parse", "HEAD")

    def change(definition: dict[str, Any]) -> None:
        (code,) = (d for d in definition["resolvedDependencies"] if d["name"] == "code")
        code["digest"]["gitCommit"] = commit

    change_record(repo, record, change)


def test_a_release_is_made_again_bit_by_bit_though_the_work_tree_has_moved_on(repo: Path) -> None:
    (repo / "components/finetune/finetune.py").write_text("raise SystemExit('later work')\n")
    shutil.rmtree(repo / "data/toy/raw")
    done = command(repo, "reproduce", "toy@1", "--json")
    assert done.returncode == 0, done.stderr
    verdict = opened(done.stdout.strip().encode())
    assert (verdict["verdict"], verdict["first"]) == ("identical", None), verdict
    names = ["raw", "expectations", "dataset", "trunk", "model", "evaluation"]
    assert [(step["name"], step["same"]) for step in verdict["steps"]] == [(name, True) for name in names]


def test_other_raw_data_is_a_divergence_at_raw(repo: Path) -> None:
    (repo / "data/toy/raw/rows.csv").write_text("a,b\n1,3\n")
    add_raw(repo)
    name_commit(repo, "dataset")
    verdict = reproduce(repo)
    assert (verdict["verdict"], verdict["first"]) == ("diverged", "raw"), verdict


def test_a_changed_line_of_code_is_a_divergence_at_its_step(repo: Path) -> None:
    path = repo / "components/pretrain/pretrain.py"
    path.write_text(path.read_text().replace("sha256(str(", "sha256(2 * str("))
    git(repo, "commit", "-qam", "a changed line")
    name_commit(repo, "trunk")
    verdict = reproduce(repo)
    assert (verdict["verdict"], verdict["first"]) == ("diverged", "trunk"), verdict
    assert verdict["steps"][-1]["differing"] == ["model.safetensors"]


def test_a_changed_parameter_is_a_divergence_at_its_step(repo: Path) -> None:
    def change(definition: dict[str, Any]) -> None:
        definition["externalParameters"]["parameters"]["pretrain"]["rate"] = 0.2

    change_record(repo, "trunk", change)
    verdict = reproduce(repo)
    assert (verdict["verdict"], verdict["first"]) == ("diverged", "trunk"), verdict


def test_what_is_not_as_recorded_here_is_named_before_anything_runs(repo: Path) -> None:
    def change(definition: dict[str, Any]) -> None:
        code = next(d for d in definition["resolvedDependencies"] if d["name"] == "code")
        code["annotations"] = {"dirty": "ab" * 32}
        definition["resolvedDependencies"].append({"name": "image", "digest": {"sha256": "cd" * 32}})

    change_record(repo, "model", change)
    verdict = reproduce(repo)
    assert (verdict["verdict"], verdict["steps"]) == ("impossible", [])
    said = "\n".join(verdict["conditions"])
    assert "uncommitted changes (sha256 abababababab) that are not at hand" in said
    assert "image sha256:cdcdcdcdcdcd" in said
    verdict = reproduce(repo, anyway=True)
    assert verdict["verdict"] == "identical"
    assert verdict["conditions"]


def test_a_step_that_no_longer_runs_is_a_divergence_there(repo: Path) -> None:
    (repo / "components/validate/validate.py").write_text("raise SystemExit(1)\n")
    git(repo, "commit", "-qam", "a defect")
    name_commit(repo, "dataset")
    verdict = reproduce(repo)
    assert (verdict["verdict"], verdict["first"]) == ("diverged", "dataset"), verdict


def test_a_commit_that_is_not_here_is_said(repo: Path) -> None:
    def change(definition: dict[str, Any]) -> None:
        code = next(d for d in definition["resolvedDependencies"] if d["name"] == "code")
        code["digest"]["gitCommit"] = "12" * 20

    change_record(repo, "dataset", change)
    done = command(repo, "reproduce", "toy@2")
    assert done.returncode == 2
    assert "not in the repository" in done.stderr


def test_a_release_that_was_changed_is_not_sound_and_nothing_of_it_runs(repo: Path) -> None:
    """Somebody with the store's password changes the weights, or a record and all that names it."""
    for path, said in (
        ("model.safetensors", "tampered: releases/toy/1/model.safetensors: found sha256"),
        ("records/model.json", "tampered: releases/toy/1/records/model.json"),
        ("manifest.json", "tampered: releases/toy/1/manifest.json"),
    ):
        changed = repo / "store/releases/toy/1" / path
        before = changed.read_bytes()
        changed.write_bytes(before + b" ")
        verdict = reproduce(repo)
        assert (verdict["verdict"], verdict["steps"], verdict["commits"]) == ("not sound", [], []), verdict
        assert any(line.startswith(said) for line in verdict["reasons"]), verdict["reasons"]
        changed.write_bytes(before)
    (repo / "store/releases/toy/1/model.safetensors").write_bytes(b"other")
    done = command(repo, "reproduce", "toy@champion")
    assert done.returncode == 1 and "running again" not in done.stderr
    assert "toy@1: not sound" in done.stdout and "releases/toy/1/model.safetensors" in done.stdout


def test_a_file_that_none_of_the_steps_made_is_not_sound(repo: Path) -> None:
    """Whoever may publish adds a record of an own step, and its output: no step that is run again compares it."""
    store, folder = open_store(str(repo / "store")), repo / "store/releases/toy/1"
    planted = repo.parent / "planted"
    planted.mkdir()
    (planted / "model.pkl").write_bytes(b"runs on whoever loads it")
    write_record(planted, RecordDraft("finetune", "toy", "planted", {}))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    read = {of: (folder / f"records/{of}.json").read_bytes() for of in manifest["records"]}
    read["planted"] = (planted / RECORD).read_bytes()
    signer = load_keyring().signer()
    draft = ReleaseDraft(
        "toy",
        {path: folder / path for path in content(manifest)} | {"model.pkl": planted / "model.pkl"},
        read,
        manifest["metrics"],
        envelopes={of: seal(data, STATEMENT_TYPE, signer) for of, data in read.items()},
        locks={digest: (repo / f"store/locks/{digest}.txt").read_bytes() for digest in manifest["locks"]},
    )
    publish(store, draft, Publication("planted"))
    assert verify(store, "toy@2").whole, "it is what its writer signed"
    verdict = reproduce(repo)
    assert (verdict["verdict"], verdict["steps"]) == ("not sound", []), verdict
    assert any(line.startswith("model.pkl (sha256 ") for line in verdict["reasons"])


class VerifiedError(Exception):
    """The release was found sound; what is made again does not matter here."""


def test_a_machine_that_does_not_know_the_ledgers_key_is_told_it(repo: Path) -> None:
    first = json.loads((repo / "store/ledger/00000001.json").read_bytes())["key"]
    done = command(repo, "reproduce", "toy@1", "--key", "0" * 64)
    assert (done.returncode, f"unknown key: ledger/00000001.json: found key {first}" in done.stdout) == (1, True)
    shutil.rmtree(repo.parent / "keys")
    assert reproduce(repo)["verdict"] == "not sound"

    def stop(line: str) -> None:
        if line.startswith("checking out"):
            raise VerifiedError

    shutil.rmtree(repo.parent / "keys")
    with pytest.raises(VerifiedError):
        make_again(open_store(str(repo / "store")), "toy", repo.parent, options=Options(first_key=first), on_event=stop)


OLD_NAMES = """\
from graftline import store
from graftline.releases import publishing
from graftline.store.opening import open_store
publishing.Draft, store.open_store = publishing.ReleaseDraft, open_store
del publishing.ReleaseDraft
"""
"""A commit of the time when what publishes a release had these names."""


@pytest.mark.parametrize("names", ["", OLD_NAMES], ids=["these names", "earlier names"])
def test_the_champion_of_then_is_put_into_a_store_by_the_code_of_its_commit(tmp_path: Path, names: str) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/model.bin").write_bytes(b"weights")
    arguments = ["digits", "3", tmp_path / "files", tmp_path / "store"]
    script = names + _PUBLISH
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = champion(open_store(str(tmp_path / "store")), "digits")
    assert made is not None and (made.version, made.digest) == (3, done.stdout.strip())


def test_a_metric_is_within_its_released_interval_or_not() -> None:
    released = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "loss": 1.0}
    (inside,) = compare_metrics(released, {"accuracy": 0.81, "loss": 5.0})
    (outside,) = compare_metrics(released, {"accuracy": 0.79})
    (gone,) = compare_metrics(released, {})
    assert [inside.within, outside.within, gone.within] == [True, False, False]
