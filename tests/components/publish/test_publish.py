"""publish: releases what the gate passed, of inputs that belong together, and says no loudly otherwise."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline import runs
from graftline.audit.verify.verifying import verify as verify_all
from graftline.canonical import read_json
from graftline.component import Component, Context, main
from graftline.components.publish import COMPONENT
from graftline.digests import ENVELOPE, RECORD, sha256_bytes, sha256_file
from graftline.environment import lock_bytes
from graftline.index.opening import open_index
from graftline.ledger.entries import Fact
from graftline.ledger.log import Ledger, read_chain
from graftline.profiles import STEPS
from graftline.records.folder import Draft, read_record, verify, write_record
from graftline.records.model import Dependency
from graftline.releases.catalogue import champion, list_releases, resolve
from graftline.releases.fetching import fetch
from graftline.rows.blocklist import block
from graftline.rows.finding import RowHit, find_row
from graftline.rows.subjects import hash_subject, load_key
from graftline.signing.keyring import load_keyring
from graftline.store import Store
from graftline.store.opening import open_store

RULE = {"name": "min_accuracy", "passed": True, "value": 0.975, "limit": 0.97, "comparison": ">=", "margin": 0.005}
DIGESTS = [bytes.fromhex(sha256_bytes(b"a row")), bytes.fromhex(sha256_bytes(b"another row"))]
PASSED = {"passed": True, "reason": "min_accuracy by 0.005", "rules": [RULE], "champion": None}


def make(
    folder: Path, name: str, component: str, files: dict[str, bytes], inputs: tuple[Path, ...] = (), **facts: Any
) -> Path:
    """Write one output with its record, as its component would."""
    out = folder / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path, data in files.items():
        (out / path).write_bytes(data)
    dependencies = [Dependency(path.name, (r := read_record(path)).content, r.sha256) for path in inputs]
    write_record(out, Draft(component, "digits", name, dependencies=dependencies, **facts))
    return out


SCORED = {
    "accuracy": 0.975,
    "ece": 0.01,
    "primary": "accuracy",
    "scores": {"accuracy": {"value": 0.975, "interval": None, "direction": "higher", "title": "a", "share": True}},
}


def evaluate(
    folder: Path, decision: dict[str, Any], inputs: tuple[Path, ...] | None = None, more: dict[str, float] | None = None
) -> None:
    metrics = SCORED | (more or {})
    files = {
        "metrics.json": json.dumps(metrics).encode(),
        "decision.json": json.dumps(decision).encode(),
        "lift.png": b"a plot",
        "predictions.parquet": b"not released",
    }
    given = inputs or (folder / "dataset", folder / "trunk", folder / "model")
    make(folder, "evaluation", "evaluate", files, given, metrics=metrics)


@pytest.mark.parametrize("metrics", [SCORED, {"accuracy": 0.975, "accuracy_low": 0.96, "ece": 0.01}])
def test_metrics_with_scores_and_those_of_before_are_released_as_they_are(
    outputs: Path, metrics: dict[str, Any]
) -> None:
    evaluate(outputs, PASSED)
    files = {"metrics.json": json.dumps(metrics).encode(), "decision.json": json.dumps(PASSED).encode()}
    make(outputs, "evaluation", "evaluate", files, tuple(outputs / n for n in ("dataset", "trunk", "model")))
    assert run(outputs) == 0
    release = resolve(open_store(str(outputs / "store")), "digits")
    manifest = json.loads(Path(release.path, "manifest.json").read_text())
    assert manifest["metrics"] == metrics
    assert "direction" not in Path(release.path, "README.md").read_text(), "the card tells numbers"


def row_table() -> bytes:
    """Return a rows.parquet as validate writes it, of one row for training and one for the test."""
    columns = {"row": [0, 1], "digest": pa.array(DIGESTS, pa.binary(32)), "split": ["train", "test"]}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """The outputs of the four components before publish."""
    folder = tmp_path / "outputs"
    dataset = make(
        folder,
        "dataset",
        "validate",
        {"schema.json": b"{}", "profile.json": b'{"rows": 10}', "train.parquet": b"rows", "rows.parquet": row_table()},
        metrics={"rows_train": 8},
    )
    trunk = make(
        folder, "trunk", "pretrain", {"trunk.safetensors": b"trunk"}, (dataset,), parameters={"pretrain": {"epochs": 3}}
    )
    make(
        folder,
        "model",
        "finetune",
        {"model.safetensors": b"weights", "head.json": b"{}", "tokenizer.json": b"{}", "metrics.jsonl": b""},
        (dataset, trunk),
        parameters={"finetune": {"learning_rate": 0.001}},
    )
    evaluate(folder, PASSED)
    return folder


def run(outputs: Path, component: Component = COMPONENT, **publish: Any) -> int:
    """Run the component as an engine does; return its exit code."""
    document = json.dumps({"task": "digits", "publish": publish})
    arguments = ["--params", document, "--out-release", str(outputs / "release"), "--store", str(outputs / "store")]
    for name in COMPONENT.inputs:
        arguments += [f"--in-{name}", str(outputs / name)]
    try:
        main(component, arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_passed_model_is_released_with_its_files_and_chain(outputs: Path) -> None:
    assert run(outputs, licence="Apache-2.0") == 0
    store = open_store(str(outputs / "store"))
    release = resolve(store, "digits@champion")
    folder = fetch(store, release)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "README.md",
        "claim.json",
        "head.json",
        "lift.png",
        "manifest.json",
        "metrics.json",
        "model.safetensors",
        "model.sig",
        "profile.json",
        "records/dataset.json",
        "records/evaluation.json",
        "records/model.json",
        "records/trunk.json",
        "schema.json",
        "tokenizer.json",
    ]
    for name in ("dataset", "trunk", "model", "evaluation"):
        record = (outputs / name / "record.json").read_bytes()
        assert (folder / "records" / f"{name}.json").read_bytes() == record
        check_kept(store, outputs / name)
    assert read_json(outputs / "release" / "release.json") == {
        "task": "digits",
        "version": 1,
        "digest": release.digest,
        "alias": "champion",
        "promoted": True,
        "manifest": sha256_file(folder / "manifest.json"),
        "previous_champion": None,
        "equal": False,
    }
    assert verify(outputs / "release").metrics == {"version": 1, "promoted": 1}


def test_the_rows_of_what_was_released_are_found_with_their_splits(outputs: Path) -> None:
    assert run(outputs) == 0
    store, dataset = open_store(str(outputs / "store")), read_record(outputs / "dataset").content
    assert find_row(store, DIGESTS[0]) == [RowHit("digits", dataset, 0, "train")]
    assert find_row(store, DIGESTS[1]) == [RowHit("digits", dataset, 1, "test")]
    assert verify_all(store).whole


def test_a_row_that_was_erased_meanwhile_does_not_come_back(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(str(outputs / "store"))
    block(store, "digits", [DIGESTS[1].hex()], [])
    assert run(outputs) == 2
    assert "1 rows that were erased" in capsys.readouterr().err
    assert not store.list("releases/") and not store.list("rows/")


def test_rows_that_were_erased_do_not_come_back_by_a_refused_model(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(outputs / "store"))
    block(store, "digits", [DIGESTS[1].hex()], [])
    evaluate(outputs, PASSED | {"passed": False, "reason": "no"})
    assert run(outputs) == 3
    assert "1 rows that were erased" in capsys.readouterr().err
    assert not store.list("rows/") and not store.list("records/")


@pytest.mark.parametrize("passed", [True, False])
def test_a_machine_that_the_ledger_does_not_trust_writes_no_row_index(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed: bool
) -> None:
    store = open_store(str(outputs / "store"))
    with monkeypatch.context() as patch:
        patch.setenv("GRAFTLINE_KEYS", str(tmp_path / "theirs"))
        Ledger(store).append(lambda _: Fact("release", "other", 1, "0" * 64, "theirs"))
    evaluate(outputs, PASSED | {"passed": passed, "reason": "no"})
    assert run(outputs) == 3
    assert not store.list("rows/") and not store.list("records/")


@pytest.mark.parametrize("other", [True, False])
def test_a_dataset_is_refused_whose_persons_cannot_be_compared_with_those_erased(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: bool
) -> None:
    columns = {"row": [0], "digest": pa.array(DIGESTS[:1], pa.binary(32)), "split": ["train"]}
    columns["subject"] = pa.array([hash_subject("ada", load_key(create=True))], pa.binary(16))
    dataset = outputs / "dataset"
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    files = {"schema.json": b"{}", "profile.json": b'{"rows": 10}', "rows.parquet": file.getvalue()}
    make(outputs, "dataset", "validate", files)
    make(outputs, "trunk", "pretrain", {"trunk.safetensors": b"trunk"}, (dataset,))
    model = {"model.safetensors": b"weights", "head.json": b"{}"}
    make(outputs, "model", "finetune", model, (dataset, outputs / "trunk"))
    evaluate(outputs, PASSED)
    key = b"k" * 32 if other else load_key(create=False)
    block(open_store(str(outputs / "store")), "digits", [], [hash_subject("bob", key).hex()], key=key)
    assert run(outputs) == (2 if other else 0)
    assert ("another key for subjects" in capsys.readouterr().err) == other


@pytest.mark.parametrize("gone", [[], ["rows/tasks/"], ["rows/tasks/", "index.json"]])
def test_a_publication_that_was_killed_around_the_row_index_leaves_a_sound_store_and_goes_on(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, gone: list[str]
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    module = sys.modules["graftline.components.publish.publish"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", kill)
        assert run(outputs) == 130
    store = open_store(str(outputs / "store"))
    for key in store.list("rows/"):  # what a kill still earlier would not have stored
        if any(part in key for part in gone):
            store.delete(key)
    assert list_releases(store) == []
    assert len(store.list("rows/")) == 3 - len(gone)
    assert verify_all(store).whole
    assert run(outputs) == 0
    assert len(find_row(store, DIGESTS[0])) == 1
    assert verify_all(store).whole


def test_rows_that_were_struck_off_the_index_of_a_release_are_found_missing(outputs: Path) -> None:
    assert run(outputs) == 0
    store = open_store(str(outputs / "store"))
    store.delete("rows/tasks/digits.json")
    assert not verify_all(store).whole
    for key in store.list("rows/"):
        if key.endswith("index.json"):
            store.delete(key)
    assert not verify_all(store).whole


def test_the_model_card_holds_facts_only_and_is_the_same_each_time(outputs: Path) -> None:
    assert run(outputs, licence="Apache-2.0", intended_use="Reads single digits.") == 0
    one = resolve(open_store(str(outputs / "store")), "digits")
    (outputs / "store").rename(outputs / "another")
    assert run(outputs, licence="Apache-2.0", intended_use="Reads single digits.") == 0
    two = resolve(open_store(str(outputs / "store")), "digits")
    assert one.digest == two.digest
    card = Path(two.path, "README.md").read_text()
    for fact in (
        'license: "Apache-2.0"',
        "Reads single digits.",
        "| accuracy | 0.975 |",
        "| rows_train | 8 |",
        "| pretrain.epochs | 3 |",
        "| finetune.learning_rate | 0.001 |",
        "![lift](lift.png)",
        "data/digits/README.md",
        read_record(outputs / "trunk").content,
    ):
        assert fact in card
    assert two.created[:10] not in card


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"passed": False, "rules": [RULE | {"passed": False, "value": 0.95}]},
            "min_accuracy is 0.95, must be >= 0.97: off by 0.02",
        ),
        (
            {"rules": [RULE | {"value": 0.95}]},
            "min_accuracy is 0.95, must be >= 0.97: off by 0.02, though the decision says that it passed",
        ),
        (
            {"rules": [RULE, RULE | {"name": "max_ece", "comparison": "<=", "value": 0.09, "limit": 0.05}]},
            "max_ece is 0.09, must be <= 0.05: off by 0.04, though the decision says that it passed",
        ),
        ({"passed": False, "reason": "the champion could not be compared"}, "the champion could not be compared"),
        (
            {"rules": [{"name": "max_champion_loss", "passed": False, "value": None, "limit": 0.0}]},
            "max_champion_loss (no value)",
        ),
    ],
)
def test_a_refused_model_is_not_released_and_the_rule_is_named(
    outputs: Path, change: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(outputs, PASSED | change)
    assert run(outputs) == 3
    assert capsys.readouterr().err == f"publish: digits: nothing was released; {line}\n"
    assert not (outputs / "release").exists()
    store = open_store(str(outputs / "store"))
    assert not list_releases(store)
    assert not read_chain(store).entries
    for name in ("dataset", "trunk", "model", "evaluation"):
        check_kept(store, outputs / name)


def check_kept(store: Store, output: Path) -> None:
    """The record of an output is in the store with its envelope, the signer's key and the lock that it names."""
    record = (output / RECORD).read_bytes()
    signer = load_keyring().signer()
    assert store.get(f"records/{sha256_bytes(record)}.json").data == record
    envelope = store.get(f"signatures/{sha256_bytes(record)}/{signer.keyid}.json").data
    assert envelope == (output / ENVELOPE).read_bytes()
    assert store.get(f"keys/{signer.keyid}.pem").data.decode() == signer.public.pem
    lock = lock_bytes()
    assert lock is not None
    assert store.get(f"locks/{sha256_bytes(lock)}.txt").data == lock


def test_a_refusal_stands_when_the_store_fails(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(outputs, PASSED | {"passed": False, "reason": "no"})
    (outputs / "store").write_text("a file where the folder should be")
    assert run(outputs) == 3
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("publish: warning: the records of what was refused are not in the store: ")
    assert said[1] == "publish: digits: nothing was released; no"


def test_an_input_that_was_signed_by_nobody_we_know_is_refused(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "another"))
    assert run(outputs) == 2
    assert "record.dsse.json: signed by key" in (line := capsys.readouterr().err)
    assert "which is not known here; expected the signature of a key trusted in" in line
    assert not (outputs / "store").exists()


def test_a_signature_that_changed_after_it_was_verified_is_refused(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> Callable[[Context], None]:  # the inputs are verified by now
        (outputs / "evaluation" / ENVELOPE).write_bytes((outputs / "model" / ENVELOPE).read_bytes())
        return COMPONENT.load()

    assert run(outputs, replace(COMPONENT, load=load)) == 2
    assert "the envelope of evaluation: it signs other bytes" in capsys.readouterr().err
    kept = open_store(str(outputs / "store")).list("")
    assert {key.split("/")[0] for key in kept} == {"rows"}, "nothing that would vouch for it"


@pytest.mark.parametrize(
    "change",
    [
        {"rules": None},
        {"passed": "yes"},
        {"champion": {"version": "x"}},
        {"rules": [{"passed": True}]},
        {"rules": [RULE | {"value": "0.99"}]},
        {"rules": [RULE | {"comparison": ">"}]},
    ],
)
def test_a_decision_that_is_none_is_bad_input(
    outputs: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(outputs, PASSED | change)
    assert run(outputs) == 2
    assert "decision.json: not a decision" in capsys.readouterr().err


def test_an_evaluation_of_another_model_is_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = (outputs / "dataset", outputs / "trunk")
    make(outputs, "model", "finetune", {"model.safetensors": b"other weights", "head.json": b"{}"}, inputs)
    assert run(outputs) == 2
    assert "--in-evaluation: its record names model" in capsys.readouterr().err
    assert not (outputs / "store").exists()


def test_a_model_of_equal_content_but_another_origin_is_refused(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = (outputs / "dataset", outputs / "trunk")
    files = {"model.safetensors": b"weights", "head.json": b"{}"}
    make(outputs, "model", "finetune", files, inputs, parameters={"finetune": {"learning_rate": 0.5}})
    assert run(outputs) == 2
    assert "--in-evaluation: its record names model" in capsys.readouterr().err


def test_a_model_from_another_trunk_is_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(outputs, "trunk", "pretrain", {"trunk.safetensors": b"other"}, (outputs / "dataset",))
    evaluate(outputs, PASSED)
    assert run(outputs) == 2
    assert "--in-model: its record names trunk" in capsys.readouterr().err


def test_an_evaluation_that_names_no_model_is_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(outputs, PASSED, (outputs / "dataset", outputs / "trunk"))
    assert run(outputs) == 2
    assert "--in-evaluation: its record names model not at all" in capsys.readouterr().err


def test_a_missing_file_is_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = (outputs / "dataset", outputs / "trunk")
    make(outputs, "model", "finetune", {"model.safetensors": b"weights"}, inputs)
    evaluate(outputs, PASSED)
    assert run(outputs) == 2
    assert "head.json: the file is missing" in capsys.readouterr().err


def test_a_model_that_was_not_compared_with_the_champion_is_released_but_not_promoted(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(outputs) == 0
    assert capsys.readouterr().err == ""
    remake(outputs, b"other weights")
    assert run(outputs) == 0
    warning = capsys.readouterr().err
    standing = resolve(open_store(str(outputs / "store")), "digits")
    assert warning == (
        "publish: warning: digits@2 was released but not promoted: it was compared with no champion, and the "
        f"champion is digits@1 ({standing.digest[:12]}); run evaluate again to compare with that, then publish\n"
    )
    receipt = read_json(outputs / "release" / "release.json")
    assert (receipt["version"], receipt["promoted"], receipt["previous_champion"]["version"]) == (2, False, 1)
    assert standing.version == 1
    evaluate(outputs, PASSED | {"champion": {"version": 1, "digest": standing.digest}})
    assert run(outputs) == 0
    assert capsys.readouterr().err == "publish: equal to digits@2: no new version was made\n"
    assert resolve(open_store(str(outputs / "store")), "digits").version == 2


def remake(outputs: Path, weights: bytes) -> None:
    """Make the model, and its evaluation, of other weights."""
    inputs = (outputs / "dataset", outputs / "trunk")
    files = {"model.safetensors": weights, "head.json": b"{}", "tokenizer.json": b"{}", "metrics.jsonl": b""}
    make(outputs, "model", "finetune", files, inputs, parameters={"finetune": {"learning_rate": 0.001}})
    evaluate(outputs, PASSED)


def compared(outputs: Path, **metrics: float) -> dict[str, Any]:
    """Evaluate against the champion of now, as a run does; return that release's version and digest."""
    found = champion(open_store(str(outputs / "store")), "digits")
    assert found is not None
    against = {"version": found.version, "digest": found.digest}
    evaluate(outputs, PASSED | {"champion": against}, more={"champion_accuracy": 0.9, **metrics})
    return against


def test_a_run_that_makes_the_same_again_makes_no_version_and_says_which_it_equals(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """K36: the second run of the same work is compared with what the first released, so its evaluation differs."""
    assert run(outputs) == 0
    against = compared(outputs)
    assert run(outputs) == 0
    assert capsys.readouterr().err == "publish: equal to digits@1: no new version was made\n"
    store = open_store(str(outputs / "store"))
    assert [release.version for release in list_releases(store)] == [1]
    assert [entry.event for entry in read_chain(store).entries] == ["key", "release", "promote"]
    receipt = read_json(outputs / "release" / "release.json")
    assert (receipt["version"], receipt["equal"], receipt["promoted"]) == (1, True, True)
    assert (receipt["digest"], receipt["manifest"]) == (against["digest"], resolve(store, "digits").manifest)
    check_kept(store, outputs / "evaluation")
    assert verify_all(store).whole


def run_on_cluster(outputs: Path, name: str) -> runs.Attempt:
    """Run the step as a cluster's container does; return its word."""
    inputs = {
        of: {"artifacts": [{"uri": str(outputs / of), "metadata": {}}]}
        for of in ("dataset", "trunk", "model", "evaluation")
    }
    given = {
        "inputs": {
            "parameterValues": {"params": '{"task": "digits"}', "store": str(outputs / "store")},
            "artifacts": inputs,
        },
        "outputs": {
            "artifacts": {"release": {"artifacts": [{"uri": str(outputs / "release")}]}},
            "outputFile": str(outputs / "output.json"),
        },
    }
    command = [sys.executable, "-m", "graftline.pipelines.step", "publish", "--executor-input", json.dumps(given)]
    done = forked.run(command, env=os.environ | {"GRAFTLINE_RUN": name}, text=True)
    assert done.returncode == 0, done.stderr
    (word,) = runs.attempts(open_store(str(outputs / "store")), name, "publish")
    return word


def test_a_cluster_run_that_makes_the_same_again_says_so_in_its_word_and_its_end(outputs: Path) -> None:
    """K36, K28: the run's end names the release; the release's id of its run is that of the first."""
    first = run_on_cluster(outputs, "5a6bdf78-0000-4000-8000-000000000000")
    compared(outputs)
    second = run_on_cluster(outputs, "11111111-0000-4000-8000-000000000000")
    said = "publish: equal to digits@1: no new version was made"
    assert (first.line, second.line) == ("", said)
    assert runs.decide([second], "SUCCEEDED", STEPS) == ("SUCCEEDED", "publish", said)
    with open_index(open_store(str(outputs / "store"))) as index:
        (release,) = index.releases("digits")
        assert release.run == first.run


@pytest.mark.parametrize(
    ("what", "parameters"),
    [("accuracy", {}), ("licence", {"licence": "MIT"}), ("use", {"intended_use": "Reads letters."}), ("weights", {})],
)
def test_a_release_that_says_or_is_anything_else_is_a_version_of_its_own(
    outputs: Path, what: str, parameters: dict[str, str]
) -> None:
    assert run(outputs) == 0
    if what == "weights":
        remake(outputs, b"other weights")
    compared(outputs, **({"accuracy": 0.976} if what == "accuracy" else {}))
    assert run(outputs, **parameters) == 0
    assert resolve(open_store(str(outputs / "store")), "digits").version == 2


def test_one_that_equals_an_earlier_release_moves_the_alias_back_to_it(outputs: Path) -> None:
    """As after a revert: the version of then is the champion again, and the ledger says so."""
    assert run(outputs) == 0
    remake(outputs, b"other weights")
    compared(outputs)
    assert run(outputs) == 0
    remake(outputs, b"weights")
    compared(outputs)
    assert run(outputs) == 0
    store = open_store(str(outputs / "store"))
    said = [(entry.event, entry.version) for entry in read_chain(store).entries]
    assert said == [("key", 0), ("release", 1), ("promote", 1), ("release", 2), ("promote", 2), ("promote", 1)]
    receipt = read_json(outputs / "release" / "release.json")
    assert (receipt["version"], receipt["equal"], receipt["previous_champion"]["version"]) == (1, True, 2)
    assert resolve(store, "digits").version == 1 and verify_all(store).whole
    assert run(outputs) == 0, "and once more"
    assert len(read_chain(store).entries) == len(said)


def test_one_that_equals_a_release_whose_files_are_gone_is_released(outputs: Path) -> None:
    assert run(outputs) == 0
    store = open_store(str(outputs / "store"))
    store.delete("releases/digits/1/model.safetensors")
    compared(outputs)
    assert run(outputs) == 0
    assert resolve(store, "digits").version == 2


def test_a_killed_publication_is_finished_although_an_equal_release_came_meanwhile(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a version, so a reader may have seen its number: it gets what it began."""

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("GRAFTLINE_RUN", "killed")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["graftline.releases.publishing"], "_upload", kill)
        assert run(outputs) == 130
    monkeypatch.setenv("GRAFTLINE_RUN", "other")
    assert run(outputs) == 0
    monkeypatch.setenv("GRAFTLINE_RUN", "killed")
    for _ in range(2):
        assert run(outputs) == 0
        receipt = read_json(outputs / "release" / "release.json")
        assert (receipt["version"], receipt["equal"]) == (1, False)
    store = open_store(str(outputs / "store"))
    assert sorted(release.version for release in list_releases(store)) == [1, 2]
    assert verify_all(store).whole


@pytest.mark.parametrize("changed", ["model/model.safetensors", "evaluation/metrics.json", "dataset/schema.json"])
def test_a_file_that_changed_after_it_was_verified_is_refused(
    outputs: Path, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> Callable[[Context], None]:  # the inputs are verified by now
        (outputs / changed).write_bytes(b'{"accuracy": 1.0}')
        return COMPONENT.load()

    assert run(outputs, replace(COMPONENT, load=load)) == 2
    assert f"{changed}: changed while publishing; run publish again" in capsys.readouterr().err
    assert not (outputs / "store").exists()


def test_the_alias_is_a_parameter(outputs: Path) -> None:
    assert run(outputs, alias="candidate") == 0
    store = open_store(str(outputs / "store"))
    assert champion(store, "digits") is None
    assert resolve(store, "digits@candidate").version == 1


def test_a_retry_under_the_same_run_key_releases_once(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_RUN", "run-7")
    assert run(outputs) == 0
    first = read_json(outputs / "release" / "release.json")
    shutil.rmtree(outputs / "release")
    assert run(outputs) == 0
    assert read_json(outputs / "release" / "release.json") == first
    store = open_store(str(outputs / "store"))
    assert len(list_releases(store)) == 1
    assert [entry.event for entry in read_chain(store).entries] == ["key", "release", "promote"]
