"""What a step reaches: the store from here, then images, store and git from a pod that is made as a step's is.

The pod is one of the image `data`, under the runs' account, with the store's secret, no root, a read-only root file
system. It runs probe.py and leaves its answer in its termination message; it is deleted whatever happens.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graftline.doctor.cluster import Check, Cluster
from graftline.doctor.points import Point, judged
from graftline.doctor.probe import store_fault
from graftline.errors import GraftlineError
from graftline.images import digest
from graftline.kubernetes_api import RefusedError
from graftline.task_data import origin

LABEL = "graftline-doctor"
"""`app.kubernetes.io/name` of the pods that are started here."""
REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
SECOND_THOUGHTS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Why a container waits that will not start by waiting."""


def check_store(cluster: Cluster) -> Iterator[Point]:
    fault = store_fault(cluster.store_url)
    yield judged(
        "store from here",
        [fault] if fault else [],
        f"{cluster.store_url}: conditional writes",
        "If-None-Match and If-Match on writes; list, delete",
        "set AWS_ENDPOINT_URL and the keys as in docs/cluster.md, step 5; use a store with conditional writes",
    )


def check_pod(cluster: Cluster) -> Iterator[Point]:
    """Start the pod and say what it said; what it stands on is said first."""
    do = "see the reason; the other points may name its cause"
    end = _run(cluster, "data", _probe(cluster))
    if end.problem:
        yield Point("pod", end.state, end.problem, "a pod as a step's, ready and done in 90 s", do, essential=True)
        return
    yield Point("pod", "ok", f"ran on {end.node}", "a pod as a step's")
    try:
        said = json.loads(end.message)
    except ValueError:
        yield Point(
            "store from a pod",
            "wrong",
            f"the pod's end says no more than: {end.message[-300:] or 'nothing'}",
            "an image with graftline.doctor",
            "build the images of this commit: docs/cluster.md, step 4",
        )
        return
    yield _said("names from a pod", said["names"], "resolved", "the cluster's DNS lets pods ask; see egress")
    yield _said("store from a pod", said["store"], "conditional writes", "see egress and the store's secret")
    yield _said("repository from a pod", said["repository"], "listed", "see egress, `repository`, the git secret")


def check_images(cluster: Cluster) -> Iterator[Point]:
    """The images by digest: nodes list what they have, and a pod of one that is on no node shows whether it comes."""
    nodes = cluster.kubernetes.items("/api/v1/nodes")
    for target in ("data", "train"):
        image = getattr(cluster.images, target)
        has = [node for node in nodes if _lists(node, digest(image))]
        if has:
            yield Point(f"image {target}", "ok", f"on {len(has)} of {len(nodes)} nodes", image)
            continue
        if cluster.wait_seconds <= 0:
            yield Point(f"image {target}", "skipped", "on no node; --no-pod", image)
            continue
        end = _run(cluster, target, ["true"])
        do = "push the images and compile (docs/cluster.md, step 4), or load them into the nodes"
        yield (
            Point(f"image {target}", "ok", f"pulled on {end.node}", image)
            if not end.problem
            else Point(f"image {target}", end.state, end.problem, image, do)
        )


def _lists(node: dict[str, Any], wanted: str) -> bool:
    images = (node.get("status") or {}).get("images") or ()
    return any(wanted in name for image in images for name in image.get("names") or ())


def _said(name: str, fault: str, fine: str, do: str) -> Point:
    return judged(name, [fault] if fault else [], fine, "", do)


def _probe(cluster: Cluster) -> list[str]:
    return [
        "python", "-m", "graftline.doctor.probe", "--store", cluster.store_url,
        "--repository", cluster.settings.repository, "--out", "/dev/termination-log",
    ]  # fmt: skip


class End:
    """How a pod ended; `problem` says why it did not."""

    def __init__(self, problem: str = "", *, known: bool = True, node: str = "", message: str = "") -> None:
        self.problem, self.node, self.message = problem, node, message
        self.state: Any = "wrong" if known else "unknown"
        """Of a point about the problem: whether it is one of the cluster's or of who asks."""


def _run(cluster: Cluster, target: str, command: list[str]) -> End:
    """Run a pod to its end, or for as long as it may take; delete it."""
    manifest = probe_pod(cluster, target, command)
    place = f"{cluster.place}/pods"
    try:
        with _deleted(cluster, f"{place}/{manifest['metadata']['name']}"):
            cluster.kubernetes.create(place, manifest)
            return _follow(cluster, f"{place}/{manifest['metadata']['name']}")
    except RefusedError as error:
        return End(f"the API refused it: {error}", known=not error.forbids)


@contextmanager
def _deleted(cluster: Cluster, path: str) -> Iterator[None]:
    """Delete what is at `path` afterwards, again where the API does not take it."""
    try:
        yield
    finally:
        for pause in (0.5, 2.0, 0.0):
            try:
                cluster.kubernetes.delete(path, gracePeriodSeconds="0")
                break
            except RefusedError as error:
                if error.status in (403, 405):
                    break
            except GraftlineError:
                pass
            time.sleep(pause)


def _follow(cluster: Cluster, path: str) -> End:
    end = time.monotonic() + cluster.wait_seconds
    pause = 0.1
    while True:
        pod = cluster.kubernetes.get(path)
        if pod is None:
            return End("somebody deleted it")
        status = pod.get("status") or {}
        state = next((each.get("state") or {} for each in status.get("containerStatuses") or ()), {})
        node = pod["spec"].get("nodeName", "")
        if "terminated" in state:
            ended = state["terminated"]
            if ended.get("exitCode") and not ended.get("message"):
                return End(f"it ended with {ended['exitCode']} ({ended.get('reason', 'no reason')})")
            return End(node=node, message=ended.get("message") or "")
        waiting = state.get("waiting") or {}
        if waiting.get("reason") in SECOND_THOUGHTS:
            return End(f"{waiting['reason']}: {waiting.get('message') or _events(cluster, path)}")
        if time.monotonic() > end:
            reason = waiting.get("reason") or status.get("phase") or "Pending"
            return End(f"{reason} after {cluster.wait_seconds:.0f} s: {_events(cluster, path) or 'no events'}")
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def _events(cluster: Cluster, path: str) -> str:
    """Return what the scheduler and the kubelet say of a pod, the last word last."""
    selector = f"involvedObject.name={path.rpartition('/')[2]}"
    try:
        events = cluster.kubernetes.items(f"{cluster.place}/events", fieldSelector=selector)
    except RefusedError as error:
        return f"its events may not be read: {error}"
    said = dict.fromkeys(
        f"{each.get('reason')}: {' '.join(str(each.get('message')).split())}"
        for each in events
        if each.get("type") == "Warning"
    )
    return "; ".join([*said][-3:])


def probe_pod(cluster: Cluster, target: str, command: list[str]) -> dict[str, Any]:
    """Return the pod: a step's user, account and secrets, and the smallest size."""
    settings = cluster.settings

    def secret(variable: str, name: str, key: str, *, optional: bool = False) -> dict[str, Any]:
        return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": optional}}}

    environment = [
        secret("AWS_ACCESS_KEY_ID", settings.store_secret, "AWS_ACCESS_KEY_ID"),
        secret("AWS_SECRET_ACCESS_KEY", settings.store_secret, "AWS_SECRET_ACCESS_KEY"),
        secret("AWS_ENDPOINT_URL", settings.store_secret, "AWS_ENDPOINT_URL", optional=True),
        *({"name": name, "value": settings.region} for name in REGION if settings.region),
        secret("GRAFTLINE_GIT_TOKEN", settings.git_secret, "token", optional=True),
        {"name": "GRAFTLINE_GIT_ORIGIN", "value": origin(settings.repository)},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108  (a mount)
    ]
    size = {
        "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
        "limits": {"cpu": "1", "memory": "512Mi", "ephemeral-storage": "1Gi"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{LABEL}-{target}-{uuid.uuid4().hex[:8]}",
            "namespace": settings.namespace,
            "labels": {"app.kubernetes.io/name": LABEL},
            "annotations": {"sidecar.istio.io/inject": "false"},
        },
        "spec": {
            "serviceAccountName": settings.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 300,  # of one that could not be deleted
            "terminationGracePeriodSeconds": 0,
            "tolerations": [each.model_dump(exclude_none=True) for each in cluster.placed["fetch"].tolerations],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": settings.user,
                "runAsGroup": settings.user,
                "fsGroup": settings.user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": getattr(cluster.images, target),
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "env": environment if target == "data" else [],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "resources": size,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
        },
    }


def _skip(cluster: Cluster) -> Iterator[Point]:
    yield Point("pod", "skipped", "--no-pod: store, git and images were not looked at from a pod")


STORE = Check("store from here", check_store, essential=True)
POD = (Check("pod", check_pod, essential=True), Check("images", check_images))
NO_POD = (Check("pod", _skip), Check("images", check_images))
