"""Several processes, real ones that torchrun starts: they learn what one process learns."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

import small
import team

from graftline.component import main
from graftline.components.publish import COMPONENT as PUBLISH
from graftline.errors import InputError
from graftline.learning.distributed import World, share
from graftline.learning.metrics import read_metrics
from graftline.records.folder import verify

STEP = {"steps": 1, "sgd": True, "rate": 1.0}
"""With rate 1 the weights change by the gradient."""
CUT = {"end_at": 6, "clip": 0.5}


def train_together(folder: Path, plans: list[dict[str, Any]], *options: str) -> str:
    """Train the plans on two processes; return what they said."""
    return torchrun([*options, team.__file__, str(folder), json.dumps(plans)])


def torchrun(arguments: list[str]) -> str:
    done = forked.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    team.main(folder, [{"name": "step", **STEP}, {"name": "all", "clip": 0.5}, {"name": "cut", **CUT}])
    return folder


@pytest.fixture(scope="module")
def together(alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes: a step, whole runs, runs that SIGTERM cuts, and what goes on after a cut."""
    folder = tmp_path_factory.mktemp("together")
    shutil.copytree(alone / "cut", folder / "from-one")
    plans: list[dict[str, Any]] = [
        {"name": "step", **STEP},
        {"name": "step-shards", **STEP, "shard": True},
        {"name": "all", "clip": 0.5},
        {"name": "all-shards", "clip": 0.5, "shard": True},
        {"name": "cut", **CUT},
        {"name": "cut", "clip": 0.5},
        {"name": "to-one", **CUT, "shard": True},
        {"name": "to-shards", **CUT},
        {"name": "to-shards", "clip": 0.5, "shard": True},
        {"name": "from-one", "clip": 0.5},
    ]
    (folder / "said").write_text(train_together(folder, plans))
    return folder


def difference(first: Path, second: Path) -> float:
    one, two = load_file(first), load_file(second)
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.parametrize("name", ["step", "step-shards"])
def test_the_first_steps_gradient_is_that_of_one_process(name: str, alone: Path, together: Path) -> None:
    start = dict(team.make_run({}).module.named_parameters())
    moved = load_file(alone / "step.safetensors")
    assert max(float((moved[n] - start[n].detach()).abs().max()) for n in moved) > 0.1
    assert difference(alone / "step.safetensors", together / f"{name}.safetensors") < 1e-6


@pytest.mark.parametrize("name", ["all", "all-shards"])
def test_a_run_on_two_processes_learns_what_one_learns(name: str, alone: Path, together: Path) -> None:
    assert difference(alone / "all.safetensors", together / f"{name}.safetensors") < 1e-5
    pairs = zip(read_metrics(alone / "all/metrics.jsonl"), read_metrics(together / name / "metrics.jsonl"), strict=True)
    assert all(one["loss"] == pytest.approx(two["loss"], abs=1e-5) for one, two in pairs)


def test_a_run_that_was_cut_on_two_processes_ends_there_with_the_same_bits(together: Path) -> None:
    """SIGTERM reached one process only, and not the leader."""
    said = (together / "said").read_text()
    assert "cut: pre-empted after step 7 of 12; run it again to go on from the checkpoint of step 7, in" in said
    assert "cut: going on from step 7 of 12" in said
    assert difference(together / "all.safetensors", together / "cut.safetensors") == 0
    assert (together / "all/metrics.jsonl").read_bytes() == (together / "cut/metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["from-one", "to-shards"])
def test_a_run_goes_on_with_more_processes_or_in_shards(name: str, alone: Path, together: Path) -> None:
    assert f"{name}: going on from step 7 of 12" in (together / "said").read_text()
    assert difference(alone / "all.safetensors", together / f"{name}.safetensors") < 1e-5


def test_a_run_of_two_processes_in_shards_goes_on_in_one(alone: Path, together: Path) -> None:
    team.main(together, [{"name": "to-one", "clip": 0.5}])
    assert len(read_metrics(together / "to-one/metrics.jsonl")) == team.STEPS
    assert difference(alone / "all.safetensors", together / "to-one.safetensors") < 1e-5


def test_a_job_whose_worker_was_killed_starts_again_from_its_checkpoint(together: Path, tmp_path: Path) -> None:
    plan = {"name": "killed", "kill_at": 6, "every": 0, "clip": 0.5}
    said = train_together(tmp_path, [plan], "--max-restarts=1")
    assert "another process of the job has ended; start the job again" in said
    assert "killed: going on from step 6 of 12" in said
    assert difference(together / "all.safetensors", tmp_path / "killed.safetensors") == 0


def test_a_component_under_torchrun_makes_one_whole_output(dataset: Path, tmp_path: Path) -> None:
    """Each process computes its share of the images, with the batch statistics of all of them."""
    document = {"task": small.TASK, "pretrain": {**small.PARAMS["pretrain"], "epochs": 2}}
    arguments = ["--params", json.dumps(document), "--in-dataset", str(dataset), "--threads", "1"]
    module = "graftline.components.pretrain"
    torchrun(["-m", module, *arguments, "--out-trunk", str(tmp_path / "two")])
    assert forked.run([sys.executable, "-m", module, *arguments, "--out-trunk", str(tmp_path / "one")]).returncode == 0
    one_out, two_out = tmp_path / "one", tmp_path / "two"
    one, two = verify(one_out), verify(two_out)
    losses = [[line["loss"] for line in read_metrics(out / "metrics.jsonl")] for out in (one_out, two_out)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert two.environment == {**one.environment, "processes": "2"}
    assert not [path for path in tmp_path.glob(".*") if path.suffix not in (".lock", ".records")]


@pytest.mark.parametrize("rows", [torch.arange(11), list(range(11))])
def test_every_row_has_one_process(rows: Any) -> None:
    parts = [share(rows, World(rank, 3)) for rank in range(3)]
    assert sorted(int(row) for part in parts for row in part) == list(range(11))
    assert {len(part) for part in parts} == {3, 4}


def test_fewer_rows_than_processes_are_refused() -> None:
    with pytest.raises(InputError, match="3 processes for a batch of 2; expected at least one row for each"):
        share([1, 2], World(0, 3))


def test_torchrun_does_not_start_a_component_that_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    inputs = [f"--in-{name}={tmp_path}" for name in PUBLISH.inputs]
    with pytest.raises(SystemExit) as end:
        main(PUBLISH, ["--params", '{"task": "digits"}', *inputs, f"--out-release={tmp_path / 'out'}"])
    assert end.value.code == 2
    assert "torchrun: 2 processes of publish; start it without torchrun" in capsys.readouterr().err
