"""K20: what a cluster starts in the image `data` runs where torch and what comes with it are not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp_server import KfpBackend, serve

from graftline import runs
from graftline.environment import ROOT
from graftline.pipelines.reconcile.repository import GitRepository
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store

BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "tokenizers", "safetensors", "peft"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
SCHEDULES = """
schedules:
  mnist: {task: mnist, profile: cpu, on_change: [data, parameters, code]}
"""
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")


class Image:
    """Processes of this machine, as in the image."""

    def __init__(self, folder: Path) -> None:
        (folder / "blocked").mkdir()
        (folder / "blocked/sitecustomize.py").write_text(BLOCKED)
        self.folder, self.path = folder, [str(folder / "blocked")]
        self.extra: dict[str, str] = {}

    def start(self, *arguments: object, cwd: Path = ROOT) -> subprocess.Popen[str]:
        environment = os.environ | self.extra | {"PYTHONPATH": os.pathsep.join(self.path)}
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: object, cwd: Path = ROOT) -> tuple[int, str]:
        process = self.start(*arguments, cwd=cwd)
        said, _ = process.communicate(timeout=200)
        assert "No module named" not in said, said
        return process.returncode, said


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return Image(tmp_path)


def test_the_block_blocks(image: Image) -> None:
    process = image.start("-c", "import torch")
    assert "No module named 'torch'" in process.communicate()[0]


@pytest.fixture
def checkout(image: Image) -> Path:
    """This work tree as one commit, with a schedule that wants a run, laid out as the pod's first container does."""
    root = image.folder / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard", "components", "data", "pipelines", "src", "images.lock",
         ".dvc", "dvc.yaml", "pyproject.toml"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    (root / "pipelines/schedules.yaml").write_text(SCHEDULES)
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "-Af"],
        ["commit", "-qm", "all"],
        ["remote", "add", "origin", "."],
    ):
        subprocess.run(["git", *IDENTITY, *command], cwd=root, check=True)
    for name in ("components", "pipelines"):
        (root / "src/graftline" / name).symlink_to(root / name)
    image.path.append(str(root / "src"))
    return root


@pytest.fixture
def kubeflow(image: Image, moto_url: str) -> Iterator[KfpBackend]:
    backend = KfpBackend(namespace="graftline", token="a-token")
    (image.folder / "token").write_text("a-token\n")
    with serve(backend) as url:
        image.extra = {
            "GRAFTLINE_KFP": url,
            "GRAFTLINE_STORE": moto_url,
            "GRAFTLINE_KFP_TOKEN_FILE": str(image.folder / "token"),
        }
        yield backend


def test_the_process_of_the_deployment_starts_a_run(
    image: Image, checkout: Path, kubeflow: KfpBackend, moto_url: str
) -> None:
    """All of it: the loop, its child, git, the compiled pipeline, the API's client; then drift."""
    pointer = GitRepository(checkout, store_url=moto_url)._pointer_digest("mnist")
    open_store(moto_url).put_if_absent(f"runs/data/mnist/{pointer}", b"d" * 64)
    alive = image.folder / "alive"
    process = image.start(
        "-m", "graftline.pipelines.reconcile.serve", "--checkout", checkout, "--alive", alive, cwd=checkout
    )
    end = time.monotonic() + 120
    while not kubeflow.runs and time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert len(kubeflow.runs) == 1, said
    assert process.returncode == 0, said
    image.extra["GRAFTLINE_KFP_TOKEN"] = "a-token"
    code, said = image.run("-m", "graftline.cli", "drift", cwd=checkout)
    assert code == 0, said


def test_the_first_and_the_last_step_of_a_run(image: Image, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    what = [
        "--task", "mnist", "--store", store.url, "--run-key", "k" * 64, "--version", "v", "--revision", "r",
        "--data-digest", "d", "--reason", '{"kind": "person"}',
    ]  # fmt: skip
    image.extra["GRAFTLINE_RUN"] = "run-1"
    assert image.run("-m", "graftline.pipelines.claim", *what) == (0, "")
    status = json.dumps({"state": "COMPLETE"})
    code, said = image.run("-m", "graftline.pipelines.conclude", "--status", status, *what)
    assert code == 0, said
    assert [end.state for end in runs.ends(store, "run-1")] == ["SUCCEEDED"]


def test_the_steps_of_a_run_and_what_they_load(image: Image) -> None:
    load = "from graftline.components.{0} import COMPONENT; COMPONENT.load()"
    for component in ("validate", "publish"):
        assert image.run("-c", load.format(component)) == (0, ""), component
    for module in ("fetch", "step", "metrics"):
        code, said = image.run("-m", f"graftline.pipelines.{module}", "--help")
        assert (code, said[:5]) == (0, "usage"), module
    code, said = image.run("-m", "graftline.pipelines.fetch", "--repository", "/none", "--revision", "c" * 40,
        "--task", "mnist", "--digest", "d" * 64, "--out-raw", image.folder / "raw", "--out-expectations",
        image.folder / "contract")  # fmt: skip
    assert code == 1, said
    assert "No git repository was found" in said


def test_the_exporter_and_the_server_of_a_model_read_the_store(image: Image, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    store = open_store(str(tmp_path / "store"))
    publish(store, ReleaseDraft("digits", {"model.bin": tmp_path / "model.bin"}, {"model": b"{}"}), Publication("one"))
    collect = (
        "import sys, pathlib, datetime; from graftline.pipelines.metrics import collect; "
        "print(*(one.text() for one in collect(sys.argv[1], pathlib.Path('.'), datetime.datetime.now(datetime.UTC))))"
    )
    code, said = image.run("-c", collect, store.url)
    assert code == 0
    assert 'graftline_champion_created_timestamp_seconds{task="digits"}' in said
    out = tmp_path / "model"
    code, said = image.run("-m", "graftline.cli", "fetch", "digits@champion", "--out", out, "--store", store.url)
    assert code == 0, said
    assert (out / "model.bin").read_bytes() == b"weights"
