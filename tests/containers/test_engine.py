"""`graftline run --engine docker` beside `graftline run`: one release, byte for byte; limits, failures, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import test_shipped

from graftline.canonical import read_json
from graftline.environment import ROOT
from graftline.images import BUILT, Images, digest, load_images
from graftline.records.folder import read_execution, verify

TASK = "glosses"
"""mnist goes the same way in test_pipeline.py."""
SMALL = [
    *(f"pretrain.trunk.{size}" for size in ("layers=1", "width=32", "heads=1", "hidden=64")),
    "pretrain.tokenizer.vocabulary=1024", "pretrain.epochs=0.05", "pretrain.sizes={}", "finetune.epochs=1",
    "evaluate.lift_labels=[10]", "evaluate.lift_seeds=2", "evaluate.lift_test_rows=200", "evaluate.lift_epochs=1",
    "finetune.labels_per_class=10", "finetune.min_steps=10",
    "evaluate.budget_labels=null", "evaluate.gate={}",
]  # fmt: skip
"""Budgets that take a minute."""
OUTPUTS = {"validate": "dataset", "pretrain": "trunk", "finetune": "model", "evaluate": "evaluation"}


HEEDING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it
from graftline.engines import containers
containers._CREDENTIALS += ("GOMP_SPINCOUNT",)  # conftest.py says why
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
    return with_images(checkout)


def with_images(checkout: Path) -> Path:
    (checkout / BUILT.relative_to(ROOT)).write_bytes(BUILT.read_bytes())
    return checkout


@dataclass(frozen=True)
class Released:
    """A checkout in which both engines released the task once; what the tests run then is mostly in their cache."""

    fork: Path
    stores: Path

    def store(self, engine: str) -> list[str]:
        return ["--store", str(self.stores / f"store-{engine}")]

    def folder(self, engine: str) -> Path:
        return self.fork / {"dvc": "outputs", "docker": "build/docker"}[engine] / TASK


def take_a_part_of_the_rows(fork: Path, folder: Path) -> None:
    """Make a fifth of the task's rows its data: both engines read and prepare all that there are."""
    part, data = test_shipped.raw(TASK, folder), fork / "data" / TASK
    shutil.copytree(part["in_raw"], data / "raw")
    shutil.copy(part["in_expectations"], data / "expectations.yaml")
    command = [sys.executable, "-m", "dvc", "add", "--quiet", str(data / "raw")]
    subprocess.run(command, cwd=fork, env=environment(fork), check=True)


@pytest.fixture(scope="module")
def released(images: Images, shared_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Released:
    made = Released(with_images(shared_checkout), tmp_path_factory.mktemp("stores"))
    take_a_part_of_the_rows(made.fork, tmp_path_factory.mktemp("part") / "of")
    for engine in ("dvc", "docker"):
        done = graftline(made.fork, "run", TASK, "--engine", engine, *made.store(engine), *assignments())
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return made


def assignments(*more: str) -> list[str]:
    return [part for value in (*SMALL, *more) for part in ("--set", value)]


@pytest.mark.timeout(1200)
def test_dvc_and_containers_release_the_same_bytes(released: Released) -> None:
    folders = {engine: released.folder(engine) for engine in ("dvc", "docker")}
    receipts = {engine: read_json(folder / "release/release.json") for engine, folder in folders.items()}
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


def test_what_a_run_before_made_is_restored_and_a_refusal_of_the_gate_has_its_exit_code_and_a_report(
    released: Released,
) -> None:
    changes = assignments('evaluate.gate={"floors": {"accuracy": 0.9999}}')
    done = graftline(released.fork, "run", TASK, "--engine", "docker", *released.store("docker"), *changes)
    assert done.returncode == 3, done.stdout[-4000:]
    assert "the gate refused" in done.stdout
    assert f"pretrain {TASK} (from the cache)" in done.stdout
    states = dict(re.findall(r"│ (\w+) +│ [\d. ]*│ (\w+) ", done.stdout))
    cached = dict.fromkeys(("validate", "pretrain", "finetune"), "restored")
    assert states == cached | {"evaluate": "ran", "publish": "refused"}
    names = {path.name for path in released.folder("docker").iterdir()}
    assert names >= {"dataset", "trunk", "model", "evaluation", "report.html"}
    assert "release" not in names


def test_containers_may_do_little_and_end_with_the_run(released: Released, tmp_path: Path) -> None:
    """What docker was asked for, of a container at work; then Ctrl-C, after which none is left."""
    fork = released.fork
    another = assignments("pretrain.seed=1", "pretrain.epochs=5")
    run = ["run", TASK, "--engine", "docker", "--store", str(tmp_path / "store"), *another]
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, *run],
        cwd=fork,
        env=environment(fork),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
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
    listed = docker("ps", "--quiet", "--filter", f"label=graftline.dev/task={TASK}").split()
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
