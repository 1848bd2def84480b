"""The MLflow file store, read by MLflow's own client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made import COMMIT, IMAGE, LOCK_DIGEST, METRICS

from graftline.errors import InputError
from graftline.exports.facts import Facts
from graftline.exports.mlflow import _safe, run_id, write_runs

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, facts: Facts) -> Path:
    place = tmp_path_factory.mktemp("mlflow") / "mlruns"
    write_runs(place, [facts])
    return place


@pytest.fixture
def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    from mlflow.tracking import MlflowClient  # a second of imports, in one worker

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient(tracking_uri=folder.as_uri())


@pytest.fixture
def run(client: MlflowClient) -> Run:
    experiment = client.get_experiment_by_name("graftline/digits")
    (found,) = client.search_runs([experiment.experiment_id])
    return found


def test_the_client_finds_a_finished_run_with_every_parameter_and_metric(run: Run, facts: Facts) -> None:
    assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id(facts), "digits@1", "FINISHED")
    assert run.data.params == {
        "dataset.validate.test_fraction": "0.2",
        "trunk.pretrain.objective.name": "masked_autoencoder",
        "trunk.pretrain.seed": "0",
        "model.finetune.epochs": "12",
        "model.finetune.learning_rate": "0.003",
        "model.finetune.head.name": "image_classification",
        "evaluation.evaluate.gate.min_accuracy": "0.9",
    }
    assert {name: run.data.metrics[name] for name in METRICS} == METRICS
    assert run.data.metrics["trunk.loss"] == 0.25


def test_digests_and_links_to_records_are_tags(run: Run, facts: Facts) -> None:
    tags = run.data.tags
    assert tags["graftline.manifest"] == facts.release.manifest
    for name, step in facts.named.items():
        assert tags[f"graftline.record.{name}"] == step.record.sha256
        assert tags[f"graftline.content.{name}"] == step.record.content
    assert tags["mlflow.source.git.commit"] == COMMIT
    assert (tags["graftline.image"], tags["graftline.lock"]) == (IMAGE, LOCK_DIGEST)


def test_what_went_in_is_a_data_set_input_of_its_step(run: Run, facts: Facts) -> None:
    found = {(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs}
    edges = {(f"digits/{i.name}", i.sha256) for step in facts.steps for i in step.record.inputs}
    assert found == edges and len(found) == 5
    assert {tag.value for one in run.inputs.dataset_inputs for tag in one.tags} <= {
        "validate",
        "pretrain",
        "finetune",
        "evaluate",
    }


def test_manifest_records_card_and_pictures_are_artifacts(client: MlflowClient, run: Run, facts: Facts) -> None:
    names = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert names >= {"manifest.json", "records", "README.md", "reliability.png"}
    assert "model.safetensors" not in names
    records = {one.path for one in client.list_artifacts(run.info.run_id, "records")}
    assert {f"records/{step.record.sha256}.json" for step in facts.steps} <= records
    fetched = Path(client.download_artifacts(run.info.run_id, "manifest.json"))
    assert fetched.read_bytes() == facts.manifest_data


def test_names_from_records_cannot_leave_the_folder(tmp_path: Path, facts: Facts) -> None:
    hostile = ["../../outside", "/etc/x", "a/b", "..", ".", "x" * 300, "a\nb", "<b>"]
    assert all("/" not in _safe(name) and set(_safe(name)) != {"."} and len(_safe(name)) < 250 for name in hostile)
    assert len({_safe(name) for name in hostile}) == len(hostile)
    metrics = dict.fromkeys(hostile, 1.0)
    write_runs(tmp_path / "mlruns", [replace(facts, manifest=facts.manifest | {"metrics": metrics})])
    assert not (tmp_path / "outside").exists()
    written = list((tmp_path / "mlruns").rglob("metrics/*"))
    assert len(written) == len(hostile) + 5


def test_a_folder_with_content_is_left_alone(tmp_path: Path, facts: Facts) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="there already, with content"):
        write_runs(tmp_path, [facts])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
