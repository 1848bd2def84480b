"""`graftline reproduce` on a real repository with git, DVC, components as processes and a store."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy_repository import add_raw, command, git, make_repository, run_components

from graftline import environment
from graftline.audit import checkouts
from graftline.audit.reproduce import reproduce as make_again
from graftline.audit.reproduction import PAYLOAD_TYPE, compare_metrics
from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.signing.envelope import open_envelope, signers
from graftline.signing.keys import load_keyring
from graftline.store import open_store


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
    return opened(make_again(open_store(str(repo / "store")), "toy@1", folder, anyway=anyway).sealed())


def opened(sealed: bytes) -> dict[str, Any]:
    envelope = open_envelope(sealed)
    assert signers(envelope, load_keyring(create=False).public)
    assert envelope.payload_type == PAYLOAD_TYPE
    return dict(json.loads(envelope.payload))


def change_record(repo: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record of the release as someone would who can also change the manifest."""
    folder = repo / "store/releases/toy/1"
    statement = json.loads((folder / f"records/{name}.json").read_bytes())
    change(statement["predicate"]["buildDefinition"])
    data = canonical_json(statement)
    (folder / f"records/{name}.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["records"][name] = sha256_bytes(data)
    for file in manifest["files"]:
        if file["path"] == f"records/{name}.json":
            file |= {"size": len(data), "sha256": sha256_bytes(data)}
    (folder / "manifest.json").write_bytes(canonical_json(manifest))


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
    done = command(repo, "reproduce", "toy@1")
    assert done.returncode == 2
    assert "not in the repository" in done.stderr


def test_a_metric_is_within_its_released_interval_or_not() -> None:
    released = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "loss": 1.0}
    (inside,) = compare_metrics(released, {"accuracy": 0.81, "loss": 5.0})
    (outside,) = compare_metrics(released, {"accuracy": 0.79})
    (gone,) = compare_metrics(released, {})
    assert [inside.within, outside.within, gone.within] == [True, False, False]
