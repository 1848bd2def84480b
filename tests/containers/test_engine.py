"""`graftline run --engine docker` beside `graftline run`: one release, byte for byte; limits, failures, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from graftline.canonical import read_json
from graftline.environment import ROOT
from graftline.images import BUILT, Images, digest, load_images
from graftline.records.folder import read_execution, verify

SMALL = {
    "mnist": [
        "pretrain.epochs=0.3", "finetune.epochs=1", "finetune.min_steps=10", "finetune.labels_per_class=10",
        "evaluate.lift_labels=[5]", "evaluate.lift_seeds=2", "evaluate.lift_epochs=1", "evaluate.lift_test_rows=200",
        "evaluate.gate={}",
    ],
    "glosses": [
        *(f"pretrain.trunk.{size}" for size in ("layers=1", "width=32", "heads=1", "hidden=64")),
        "pretrain.tokenizer.vocabulary=1024", "pretrain.epochs=0.05", "pretrain.sizes={}", "finetune.epochs=1",
        "evaluate.lift_labels=[10]", "evaluate.lift_seeds=2", "evaluate.lift_test_rows=200", "evaluate.lift_epochs=1",
        "finetune.labels_per_class=10", "finetune.min_steps=10",
        "evaluate.budget_labels=null", "evaluate.gate={}",
    ],
}  # fmt: skip
"""Budgets that take a minute."""
OUTPUTS = {"validate": "dataset", "pretrain": "trunk", "finetune": "model", "evaluate": "evaluation"}


HEEDING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it
from graftline.cli.app import main
main()
"""


def environment(checkout: Path) -> dict[str, str]:
    signing = ("GRAFTLINE_KEYS",)
    kept = {n: v for n, v in os.environ.items() if not n.startswith("GRAFTLINE_") or n in signing}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PYTHONPATH": str(checkout / "build/package"), "PATH": path}


def graftline(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HEEDING, *arguments],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture
def fork(images: Images, checkout: Path) -> Path:
    """A checkout with the images that were built from this one."""
    (checkout / BUILT.relative_to(ROOT)).write_bytes(BUILT.read_bytes())
    return checkout


def assignments(task: str) -> list[str]:
    return [part for value in SMALL[task] for part in ("--set", value)]


@pytest.mark.timeout(1200)
def test_dvc_and_containers_release_the_same_bytes(fork: Path, tmp_path: Path) -> None:
    """mnist goes the same way in test_pipeline.py."""
    task = "glosses"
    receipts: dict[str, Any] = {}
    folders = {"dvc": fork / "outputs" / task, "docker": fork / "build/docker" / task}
    for engine, folder in folders.items():
        store = ["--store", str(tmp_path / f"store-{engine}")]
        done = graftline(fork, "run", task, "--engine", engine, *store, *assignments(task))
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        receipts[engine] = read_json(folder / "release/release.json")
    assert receipts["dvc"]["digest"] == receipts["docker"]["digest"]
    for output in OUTPUTS.values():
        one, two = (verify(folder / output) for folder in folders.values())
        assert one.content == two.content, output
        assert one.environment == two.environment, "one determinism tuple"
    said = {engine: read_execution(folder / "model")["engine"] for engine, folder in folders.items()}
    assert said == {"dvc": "dvc", "docker": "docker"}
    built = load_images(BUILT)
    for component, output in OUTPUTS.items():
        image = built.train if component in ("pretrain", "finetune", "evaluate") else built.data
        assert digest(image).removeprefix("sha256:") in (folders["docker"] / output / "record.json").read_text()
    again = graftline(fork, "run", task, "--engine", "docker", "--store", str(tmp_path / "store-docker"))
    assert again.returncode == 0, again.stderr[-4000:]
    states = dict(re.findall(r"│ (\w+) +│ [\d. ]*│ (\w+) ", again.stdout))
    cached = dict.fromkeys(("validate", "pretrain", "finetune"), "restored")
    assert states == cached | {"evaluate": "ran", "publish": "ran"}
    assert "pretrain glosses (from the cache)" in again.stdout


def test_containers_may_do_little_and_end_with_the_run(fork: Path, tmp_path: Path) -> None:
    """What docker was asked for, of a container at work; then Ctrl-C, after which none is left."""
    command = [sys.executable, "-c", HEEDING, "run", "mnist", "--engine", "docker", "--store", str(tmp_path / "store")]
    process = subprocess.Popen(
        command, cwd=fork, env=environment(fork), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        facts = None
        while facts is None:
            assert process.poll() is None, "it ended before a container trained"
            facts = next((known for known in containers_of(fork) if "pretrain" in known["Args"]), None)
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    assert facts["Config"]["User"] == "10001:10001" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"
    host = facts["HostConfig"]
    assert host["ReadonlyRootfs"] and host["NetworkMode"] == "none" and host["CapDrop"] == ["ALL"]
    assert host["Memory"] == 8 * 2**30 and host["PidsLimit"] > 0
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert containers_of(fork) == []
    [end] = (tmp_path / "store/runs").glob("*.json")
    assert read_json(end)["state"] == "CANCELED"


def containers_of(fork: Path) -> list[dict[str, Any]]:
    """Return what docker says of the containers at work that see a file of the checkout."""
    listed = docker("ps", "--quiet", "--filter", "label=graftline.dev/task=mnist").split()
    found = [known for name in listed for known in json.loads(docker("inspect", name) or "[]")]
    return [one for one in found if any(m["Source"].startswith(str(fork)) for m in one["Mounts"])]


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True).stdout


def test_a_stage_that_fails_fails_the_run_and_keeps_the_last_outputs(fork: Path, tmp_path: Path) -> None:
    kept = fork / "build/docker/mnist/model"
    kept.mkdir(parents=True)
    (kept / "weights").write_text("of an earlier run")
    contract = fork / "data/mnist/expectations.yaml"
    contract.write_text(contract.read_text().replace("columns:", "colums:"))
    done = graftline(fork, "run", "mnist", "--engine", "docker", "--store", str(tmp_path / "store"))
    assert done.returncode == 2
    assert "no mapping 'columns'" in done.stderr
    assert "validate ended with exit code 2" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert (kept / "weights").read_text() == "of an earlier run"


def test_a_refusal_of_the_gate_has_its_exit_code_and_a_report(fork: Path, tmp_path: Path) -> None:
    floor = [*SMALL["mnist"][:-1], 'evaluate.gate={"floors": {"accuracy": 0.9999}}']
    changes = [part for value in floor for part in ("--set", value)]
    done = graftline(fork, "run", "mnist", "--engine", "docker", "--store", str(tmp_path / "store"), *changes)
    assert done.returncode == 3, done.stdout[-4000:]
    assert "the gate refused" in done.stdout
    folder = fork / "build/docker/mnist"
    assert {path.name for path in folder.iterdir()} >= {"dataset", "trunk", "model", "evaluation", "report.html"}
    assert not (folder / "release").exists()


def test_a_step_without_a_whole_output_fails_the_run_whatever_it_said(fork: Path, tmp_path: Path) -> None:
    """Nothing that a step made is taken on trust: here the pipeline itself has lost the step's program."""
    (fork / "breakage.py").write_text(
        "from graftline.engines.containers import Machine\nMachine.start = lambda self, pod: 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import breakage{HEEDING}", "run", "mnist", "--engine", "docker"],
        cwd=fork,
        env=environment(fork) | {"PYTHONPATH": f"{fork}:{fork / 'build/package'}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout[-2000:]
    assert "ended with exit code 1" in done.stdout


def test_without_images_the_run_says_how_to_build_them(checkout: Path) -> None:
    done = graftline(checkout, "run", "mnist", "--engine", "docker")
    assert done.returncode == 2
    assert "build/images.lock: no images were built here; make images" in done.stderr
