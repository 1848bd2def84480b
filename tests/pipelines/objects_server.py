"""A Kubernetes API of objects that a test puts there, such as recorded ones: get, list by label, delete. See also
kubernetes_server.py, where TrainJobs come and go by themselves."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/graftline/workflows"
TRAINJOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/graftline/trainjobs"
WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces/graftline/workloads"
PODS, EVENTS = (f"/api/v1/namespaces/graftline/{plural}" for plural in ("pods", "events"))


@dataclass
class Objects:
    """What is there, by the path of its list, and who may see it."""

    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    """Paths of lists that the caller may not ask for, nor for anything in them."""

    def answer(self, method: str, path: str, selector: str) -> tuple[int, dict[str, Any]]:
        if path in self.denied or path.rpartition("/")[0] in self.denied:
            return 403, {"kind": "Status", "message": f"{path} is forbidden"}
        if path in self.lists:
            wanted = dict([selector.split("=")]) if selector else {}
            items = [
                one
                for one in self.lists[path]
                if wanted.items() <= (one["metadata"].get("labels") or {}).items()
            ]
            return 200, {"kind": "List", "metadata": {}, "items": items}
        plural, _, name = path.rpartition("/")
        for one in self.lists.get(plural, []):
            if one["metadata"]["name"] == name:
                if method == "DELETE":
                    self.lists[plural].remove(one)
                return 200, one
        return 404, {"kind": "Status", "message": f"{path} not found"}


@contextmanager
def kubeconfig(objects: Objects, folder: Path) -> Iterator[Path]:
    """Serve the objects; give a kubeconfig for them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            selector = parse_qs(url.query).get("labelSelector", [""])[0]
            status, answer = objects.answer(self.command, url.path, selector)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    path = folder / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }))  # fmt: skip
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
