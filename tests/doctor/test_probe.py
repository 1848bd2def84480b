"""The probe: a real process with the environment that the pod's manifest gives it, a real store, a real repository."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from cluster_api import Api, Doctor, ended
from healthy_cluster import secret

from graftline.doctor import probe
from graftline.store import Store
from graftline.store.directory import DirectoryStore


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A git repository with one commit."""
    folder = tmp_path / "repository"
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return folder.as_uri()


def run_pod(api: Api, pod: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Do as a kubelet does with the pod's one container: its command, its environment; return the pod's status."""
    (container,) = pod["spec"]["containers"]
    environment = {"PATH": os.environ["PATH"]}
    for entry in container["env"]:
        if "value" in entry:
            environment[entry["name"]] = entry["value"]
            continue
        reference = entry["valueFrom"]["secretKeyRef"]
        data = api.find("Secret", reference["name"])["data"]
        if reference["key"] in data:
            environment[entry["name"]] = base64.b64decode(data[reference["key"]]).decode()
        else:
            assert reference["optional"], f"the pod would wait for {reference['key']}"
    message = folder / "termination-log"
    command = [str(message) if part == "/dev/termination-log" else part for part in container["command"]]
    assert command[0] == "python"
    done = forked.run([sys.executable, *command[1:]], env=environment, cwd=folder, text=True, timeout=120)
    return ended(message.read_text() if message.exists() else done.stderr[-2000:], done.returncode)


def test_the_pods_process_finds_store_and_repository(
    cluster: Api, doctor: Doctor, tmp_path: Path, repository: str
) -> None:
    """With what its manifest gives it and nothing else; policies are those of this repository, opened for its ports."""
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")}
    cluster.find("Secret", "graftline-store")["data"] = secret(keys)
    port = int(keys["AWS_ENDPOINT_URL"].rpartition(":")[2])
    rule = cluster.find("NetworkPolicy", "to-store-and-git")["spec"]["egress"][0]
    rule["ports"].append({"protocol": "TCP", "port": port})
    cluster.find("ConfigMap", "graftline-settings")["data"]["GRAFTLINE_REPOSITORY"] = repository
    cluster.kubelet = lambda pod: run_pod(cluster, pod, tmp_path)
    code, points = doctor(repository=repository, region="us-east-1")
    assert {name: point["found"] for name, point in points.items() if point["state"] != "ok"} == {}
    assert code == 0


def test_the_pods_process_says_what_it_does_not_find(cluster: Api, doctor: Doctor, tmp_path: Path) -> None:
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")}
    cluster.find("Secret", "graftline-store")["data"] = secret(keys)
    cluster.kubelet = lambda pod: run_pod(cluster, pod, tmp_path)
    _, points = doctor("--store", "s3://no-such-bucket/x", repository=f"file://{tmp_path}/nothing")
    assert "NoSuchBucket" in points["store from a pod"]["found"]
    assert f"{tmp_path}/nothing" in points["repository from a pod"]["found"]


class Careless(DirectoryStore):
    """A server that ignores the conditions of a write, as some S3 gateways do."""

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        assert isinstance(content, bytes)
        self.delete(key)
        return super().put_if_absent(key, content)


class Forgetful(DirectoryStore):
    def replace(self, key: str, data: bytes, tag: str | None) -> bool:
        return super().replace(key, data, self.get(key).tag)


@pytest.mark.parametrize(
    ("kind", "said"), [(DirectoryStore, ""), (Careless, "If-None-Match"), (Forgetful, "does not honour If-Match")]
)
def test_a_store_without_conditional_writes_is_told(
    kind: type[DirectoryStore], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Store = kind(tmp_path / "store")
    monkeypatch.setattr(probe, "open_store", lambda url: store)
    fault = probe.store_fault("s3://bucket/prefix")
    assert said in fault
    assert bool(fault) == bool(said)
    assert store.list("") == [], "the probe's key was left behind"


def test_a_repository_that_wants_a_token_is_not_shown_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_GIT_TOKEN", "very-hidden")
    monkeypatch.setenv("GRAFTLINE_GIT_ORIGIN", "http://127.0.0.1:9")
    fault = probe.repository_fault("http://127.0.0.1:9/team/repository.git")
    assert fault.startswith("http://127.0.0.1:9/team/repository.git: ")
    assert "very-hidden" not in fault


def test_an_answer_that_does_not_come_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(probe, "SECONDS", 0.05)
    never = threading.Event()
    said = probe._all({"names": lambda: "", "store": lambda: str(never.wait(30))})
    never.set()
    assert said["store"].startswith("no answer after")
    assert said["names"] == ""


def test_the_probe_needs_no_torch_and_no_data_libraries() -> None:
    """It runs in the image without torch (K20)."""
    code = "import sys; sys.modules['torch'] = None; import graftline.doctor.probe; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "kfp", "great_expectations"} & set(json.loads(done.stdout))
