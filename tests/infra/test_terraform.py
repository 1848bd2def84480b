"""The modules' variables and expressions, evaluated by terraform itself; its providers are not needed for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from graftline.environment import ROOT

pytestmark = pytest.mark.terraform
GIVEN = {
    "gke": {"project": "some-project", "cluster": "graftline", "location": "europe-west4-a"},
    "eks": {"region": "eu-central-1", "cluster": "graftline", "subnet_ids": ["subnet-1"]},
}


@pytest.fixture
def module(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a module without its resources."""
    source = ROOT / "infra/terraform" / request.param
    for name in ("variables.tf", "locals.tf"):
        if (source / name).exists():
            shutil.copy(source / name, tmp_path)
    (tmp_path / "terraform.tfvars.json").write_text(json.dumps(GIVEN[request.param]))
    return tmp_path


def terraform(module: Path, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    environment |= {"CHECKPOINT_DISABLE": "1", "HOME": str(module)}
    command = ["terraform", f"-chdir={module}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, input=text, env=environment, check=False)


def value(module: Path, expression: str) -> Any:
    done = terraform(module, "console", "-no-color", text=f"jsonencode({expression})\n")
    assert done.returncode == 0, done.stderr
    return json.loads(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.mark.parametrize(
    ("module", "wrong", "said"),
    [
        ("gke", {"project": "No"}, "A project id"),
        ("gke", {"location": "Frankfurt"}, "A region such as europe-west4"),
        ("gke", {"pools": {"cpu": {"machine_type": "n2", "spot": False, "max_nodes": 0, "zones": ["a"]}}}, "max_nodes"),
        ("gke", {"pools": {"cpu": {"machine_type": "n2", "spot": True, "max_nodes": 1, "zones": ["a"]}}}, "-spot"),
        ("gke", {"pools": {"cpu": {"machine_type": "n2", "spot": False, "max_nodes": 1, "zones": []}}}, "zones"),
        ("eks", {"subnet_ids": ["vpc-1"]}, "subnet-"),
        ("eks", {"region": "Frankfurt"}, "A region such as eu-central-1"),
    ],
    indirect=["module"],
)
def test_wrong_variables_are_refused_with_what_is_expected(module: Path, wrong: dict[str, Any], said: str) -> None:
    assert terraform(module, "plan", "-no-color").returncode == 0, "without the mistake it is accepted"
    given = json.loads((module / "terraform.tfvars.json").read_text())
    (module / "terraform.tfvars.json").write_text(json.dumps(given | wrong))
    done = terraform(module, "plan", "-no-color")
    assert done.returncode == 1
    assert "Invalid value for variable" in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("module", ["eks"], indirect=True)
def test_an_empty_group_tells_the_autoscaler_labels_taints_and_gpus(module: Path) -> None:
    hints = [hint for hint in value(module, "local.hints").values() if hint["pool"] == "gpu-l4-spot"]
    assert {hint["key"]: hint["value"] for hint in hints} == {
        "label/graftline.dev/pool": "gpu-l4-spot",
        "taint/graftline.dev/pool": "gpu-l4-spot:NoSchedule",
        "taint/graftline.dev/spot": "true:NoSchedule",
        "taint/nvidia.com/gpu": "present:NoSchedule",
        "resources/nvidia.com/gpu": "1",
    }
    cpu = {hint["key"] for hint in value(module, "local.hints").values() if hint["pool"] == "cpu"}
    assert cpu == {"label/graftline.dev/pool", "taint/graftline.dev/pool"}
