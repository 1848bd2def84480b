"""Each profile fits the machines of its pool, with what a node keeps for itself taken off.

No machine was asked: sizes and reserves are those that the clouds publish.

GKE       https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes
EKS       https://github.com/awslabs/amazon-eks-ami (nodeadm's kubelet defaults); Karpenter takes 7.5 % of the memory
          for the virtual machine's own (`vmMemoryOverheadPercent`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from graftline.environment import ROOT
from graftline.profiles import Pod, load_profiles
from graftline.yamlfile import parse_yaml


@dataclass(frozen=True)
class Size:
    """Cores, memory in GiB, disk in GiB, accelerators."""

    cpu: float
    memory: float
    disk: float
    gpus: int = 0


# https://cloud.google.com/compute/docs/machine-resource, https://aws.amazon.com/ec2/instance-types/
MACHINES = {
    "n2-standard-4": Size(4, 16, 0),
    "g2-standard-8": Size(8, 32, 0, 1),
    "a2-ultragpu-1g": Size(12, 170, 0, 1),
    "a3-highgpu-8g": Size(208, 1872, 0, 8),
    "m6i.xlarge": Size(4, 16, 0),
    "m7i.xlarge": Size(4, 16, 0),
    "m7i.2xlarge": Size(8, 32, 0),
    "g6.2xlarge": Size(8, 32, 0, 1),
    "g6.4xlarge": Size(16, 64, 0, 1),
    "p4de.24xlarge": Size(96, 1152, 0, 8),
    "p5.48xlarge": Size(192, 2048, 0, 8),
}
SYSTEM = Size(0.5, 0.95, 10)
"""DaemonSets (log, metrics, network, GPU), the backend's container beside a step, images; generous, not measured."""

ARTIFACTS = 20
"""GiB of what a step reads and makes: volumes of Kubeflow's launcher, on the node's disk beside /tmp."""


def kept_cpu(cores: float) -> float:
    """Return what both clouds keep: 6 % of the first core, 1 % of the second, 0.5 % of two more, 0.25 % of the rest."""
    return 0.06 + 0.01 * min(cores - 1, 1) + 0.005 * min(cores - 2, 2) + 0.0025 * max(cores - 4, 0)


def on_gke(machine: str, disk_gb: float) -> Size:
    size = MACHINES[machine]
    kept, rest = 0.1, size.memory  # 100 MiB before something is evicted
    for part, share in ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06), (float("inf"), 0.02)):
        kept += share * min(part, rest)
        rest -= min(part, rest)
    disk = disk_gb * 1e9 / 2**30
    kept_disk = 0.1 * disk + min(0.5 * disk, 6 + 0.35 * disk, 100)
    return Size(size.cpu - kept_cpu(size.cpu), size.memory * 0.975 - kept, disk - kept_disk, size.gpus)


def on_eks(machine: str, disk_gib: float) -> Size:
    size = MACHINES[machine]
    pods = 110 if size.cpu <= 30 else 737
    kept = (255 + 11 * pods + 100) / 1024
    return Size(size.cpu - kept_cpu(size.cpu), size.memory * 0.925 - kept, disk_gib * 0.9 - 1, size.gpus)


def lacks(machine: Size, pod: Pod) -> dict[str, float]:
    """Return by how much each resource is too small; empty if the pod fits."""
    left = {
        "cpu": machine.cpu - SYSTEM.cpu - pod.cpu,
        "memory": machine.memory - SYSTEM.memory - pod.memory_gib,
        "disk": machine.disk - SYSTEM.disk - ARTIFACTS - pod.tmp_gib,
        "gpus": machine.gpus - pod.accelerators,
    }
    return {name: round(value, 2) for name, value in left.items() if value < 0}


def pods() -> dict[str, Pod]:
    """Return what a pod on each pool asks for; `dev` is any node."""
    return {name: profile.pod for name, profile in load_profiles().items() if profile.pod and name != "dev"}


def terraform_pools(cloud: str) -> dict[str, str]:
    """Return the text of each pool in the variables' default."""
    text = (ROOT / f"infra/terraform/{cloud}/variables.tf").read_text()
    _, default = text.split("  default = {\n")
    found = dict(re.findall(r"(?ms)^    ([a-z0-9-]+) = \{\n(.*?)^    \}$", default))
    assert set(found) == set(pods())
    return found


def disk_of(pool: str) -> float:
    given = re.search(r"disk_size_gb\s*= (\d+)", pool)
    return float(given[1]) if given else 200


def test_profiles_fit_the_machines_of_gke() -> None:
    for name, pool in terraform_pools("gke").items():
        (machine,) = re.findall(r'machine_type\s*= "(.*)"', pool)
        assert not lacks(on_gke(machine, disk_of(pool)), pods()[name]), f"{name} on {machine}"
        count = re.search(r"count = (\d+)", pool)
        assert MACHINES[machine].gpus == (int(count[1]) if count else 0), name


def test_profiles_fit_the_machines_of_eks() -> None:
    for name, pool in terraform_pools("eks").items():
        (listed,) = re.findall(r"instance_types\s*= \[(.*?)\]", pool)
        machines = re.findall(r'"(.*?)"', listed)
        assert machines
        for machine in machines:
            assert not lacks(on_eks(machine, disk_of(pool)), pods()[name]), f"{name} on {machine}"
            assert f"gpus           = {MACHINES[machine].gpus}" in pool, name


def test_profiles_fit_the_machines_that_karpenter_may_choose() -> None:
    folder = ROOT / "infra/components/karpenter"
    classes = {
        value["metadata"]["name"]: value["spec"]["blockDeviceMappings"][0]["ebs"]["volumeSize"]
        for value in documents((folder / "node-class.yaml").read_text())
    }
    pools = documents((folder / "node-pools.yaml").read_text())
    assert {pool["metadata"]["name"] for pool in pools} == set(pods())
    for pool in pools:
        spec, name = pool["spec"]["template"]["spec"], pool["metadata"]["name"]
        disk = float(classes[spec["nodeClassRef"]["name"]].removesuffix("Gi"))
        (machines,) = [item["values"] for item in spec["requirements"] if "instance-type" in item["key"]]
        for machine in machines:
            assert not lacks(on_eks(machine, disk), pods()[name]), f"{name} on {machine}"


def documents(text: str) -> list[dict[str, Any]]:
    return [parse_yaml(part, where="karpenter") for part in re.split(r"(?m)^---$", text)]


def test_the_dev_profile_fits_the_machine_that_the_document_asks_for() -> None:
    """Two runs at once, beside Kubeflow, Kueue and Trainer, which a node of 2 cores was seen to carry."""
    text = (ROOT / "docs/cluster.md").read_text()
    found = re.search(r"kind or minikube,[^:]*?(\d+) cores and (\d+) GB", text)
    assert found, "docs/cluster.md says what machine kind needs"
    control_plane = Size(1.2, 4, 0)  # what its pods request
    pod = load_profiles()["dev"].pod
    assert pod
    assert int(found[1]) >= 2 * pod.requested.cpu + control_plane.cpu
    assert int(found[2]) * 1e9 / 2**30 >= 2 * pod.requested.memory_gib + control_plane.memory


def test_a_pod_that_is_too_large_is_found() -> None:
    pod = Pod(cpu=4, memory_gib=14, tmp_gib=200, resource="nvidia.com/gpu", accelerators=1)
    assert set(lacks(on_gke("n2-standard-4", 200), pod)) == {"cpu", "memory", "disk", "gpus"}
    assert set(lacks(on_eks("m7i.xlarge", 200), pod)) == {"cpu", "memory", "disk", "gpus"}
    assert not lacks(on_eks("g6.4xlarge", 300), pod)
