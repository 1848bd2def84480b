"""The stand-in for the Kubernetes API serves what a test has put in, as the API server answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes_server import Backend, serve

WORKFLOW = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "metadata": {"name": "mnist-x7k2p", "namespace": "graftline", "labels": {"pipeline/runid": "1234"}},
    "status": {"phase": "Running"},
}
WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/graftline/workflows"


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    with serve(backend) as address:
        yield address


def ask(url: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def names(answer: tuple[int, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in answer[1]["items"]]


def test_what_was_put_in_is_read_listed_by_labels_and_fields_changed_and_deleted(backend: Backend, url: str) -> None:
    backend.put(WORKFLOW)
    assert ask(f"{url}{WORKFLOWS}/mnist-x7k2p")[1]["status"]["phase"] == "Running"
    assert names(ask(f"{url}{WORKFLOWS}?labelSelector=pipeline/runid%3D1234")) == ["mnist-x7k2p"]
    assert names(ask(f"{url}{WORKFLOWS}?labelSelector=pipeline/runid%3D5")) == []
    assert names(ask(f"{url}{WORKFLOWS}?fieldSelector=metadata.name%3Dmnist-x7k2p,status.phase%3DRunning")) != []
    assert names(ask(f"{url}/apis/argoproj.io/v1alpha1/workflows")) == ["mnist-x7k2p"], "of all namespaces"
    patched = ask(f"{url}{WORKFLOWS}/mnist-x7k2p", "PATCH", {"spec": {"activeDeadlineSeconds": 0}})
    assert patched[1]["spec"] == {"activeDeadlineSeconds": 0}
    assert ask(f"{url}{WORKFLOWS}/mnist-x7k2p", "DELETE")[0] == 200
    code, answer = ask(f"{url}{WORKFLOWS}/mnist-x7k2p")
    assert (code, answer["message"]) == (404, 'workflows.argoproj.io "mnist-x7k2p" not found')


def test_a_namespace_is_an_object_too_and_version_a_path(backend: Backend, url: str) -> None:
    backend.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "graftline"}})
    backend.answers["/version"] = {"gitVersion": "v1.36.3"}
    assert ask(f"{url}/api/v1/namespaces/graftline")[1]["kind"] == "Namespace"
    assert ask(f"{url}/version")[1] == {"gitVersion": "v1.36.3"}
    made = ask(
        f"{url}/api/v1/namespaces/graftline/pods",
        "POST",
        {"metadata": {"name": "look"}, "kind": "Pod", "apiVersion": "v1"},
    )
    assert made[0] == 200 and names(ask(f"{url}/api/v1/namespaces/graftline/pods")) == ["look"]


def test_a_kind_that_is_not_installed_a_refusal_and_an_outage(backend: Backend, url: str) -> None:
    code, answer = ask(f"{url}/apis/scheduling.example/v1/namespaces/graftline/things")
    assert (code, answer["message"]) == (404, "the server could not find the requested resource")
    backend.fault = lambda request: 403 if "secrets" in request.path else 503
    assert ask(f"{url}/api/v1/namespaces/graftline/secrets")[0] == 403
    assert ask(f"{url}{WORKFLOWS}")[0] == 503
