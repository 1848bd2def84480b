"""What the images hold, and how they behave when they may do little."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from graftline.engines.local import task_digest
from graftline.environment import ROOT, lock_digest
from graftline.images import Images

TARGETS = ("data", "train")
BOUNDS = {"data": 1.0e9, "train": 2.5e9}
"""Most bytes."""
TIGHT = ["--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


def inspect(image: str) -> dict[str, Any]:
    done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=True)
    (facts,) = json.loads(done.stdout)
    return dict(facts)


def start(image: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "run", "--rm", *TIGHT, image, *command], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_small_and_says_what_it_is(images: Images, target: str) -> None:
    facts = inspect(getattr(images, target))
    assert facts["Size"] < BOUNDS[target]
    assert facts["Config"]["User"] == "10001:10001"
    labels = facts["Config"]["Labels"]
    assert labels["dev.graftline.lock"] == lock_digest()
    variables = dict(variable.split("=", 1) for variable in facts["Config"]["Env"])
    assert labels["org.opencontainers.image.revision"] == variables["GRAFTLINE_COMMIT"] != ""


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_no_secret_and_no_data(images: Images, target: str) -> None:
    found = start(getattr(images, target), "find", "/opt/graftline", "-type", "f", "-not", "-name", "*.pyc")
    names = {line.rsplit("/", 1)[-1] for line in found.stdout.split()}
    # synonyms.txt is a word list of the code's own.
    kinds = {name.rsplit(".", 1)[-1] for name in names - {"synonyms.txt"}}
    assert found.returncode == 0
    assert "py" in kinds and kinds <= {"py", "lock", "yaml", "j2", "js", "css", "svg"}
    history = subprocess.run(
        ["docker", "history", "--no-trunc", getattr(images, target)], capture_output=True, text=True, check=True
    )
    assert "pip install" in history.stdout
    assert not re.search(r"://[^/\s]*@", history.stdout), "an address with a password"


def test_the_data_image_has_no_torch(images: Images) -> None:
    assert start(images.data, "python", "-c", "import torch").returncode == 1
    assert start(images.train, "python", "-c", "import torch").returncode == 0


@pytest.mark.parametrize(
    ("target", "module"),
    [
        *[("data", f"components.{name}") for name in ("validate", "publish")],
        *[("data", f"pipelines.{name}") for name in ("step", "claim", "fetch", "conclude", "metrics", "trainjob")],
        *[("train", f"pipelines.{name}") for name in ("step", "trainjob", "trainjob.pod")],
        *[("train", f"components.{name}") for name in ("pretrain", "finetune", "evaluate")],
    ],
)
def test_what_the_pipeline_starts_starts(images: Images, target: str, module: str) -> None:
    done = start(getattr(images, target), "python", "-m", f"graftline.{module}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"graftline.{module}" in done.stdout


@pytest.mark.parametrize("command", ["reconcile", "drift", "fetch"])
def test_what_a_cluster_starts_beside_the_pipeline_starts(images: Images, command: str) -> None:
    done = start(images.data, "python", "-m", "graftline.cli", command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_reconcile_compiles_and_digests_a_clone_in_the_data_image(images: Images, checkout: Path) -> None:
    """K20: all that it does with a checkout, where torch is not and only /tmp is writable."""
    program = (
        "git config --global safe.directory '*' && git clone -q --no-local /repository /tmp/clone && cd /tmp/clone && "
        "ln -s ../../components ../../pipelines src/graftline/ && "
        'PYTHONPATH=src python -c \'from graftline.engines.local import task_digest; print(task_digest("mnist"));'
        'from graftline.pipelines.compile import compiled; print(compiled("glosses").version)\''
    )
    done = subprocess.run(
        ["docker", "run", "--rm", *TIGHT, f"--volume={checkout}:/repository:ro", images.data, "sh", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    digest, version = done.stdout.split()
    assert digest == task_digest("mnist")
    assert version.startswith("retrain-glosses-")


def test_the_packages_are_those_of_the_lock(images: Images) -> None:
    pins = {
        line.split()[0].replace("_", "-").lower()
        for line in (ROOT / "components/train.lock").read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    }
    listing = "import importlib.metadata as m; [print(f'{d.name}=={d.version}') for d in m.distributions()]"
    installed = {
        line.replace("_", "-").replace(".", "-", line.split("==")[0].count(".")).lower().split("+")[0]
        for line in start(images.train, "python", "-c", listing).stdout.split()
    }
    assert pins <= installed, pins - installed
    assert {name.split("==")[0] for name in installed - pins} <= {"pip", "setuptools"}
