"""What reconcile asks of the Kubernetes API, over a socket: which runs have a workflow, and what ended runs left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kubernetes_server import Backend, serve, write_kubeconfig

from graftline import runs
from graftline.errors import BackendError
from graftline.learning.remote import GIVEN_UP
from graftline.pipelines.reconcile import cluster
from graftline.pipelines.reconcile.cluster import RunsOfCluster
from graftline.pipelines.trainjob.manifest import RUN_LABEL
from graftline.store import Store
from graftline.store.opening import open_store

NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    made = Backend()
    with serve(made) as url:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", url)))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        monkeypatch.setattr("graftline.pipelines.trainjob.cluster._PAUSE_SECONDS", 0.0)
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def workflow(backend: Backend, run: str) -> None:
    backend.put(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": f"retrain-{run}", "namespace": "graftline", "labels": {"pipeline/runid": run}},
        }
    )


def job(backend: Backend, run: str) -> None:
    backend.put(
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": f"pretrain-{run}", "namespace": "graftline", "labels": {RUN_LABEL: run}},
            "spec": {"runtimeRef": {"name": "graftline"}},
        }
    )


def test_a_run_without_a_workflow_is_a_ghost(backend: Backend) -> None:
    """K21."""
    for number in range(0, 130, 2):
        workflow(backend, f"run-{number}")
    asked = {f"run-{number}" for number in range(120)}
    ghosts = RunsOfCluster("graftline").ghosts(asked)
    assert ghosts == {f"run-{number}" for number in range(1, 120, 2)}


def test_a_cluster_that_knows_none_of_the_runs_may_be_another_one(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workflow(backend, "somebody")
    assert RunsOfCluster("graftline").ghosts({"run-1"}) == set()
    (tmp_path / "token").touch()
    monkeypatch.setattr(cluster, "_ACCOUNT", tmp_path / "token")  # a pod asks its own
    assert RunsOfCluster("graftline").ghosts({"run-1"}) == {"run-1"}


def test_without_the_right_or_a_cluster_it_says_so_once_and_goes_by_kubeflow(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    backend.fault = lambda request: 403
    one = RunsOfCluster("graftline")
    for _ in range(2):
        assert one.ghosts({"run-1"}) == set()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "namespace graftline: workflows cannot be listed: 403" in said[0]


def test_an_outage_is_no_ghost(backend: Backend) -> None:
    backend.fault = lambda request: 503
    with pytest.raises(BackendError, match="the Kubernetes API: 503"):
        RunsOfCluster("graftline").ghosts({"run-1"})


def test_jobs_and_hand_overs_of_runs_that_have_ended_go_and_no_others(backend: Backend, store: Store) -> None:
    """K40, K42: a launcher that died leaves its job; one that is at work again after a retry keeps it. Checkpoints of
    what was given up go later."""
    for run in ("over", "at-work", "again", "unknown"):
        job(backend, run)
        store.put_if_absent(f"handover/{run}/pretrain/note.x", b"")
    for run in ("over", "again"):
        runs.conclude(store, runs.End(runs.Start(run, "k", "digits"), "CANCELED"))
    runs.begin(store, runs.Start("at-work", "k", "digits"))
    runs.begin_again(store, "again")
    given_up, kept = (f"checkpoints/pretrain/0123456789abcdef/{run}/00000001.json" for run in ("old", "recent"))
    for run, key, ended in (("old", given_up, NOW - GIVEN_UP * 2), ("recent", kept, NOW)):
        store.put_if_absent(key, b"{}")
        runs.conclude(store, runs.End(runs.Start(run, "k", "digits"), "CANCELED", ended=ended.isoformat()))
    assert RunsOfCluster("graftline").clean(store, NOW) == ["over"]
    assert store.list("checkpoints/") == [kept]
    assert backend.deleted == ["pretrain-over"]
    assert {key.split("/")[1] for key in store.list("handover/")} == {"at-work", "again", "unknown"}
    assert RunsOfCluster("graftline").clean(store, NOW) == []
