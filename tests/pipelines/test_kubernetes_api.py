"""Which cluster is talked to."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.config import incluster_config, kube_config
from kubernetes_server import write_kubeconfig

from graftline.errors import InputError
from graftline.kubernetes_api import connect


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the user's own kubeconfig is looked for; KUBECONFIG names none."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Be in a pod, as far as a client can tell; return the address of its cluster."""
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return "https://10.0.0.1:443"


def test_in_a_pod_it_is_its_own_cluster_whatever_kubeconfig_the_image_holds(home: Path, pod: str) -> None:
    write_kubeconfig(home, "http://elsewhere:1")
    assert connect().api.configuration.host == pod


def test_in_a_pod_a_cluster_can_be_named(home: Path, pod: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = write_kubeconfig(tmp_path / "named", "http://named:1")
    monkeypatch.setenv("KUBECONFIG", str(named))
    assert connect().api.configuration.host == "http://named:1"


def test_elsewhere_it_is_that_of_the_users_kubeconfig(home: Path) -> None:
    with pytest.raises(InputError, match=r"no context to talk to .*or write ~/.kube/config"):
        connect()
    write_kubeconfig(home, "http://here:1")
    assert connect().api.configuration.host == "http://here:1"
