"""The committed pipeline in the built images, from the executor input to a release, a refusal, a cancelled run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import SMALL, TASK, Cluster, Run, running
from test_engine import graftline

from graftline.canonical import canonical_json, read_json
from graftline.digests import sha256_file
from graftline.images import Images
from graftline.records.folder import verify
from graftline.runs import begun, ends
from graftline.tasks.parameters import COMPONENTS

OUTPUTS = {"validate": "dataset", "pretrain": "trunk", "finetune": "model", "evaluate": "evaluation"}
RETRY = {"retries": {"limit": 2, "backoff_seconds": 1}}


@pytest.fixture(scope="module")
def cluster(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    folder = tmp_path_factory.mktemp("cluster")
    return Cluster(folder / "root", str(folder / "store"))


@pytest.fixture(scope="module")
def first(cluster: Cluster) -> Iterator[Run]:
    """A run to a release."""
    run = cluster.run()
    assert run.state == "COMPLETE", run.said()
    yield run


def test_every_step_leaves_its_word(first: Run) -> None:
    said = first.said()
    assert [attempt.step for attempt in said] == ["claim", "fetch", *COMPONENTS, "conclude"]
    assert {attempt.code for attempt in said} == {0}
    assert {source.run for attempt in said for source in attempt.inputs.values()} == {first.backend.id}
    assert all(attempt.pod.startswith("retrain-mnist-") and attempt.node and attempt.image for attempt in said)


@pytest.mark.timeout(600)
def test_the_committed_pipeline_makes_what_dvc_makes(first: Run, checkout: Path, tmp_path: Path) -> None:
    """Every output and the release, byte for byte."""
    changes = [part for name, value in SMALL.items() for part in ("--set", f"{name}={canonical_json(value).decode()}")]
    done = graftline(checkout, "run", TASK, "--store", str(tmp_path / "store"), *changes)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    folder = checkout / "outputs" / TASK
    for step, output in OUTPUTS.items():
        one, two = verify(folder / output), verify(first.output(step, output))
        assert one.content == two.content, output
        assert one.environment == two.environment, "one determinism tuple"
    for output, name in (("model", "model.safetensors"), ("evaluation", "predictions.parquet")):
        made = next(step for step, known in OUTPUTS.items() if known == output)
        assert sha256_file(folder / output / name) == sha256_file(first.output(made, output) / name)
    receipts = [read_json(f / "release.json") for f in (folder / "release", first.output("publish", "release"))]
    assert receipts[0]["digest"] == receipts[1]["digest"]


def test_a_second_run_takes_from_the_cache_what_is_in_it_and_says_so(first: Run, cluster: Cluster) -> None:
    """K19."""
    run = cluster.run()
    assert run.state == "COMPLETE", run.said()
    assert run.cached == ["fetch", "validate", "pretrain", "finetune"]
    [evaluated] = run.said("evaluate")
    assert {source.run for source in evaluated.inputs.values()} == {first.backend.id}
    assert not run.said("pretrain")


def test_another_head_skips_pretraining_and_a_refusal_is_3_in_the_steps_word_and_1_to_the_back_end(
    first: Run, cluster: Cluster
) -> None:
    """K4."""
    run = cluster.run(plan=RETRY, finetune__learning_rate=0.002, evaluate__gate={"floors": {"accuracy": 0.9999}})
    assert run.cached == ["fetch", "validate", "pretrain"]
    [tuned] = run.said("finetune")
    assert tuned.inputs["trunk"].run == first.backend.id
    assert run.state == "FAILED"
    assert run.codes["publish"] == [1]
    [said] = run.said("publish")
    assert said.code == 3
    assert "floors.accuracy" in said.line


def test_bad_data_ends_with_2_and_is_not_tried_again(cluster: Cluster) -> None:
    """K6: whatever retries there are."""
    with running(cluster.start(plan=RETRY, given={"data_digest": "0" * 64})) as run:
        run.thread.join()
    assert run.state == "FAILED"
    assert run.codes["fetch"] == [1]
    [said] = run.said("fetch")
    assert said.code == 2
    assert "raw data and contract have sha256" in said.line
    assert [attempt.step for attempt in run.said()] == ["claim", "fetch", "conclude"]


KILL = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    words = open(f"/proc/{pid}/cmdline").read().split(chr(0))
    if "graftline.components.pretrain" in words:
        os.kill(int(pid), signal.SIGKILL)
"""


def test_a_step_that_fails_is_tried_again_in_its_container_and_a_lost_pod_is_made_again(
    first: Run, cluster: Cluster
) -> None:
    """K8, in one run: pretrain's program is killed, finetune's container is removed."""
    with running(cluster.start(plan=RETRY, pretrain__epochs=1)) as run:
        run.wait_for("pretrain", "pretrain mnist: ")
        subprocess.run(["docker", "exec", container_of(run), "python", "-c", KILL], check=True, capture_output=True)
        run.wait_for("pretrain", "tried again in 1 s")
        run.wait_for("finetune", "finetune mnist: ")
        subprocess.run(["docker", "rm", "--force", container_of(run)], check=True, capture_output=True)
        run.thread.join()
    assert run.state == "COMPLETE"
    assert run.codes["pretrain"] == [0], "one pod"
    assert [attempt.code for attempt in run.said("pretrain")] == [137, 0]
    assert run.codes["finetune"] == [None, 0]


def container_of(run: Run) -> str:
    command = ["docker", "ps", "--quiet", f"--filter=label=graftline.dev/run={run.backend.id}"]
    [name] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return name


@pytest.mark.timeout(900)
def test_a_run_of_the_same_work_goes_on_where_a_cancelled_one_stopped(
    images: Images, s3_url: str, tmp_path: Path
) -> None:
    """K7, K9: the step lives under a second after SIGTERM, so it is the interval's checkpoints that count."""
    cluster = Cluster(tmp_path / "root", s3_url)
    plan = {"checkpoint_seconds": 1.0}
    with running(cluster.start(plan=plan, pretrain__epochs=4)) as run:
        run.wait_for("pretrain", "pretrain mnist: ")
        while not cluster.store.list("checkpoints/"):
            assert run.thread.is_alive(), run.log("pretrain")
        run.cancel()
        run.thread.join()
    assert run.state == "RUNNING", "the back end's last word, which the exit handler is told (K11)"
    assert run.codes["pretrain"] == [143]
    assert [*run.codes][-2:] == ["pretrain", "conclude"]
    assert cluster.store.list("checkpoints/")
    again = cluster.run(plan=plan, pretrain__epochs=4)
    assert again.state == "COMPLETE"
    assert again.cached == ["fetch", "validate"]
    assert re.search(r"going on from step [1-9]\d* of", again.log("pretrain"))
    assert cluster.store.list("checkpoints/") == []


def test_how_runs_ended_is_in_the_store(first: Run, cluster: Cluster) -> None:
    [end] = ends(cluster.store, first.backend.id)
    assert (end.state, end.start.task) == ("SUCCEEDED", TASK)
    assert begun(cluster.store, first.backend.id) is None
