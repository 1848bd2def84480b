"""`make manifests` finds what it is there to find: each test plants one kind of error in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from graftline.environment import ROOT

Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the checks read, without what other tests and tools leave in the work tree; of the pipelines one, and of the
    overlays `dev` and the one that has every component."""
    for folder in ("infra", ".github", "components", "pipelines"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "images.lock", tmp_path)
    for pipeline in sorted((tmp_path / "pipelines/compiled").iterdir())[1:]:
        pipeline.unlink()
    for overlay in ("airgapped", "gke-gpu", "site"):
        shutil.rmtree(tmp_path / "infra/overlays" / overlay)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} does not hold {old!r}"
    path.write_text(text.replace(old, new, 1))


def errors(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return the table's numbers by the check's name."""
    _, table = done.stdout.split("\ncheck ")
    rows = re.findall(r"(?m)^(\S.*?) {2,}(\d+)(?: |$)", table)
    return {name: int(number) for name, number in rows}


def test_the_manifests_are_clean(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(errors(done).values()) == {0}


def test_a_misspelled_field_is_an_error_wherever_it_stands(check: Check, root: Path) -> None:
    components = root / "infra/components"
    planted = {
        "concurencyPolicy": (root / "infra/base/reconcile.yaml", "concurrencyPolicy:", "concurencyPolicy:"),
        "livenesProbe": (root / "infra/base/reconcile.yaml", "livenessProbe:", "livenesProbe:"),
        "coveredResource": (components / "kueue/queues.yaml", "coveredResources:", "coveredResource:"),
        "automountServiceAcountToken": (
            components / "trainer/runtime.yaml",
            "automountServiceAccountToken:",
            "automountServiceAcountToken:",
        ),
        "volumeMount": (components / "monitoring/exporter.yaml", "volumeMounts:", "volumeMount:"),
        "modelFormats": (components / "serving/service.yaml", "modelFormat:", "modelFormats:"),
        "consolidateAfte": (components / "karpenter/node-pools.yaml", "consolidateAfter:", "consolidateAfte:"),
        "selfHeals": (root / "infra/argocd/applications/platform.yaml", "selfHeal:", "selfHeals:"),
    }
    for path, old, new in planted.values():
        edit(path, old, new)
    done = check("--root", root, "--only", "manifests")
    assert done.returncode == 1
    missing = [field for field in planted if f"'{field}' " not in done.stdout]
    assert not missing, f"not found: {missing}\n{done.stdout}"


def test_a_kind_without_a_schema_is_an_error_in_every_version(check: Check, root: Path) -> None:
    edit(root / "infra/base/quota.yaml", "kind: LimitRange", "kind: LimitRang")
    edit(root / "infra/base/network-policies.yaml", "networking.k8s.io/v1", "networking.example.org/v1")
    edit(root / "infra/components/monitoring/rules.yaml", "monitoring.coreos.com/v1", "monitoring.coreos.com/v2")
    done = check("--root", root, "--only", "manifests")
    assert done.returncode == 1
    assert "no schema for v1 LimitRang" in done.stdout
    assert "no schema for monitoring.coreos.com/v2 PrometheusRule" in done.stdout
    assert "networking.example.org/v1" in done.stdout
    found = errors(done)
    assert len([name for name in found if name.startswith("schemas, Kubernetes") and found[name] >= 3]) == 3


def test_a_field_of_a_later_kubernetes_is_an_error_only_before(check: Check, root: Path) -> None:
    policy = root / "infra/components/read-only-root/policy.yaml"
    policy.write_text(re.sub(r"  annotations:\n    graftline.dev/since-kubernetes: .*\n", "", policy.read_text()))
    found = errors(check("--root", root, "--only", "manifests"))
    assert found["schemas, Kubernetes 1.35"] > 0
    assert found["schemas, Kubernetes 1.36"] == 0


def test_an_overlay_that_does_not_build_is_an_error(check: Check, root: Path) -> None:
    edit(root / "infra/overlays/dev/kustomization.yaml", "- path: quota.yaml", "- path: quotas.yaml")
    done = check("--root", root, "--only", "manifests")
    assert done.returncode == 1
    assert errors(done)["kustomize"] == 1
    assert "infra/overlays/dev" in done.stdout


SHUT = (
    ("GRAFTLINE_REPOSITORY", "git@git.example.com:your-team/graftline.git", 22),
    ("GRAFTLINE_REPOSITORY", "git://git.example.com/graftline.git", 9418),
    ("GRAFTLINE_REPOSITORY", "https://git.example.com:8443/your-team/graftline.git", 8443),
    ("AWS_ENDPOINT_URL", "http://ceph.example.com:7480", 7480),
)


def test_an_address_whose_port_no_policy_opens_is_an_error(check: Check, root: Path) -> None:
    """K34. An overlay for each address, beside those that have none."""
    for number, (setting, address, _) in enumerate(SHUT):
        shutil.copytree(root / "infra/overlays/dev", root / f"infra/overlays/dev-{number}")
        operation = f"- {{op: add, path: /data/{setting}, value: '{address}'}}"
        patch = f"  - target: {{kind: ConfigMap, name: graftline-settings}}\n    patch: |-\n      {operation}\n"
        edit(root / f"infra/overlays/dev-{number}/kustomization.yaml", "patches:\n", f"patches:\n{patch}")
    done = check("--root", root, "--only", "manifests")
    for number, (setting, address, port) in enumerate(SHUT):
        said = f"infra/overlays/dev-{number}: {setting} is {address}: no network policy opens port {port}"
        assert said in done.stdout
        egress = root / f"infra/components/egress-{number}"
        shutil.copytree(root / "infra/components/egress", egress)
        edit(egress / "kustomization.yaml", "port: 22", f"port: {port}")
        components = f"components:\n  - ../../components/{egress.name}\n"
        edit(root / f"infra/overlays/dev-{number}/kustomization.yaml", "components:\n", components)
    assert errors(done)["egress"] == len(SHUT)
    assert errors(check("--root", root, "--only", "manifests"))["egress"] == 0


def test_images_that_differ_from_the_lock_are_an_error_and_can_be_written(check: Check, root: Path) -> None:
    digest = "sha256:" + "5" * 64
    (root / "images.lock").write_text(
        f"images:\n  data: registry.example:5000/team/data@{digest}\n  train: train@{digest}\n"
    )
    done = check("--root", root, "--only", "manifests")
    assert errors(done)["images"] == 1
    assert "make manifests-images" in done.stdout
    assert check("--root", root, "--write-images").returncode == 0
    out = root / "rendered"
    assert check("--root", root, "--only", "manifests", "--out", out).returncode == 0
    assert f"image: registry.example:5000/team/data@{digest}" in (out / "eks-gpu.yaml").read_text()


def test_an_image_without_a_digest_in_the_lock_is_refused(check: Check, root: Path) -> None:
    (root / "images.lock").write_text("images:\n  data: graftline/data:0.1\n")
    done = check("--root", root, "--only", "manifests")
    assert done.returncode == 2
    assert "images.data is graftline/data:0.1; expected NAME@sha256:<64 hex>" in done.stderr


def test_checkov_fails_what_is_unsafe_and_what_is_skipped_without_a_reason(check: Check, root: Path) -> None:
    edit(root / "infra/components/trainer/runtime.yaml", "readOnlyRootFilesystem: true", "privileged: true")
    edit(root / "infra/terraform/eks/main.tf", '"required"', '"optional"')
    reconcile = root / "infra/base/reconcile.yaml"
    reconcile.write_text(re.sub(r"(checkov.io/skip1: >-\n +CKV_K8S_35).*\n", r"\1\n", reconcile.read_text()))
    (root / "components/Dockerfile").unlink()  # of four runs of checkov, those that are to find something
    shutil.rmtree(root / ".github/workflows")
    done = check("--root", root, "--only", "checkov")
    assert done.returncode == 1
    assert re.search(r"CKV_K8S_16 .*graftline-torch-node", done.stdout), done.stdout
    assert "CKV_AWS_" in done.stdout, done.stdout
    assert "CKV_K8S_35 is skipped without a reason" in done.stdout, done.stdout


def test_the_other_checkers_find_planted_errors(check: Check, root: Path) -> None:
    with (root / "components/Dockerfile").open("a") as dockerfile:
        dockerfile.write("RUN cd /tmp\n")
    edit(root / ".github/workflows/test.yml", "docker run --rm", "echo '${{ github.head_ref }}'; docker run --rm")
    with (root / "infra/base/settings.yaml").open("a") as settings:
        settings.write("  GRAFTLINE_STORE: s3://twice/store\n")
    done = check("--root", root, "--only", "hadolint", "zizmor", "yamllint")
    assert done.returncode == 1
    assert "DL3003" in done.stdout
    assert "template-injection" in done.stdout
    assert "duplication of key" in done.stdout


@pytest.mark.terraform
def test_terraform_that_is_not_formatted_is_an_error(check: Check, root: Path) -> None:
    edit(root / "infra/terraform/gke/outputs.tf", "  description = ", "  description    = ")
    done = check("--root", root, "--only", "terraform")
    assert done.returncode == 1
    assert "outputs.tf: run `terraform fmt`" in done.stdout


def test_train_jobs_are_valid_as_they_are_launched(check: Check, root: Path) -> None:
    from graftline.pipelines.trainjob.manifest import Job, manifest
    from graftline.profiles import load_profiles

    jobs = []
    for number, (name, profile) in enumerate(load_profiles().items()):
        job = Job(
            run=f"{number:064x}",
            task="mnist",
            component="pretrain",
            image=f"graftline/train@sha256:{'0' * 64}",
            pod=profile.pod,
            arguments=["--params", "{}"],
            environment={"GRAFTLINE_RUN": name},
        )
        jobs.append(manifest(job, "graftline"))
    compiled = root / "pipelines/compiled/jobs.yaml"
    compiled.write_text(yaml.safe_dump_all(jobs))
    done = check("--root", root, "--only", "manifests")
    assert done.returncode == 0, done.stdout
    jobs[0]["spec"]["trainer"]["numNode"] = jobs[0]["spec"]["trainer"].pop("numNodes")
    compiled.write_text(yaml.safe_dump_all(jobs))
    assert "'numNode' was unexpected" in check("--root", root, "--only", "manifests").stdout
