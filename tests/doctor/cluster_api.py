"""A stand-in for the API of a cluster that is only asked: objects by kind, namespace and name, and what may not be
seen.

Besides the Kubernetes API it answers, below /kfp, the two questions that `graftline doctor` asks Kubeflow Pipelines.
A pod that is made ends as `kubelet` says: by default as the probe in a healthy cluster does.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PLURALS = {
    "Namespace": "namespaces", "Node": "nodes", "Pod": "pods", "Secret": "secrets", "ConfigMap": "configmaps",
    "Service": "services", "ServiceAccount": "serviceaccounts", "ResourceQuota": "resourcequotas",
    "LimitRange": "limitranges", "Event": "events", "Deployment": "deployments", "Role": "roles",
    "RoleBinding": "rolebindings", "NetworkPolicy": "networkpolicies", "EndpointSlice": "endpointslices",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations", "LocalQueue": "localqueues",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations", "ClusterQueue": "clusterqueues",
    "ResourceFlavor": "resourceflavors", "ClusterTrainingRuntime": "clustertrainingruntimes",
    "NodePool": "nodepools", "Workflow": "workflows", "TrainJob": "trainjobs", "PipelineVersion": "pipelineversions",
}  # fmt: skip
OBJECTS = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<space>[^/]+)(?=/.))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?"
)
DISCOVERY = re.compile(r"/apis/([^/]+)(?:/(v[^/]+))?")
Doctor = Callable[..., tuple[int, dict[str, dict[str, Any]]]]
"""Runs the command; returns its exit code and the points by name."""
WELL = json.dumps({"names": "", "store": "", "repository": ""})


class Refused(Exception):  # noqa: N818  (an answer)
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def ended(message: str = WELL, code: int = 0) -> dict[str, Any]:
    """Return the status of a pod that has ended."""
    state = {"terminated": {"exitCode": code, "message": message, "reason": "Error" if code else "Completed"}}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"name": "main", "state": state}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "main", "state": state}]}


@dataclass
class Api:
    """The objects, and what goes wrong."""

    objects: list[dict[str, Any]]
    served: dict[str, list[str]]
    """The kinds of each group's version."""
    version: str = "v1.36.3"
    health: dict[str, Any] = field(default_factory=dict)
    kfp_status: int = 200
    forbidden: str = r"(?!)"
    """What may not be looked at: a pattern of `METHOD path`."""
    refuses: str = ""
    """Why the API refuses every new pod."""
    kubelet: Callable[[dict[str, Any]], dict[str, Any]] = lambda pod: ended()
    logs: dict[str, str] = field(default_factory=dict)
    """What pods have printed."""
    made: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def find(self, kind: str, name: str) -> dict[str, Any]:
        """Return one object, for a test to change."""
        return next(each for each in self.objects if (each["kind"], each["metadata"]["name"]) == (kind, name))

    def drop(self, kind: str, name: str) -> None:
        self.objects.remove(self.find(kind, name))

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path.startswith("/kfp/"):
            return self._kubeflow(path.removeprefix("/kfp"))
        if re.search(self.forbidden, f"{method} {path}"):
            what = path.rpartition("/")[2]
            raise Refused(403, f'{what} is forbidden: User "jane" cannot list resource "{what}" in the namespace')
        if path == "/version":
            return {"gitVersion": self.version}
        if found := DISCOVERY.fullmatch(path):
            return self._discovery(found[1], found[2])
        if path.endswith("/log"):
            return self.logs.get(path.split("/")[-2], "")
        found = OBJECTS.fullmatch(path)
        if not found:
            raise Refused(404, f"no such path: {path}")
        api, place = found["core"] or found["group"], (found["plural"], found["space"], found["name"])
        return self._objects(method, api, place, query, body)

    def _objects(self, method: str, api: str, place: tuple[Any, ...], query: dict[str, str], body: Any) -> Any:
        plural, space, name = place
        if method == "POST":
            return self._make(body, space)
        chosen = [
            each
            for each in self.objects
            if each["apiVersion"] == api
            and PLURALS[each["kind"]] == plural
            and (space is None or each["metadata"].get("namespace") == space)
            and _selected(each, query)
        ]
        if name is None:
            return {"kind": "List", "items": chosen}
        one = next((each for each in chosen if each["metadata"]["name"] == name), None)
        if one is None:
            raise Refused(404, f'{plural} "{name}" not found')
        if method == "DELETE":
            self.objects.remove(one)
            self.deleted.append(name)
        return one

    def _make(self, body: dict[str, Any], space: str) -> dict[str, Any]:
        if body["kind"] != "Pod":
            self.objects.append({**body, "metadata": {**body["metadata"], "namespace": space}})
            return body
        if self.refuses:
            raise Refused(403, f'pods "{body["metadata"]["name"]}" is forbidden: {self.refuses}')
        pod = {**body, "spec": {**body["spec"], "nodeName": "node-1"}, "status": {"phase": "Pending"}}
        self.objects.append(pod)
        self.made.append(body)
        pod["status"] = self.kubelet(body)
        return pod

    def _discovery(self, group: str, version: str | None) -> Any:
        versions = [name.partition("/")[2] for name in self.served if name.startswith(f"{group}/")]
        if not versions or (version and version not in versions):
            raise Refused(404, "the server could not find the requested resource")
        if version is None:
            return {"kind": "APIGroup", "versions": [{"version": each} for each in versions]}
        return {"kind": "APIResourceList", "resources": [{"kind": kind} for kind in self.served[f"{group}/{version}"]]}

    def _kubeflow(self, path: str) -> Any:
        if path == "/apis/v2beta1/healthz":
            return self.health
        if self.kfp_status != 200:
            raise Refused(self.kfp_status, "Unauthorized access: no token")
        return {}


def _selected(item: dict[str, Any], query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    wanted = [part.partition("=") for part in query.get("labelSelector", "").split(",") if part]
    about = query.get("fieldSelector", "").removeprefix("involvedObject.name=")
    return all(labels.get(key) == value if equals else key in labels for key, equals, value in wanted) and (
        not about or about.startswith(item.get("involvedObject", {}).get("name", "?"))
    )


@contextmanager
def serve(api: Api) -> Iterator[str]:
    """Serve an API on a port of this machine; give its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            given = json.loads(body) if body and self.command != "DELETE" else None
            try:
                answer, status = (api.answer(self.command, parts.path, dict(parse_qsl(parts.query)), given), 200)
            except Refused as refused:
                status = refused.status
                answer = {"kind": "Status", "code": status, "message": str(refused)}
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _any  # noqa: N815

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
