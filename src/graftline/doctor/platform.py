"""What Graftline stands on: Kubernetes, Kubeflow Pipelines with Argo Workflows, Trainer, JobSet, Kueue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from graftline.doctor.cluster import KUBEFLOW, Check, Cluster
from graftline.doctor.points import Point, judged
from graftline.kubeflow_api import LEAST_VERSION
from graftline.kubernetes_api import RefusedError
from graftline.pipelines.trainjob.manifest import QUEUE, RUNTIME
from graftline.yamlfile import parse_yaml

Version = tuple[int, int]

KUBERNETES: tuple[Version, Version] = ((1, 35), (1, 37))
"""The versions that `make manifests` validates for."""
CONTROLLERS = {
    # A TrainJob patches its runtime by `runtimePatches` since Trainer 2.2; Kueue before 0.17 does not know them.
    "Trainer": ("trainer-controller-manager", (2, 2)),
    "Kueue": ("kueue", (0, 17)),
    "JobSet": ("jobset", (0, 10)),
}
"""Each controller's image and its oldest version that works."""
APIS = {
    "Workflow": "argoproj.io/v1alpha1",
    "Pipeline": "pipelines.kubeflow.org/v2beta1",
    "PipelineVersion": "pipelines.kubeflow.org/v2beta1",
    "TrainJob": "trainer.kubeflow.org/v1alpha1",
    "ClusterTrainingRuntime": "trainer.kubeflow.org/v1alpha1",
    "JobSet": "jobset.x-k8s.io/v1alpha2",
    "LocalQueue": "kueue.x-k8s.io/v1beta2",
}
"""The kinds that runs are made of, in the versions in which they are written here."""
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_RUNTIMES = "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes"
_QUEUES = "/apis/kueue.x-k8s.io/v1beta2"
_STEP = "docs/cluster.md, step 3"


def check_kubernetes(cluster: Cluster) -> Iterator[Point]:
    found = str((cluster.kubernetes.get("/version") or {}).get("gitVersion", "no version"))
    oldest, newest = KUBERNETES
    version = _version(found)
    fine = version is not None and oldest <= version <= newest
    needed = f"{_shown(oldest)} to {_shown(newest)}"
    do = "upgrade the cluster" if version and version < oldest else "use one that the manifests are checked for"
    yield Point("Kubernetes", "ok" if fine else "wrong", found, needed, "" if fine else do)


def check_pipelines(cluster: Cluster) -> Iterator[Point]:
    """Kubeflow Pipelines' version, from its own word; a build without one is known by the image that runs."""
    health = cluster.kubeflow("/apis/v2beta1/healthz")
    found = str(health.get("tag_name") or "")
    version = _version(found) or _version(found := _image_of(cluster, "ml-pipeline") or found)
    needed = f"{_shown(LEAST_VERSION)} or later"
    if version is None:
        yield Point(
            "Kubeflow Pipelines",
            "unknown",
            f"{cluster.endpoint} does not say its version ({found or 'nothing'})",
            needed,
            "look at the image of deployment ml-pipeline",
            essential=True,
        )
        return
    yield judged(
        "Kubeflow Pipelines",
        [found] if version < LEAST_VERSION else [],
        found,
        needed,
        "upgrade: an older one drops the platform spec (secrets, nodes, retries) without a word",
    )


def check_mode(cluster: Cluster) -> Iterator[Point]:
    health = cluster.kubeflow("/apis/v2beta1/healthz")
    wanted, found = cluster.settings.multi_user, bool(health.get("multi_user"))
    names = {True: "multi-user", False: "standalone"}
    yield judged(
        "Kubeflow mode",
        [] if wanted == found else [names[found]],
        names[found],
        f"{names[wanted]} (pipelines/settings.yaml)",
        f"set multi_user: {str(found).lower()} in pipelines/settings.yaml, then `graftline compile`",
    )


def check_identity(cluster: Cluster) -> Iterator[Point]:
    """Whether our token is accepted for the runs' namespace."""
    space = {"namespace": cluster.settings.api_namespace} if cluster.settings.api_namespace else {}
    needed = "a token of graftline-reconcile, audience pipelines.kubeflow.org"
    do = (
        f"export GRAFTLINE_KFP_TOKEN=$(kubectl -n {cluster.settings.namespace} create token graftline-reconcile "
        "--audience pipelines.kubeflow.org)"
    )
    try:
        cluster.kubeflow("/apis/v2beta1/experiments", page_size="1", **space)
    except RefusedError as error:
        if error.status not in (401, 403):
            raise
        who = "does not know us" if error.status == 401 else "knows us, and we may not list experiments"
        yield Point("Kubeflow identity", "wrong", f"it {who}: {error}", needed, do)
        return
    yield Point("Kubeflow identity", "ok", "accepted", needed if space else "")


def check_retries(cluster: Cluster) -> Iterator[Point]:
    """Argo's defaults for every template (K6): `Always` tries failures again too, and nests to 243 starts."""
    defaults = _workflow_defaults(cluster)
    needed, do = "OnError", f"set it in configmap workflow-controller-configmap of namespace {KUBEFLOW}"
    spec = defaults.get("spec") or {}
    strategies = [spec.get("retryStrategy"), (spec.get("templateDefaults") or {}).get("retryStrategy")]
    policies = [str(strategy.get("retryPolicy") or "OnFailure") for strategy in strategies if strategy]
    if not policies:
        yield Point("retry defaults", "note", "none: the loss of a driver's pod is not tried again", needed, do)
        return
    yield judged(
        "retry defaults",
        [policy for policy in policies if policy != "OnError"],
        "OnError",
        needed,
        do + ": failures would be tried again too, up to 243 starts",
    )


def check_time_to_live(cluster: Cluster) -> Iterator[Point]:
    """Argo's defaults for ended workflows win over a pipeline's `secondsAfterCompletion` (K17)."""
    strategy = (_workflow_defaults(cluster).get("spec") or {}).get("ttlStrategy") or {}
    wanted = cluster.settings.ttl_days * 86_400
    short = {name: seconds for name, seconds in strategy.items() if int(seconds) < wanted}
    found = ", ".join(f"{name} {seconds}" for name, seconds in sorted(short.items()))
    needed = f"{wanted} s (ttl_days in pipelines/settings.yaml)"
    do = f"set ttlStrategy in configmap workflow-controller-configmap of namespace {KUBEFLOW}"
    yield Point("time to live", "note" if short else "ok", found or "as the pipelines say", needed, do if short else "")


def check_apis(cluster: Cluster) -> Iterator[Point]:
    """The kinds are served in the versions that are written here."""
    for kind, version in APIS.items():
        served = (cluster.kubernetes.get(f"/apis/{version}") or {}).get("resources") or ()
        there = any(resource.get("kind") == kind for resource in served)
        group = cluster.kubernetes.get(f"/apis/{version.partition('/')[0]}") or {}
        others = ", ".join(each["version"] for each in group.get("versions") or ())
        problems = [] if there else [f"not served{f'; the group has {others}' if others else ''}"]
        point = judged(f"API {kind}", problems, version, version, f"install it: {_STEP}")
        yield point if version.startswith(("argoproj", "pipelines")) else _for_jobs(cluster, point)


def check_controllers(cluster: Cluster) -> Iterator[Point]:
    """Trainer, Kueue and JobSet, by their images' tags: they work together in some versions only.

    One whose kinds are served and that no deployment shows runs elsewhere; one that serves none is said by `API ...`.
    """
    images = _images(cluster)
    for name, (repository, oldest) in CONTROLLERS.items():
        found = next((tag for image, tag in images if image.endswith(f"/{repository}")), None)
        version, needed = _version(found or ""), f"{_shown(oldest)} or later"
        if version is None:
            why = f"no deployment of an image {repository}" if found is None else f"its image's tag is {found!r}"
            yield Point(name, "unknown", f"{why}: its version cannot be told", needed, "look at what runs it")
            continue
        problems = [] if version >= oldest else [str(found)]
        yield _for_jobs(cluster, judged(name, problems, str(found), needed, f"upgrade it: {_STEP}"))


def check_webhooks(cluster: Cluster) -> Iterator[Point]:
    """While a webhook has nobody to answer, the API refuses every pod or job that it is about (K33)."""
    services = set()
    for kind in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        for configuration in cluster.kubernetes.items(f"{_ADMISSION}/{kind}"):
            if re.search("kueue|trainer|jobset|pipeline", configuration["metadata"]["name"]):
                for webhook in configuration.get("webhooks") or ():
                    if service := (webhook.get("clientConfig") or {}).get("service"):
                        services.add((service["namespace"], service["name"]))
    silent = [f"{space}/{name}" for space, name in sorted(services) if not _answers(cluster, space, name)]
    yield judged(
        "webhooks",
        [f"nobody answers behind service {service}" for service in silent],
        f"{len(services)} answer",
        "a ready endpoint behind each",
        "wait for its controller, or look at why it does not start: until then pods and jobs are refused",
    )


def check_runtime(cluster: Cluster) -> Iterator[Point]:
    there = cluster.kubernetes.get(f"{_RUNTIMES}/{RUNTIME}") is not None
    point = judged(
        "training runtime",
        [] if there else [f"no ClusterTrainingRuntime {RUNTIME}"],
        RUNTIME,
        RUNTIME,
        "apply the overlay, which has components/trainer",
    )
    yield _for_jobs(cluster, point)


def check_queue(cluster: Cluster) -> Iterator[Point]:
    """The LocalQueue that TrainJobs name, and the ClusterQueue behind it."""
    local = cluster.kubernetes.get(f"{_QUEUES}/namespaces/{cluster.settings.namespace}/localqueues/{QUEUE}")
    do = "apply the overlay, which has components/kueue"
    if local is None:
        yield _for_jobs(cluster, Point("queue", "wrong", f"no LocalQueue {QUEUE}", "an active one", do))
        return
    name = str(local["spec"]["clusterQueue"])
    whole = cluster.kubernetes.get(f"{_QUEUES}/clusterqueues/{name}")
    problems = [
        *_inactive(f"LocalQueue {QUEUE}", local),
        *(_inactive(f"ClusterQueue {name}", whole) if whole else [f"no ClusterQueue {name}"]),
    ]
    yield _for_jobs(cluster, judged("queue", problems, "active", "LocalQueue and ClusterQueue active", do))


def _inactive(what: str, queue: dict[str, Any]) -> list[str]:
    conditions = (queue.get("status") or {}).get("conditions") or ()
    active: dict[str, Any] = next((each for each in conditions if each["type"] == "Active"), {})
    if active.get("status") == "True":
        return []
    return [f"{what} is not active: {active.get('message') or 'Kueue has not looked at it'}"]


def _answers(cluster: Cluster, namespace: str, service: str) -> bool:
    slices = cluster.kubernetes.items(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        labelSelector=f"kubernetes.io/service-name={service}",
    )
    endpoints = (each for one in slices for each in one.get("endpoints") or ())
    return any((each.get("conditions") or {}).get("ready") is not False for each in endpoints)


def _workflow_defaults(cluster: Cluster) -> dict[str, Any]:
    """Return Argo's `workflowDefaults`; it stands under a key of its own or in `config`."""
    place = f"/api/v1/namespaces/{KUBEFLOW}/configmaps/workflow-controller-configmap"
    data = (cluster.kubernetes.get(place) or {}).get("data") or {}
    where = "workflow-controller-configmap"
    whole = parse_yaml(data.get("config") or "", where=where) or {}
    own = parse_yaml(data.get("workflowDefaults") or "", where=where)
    found = own or (whole.get("workflowDefaults") if isinstance(whole, dict) else None)
    return found if isinstance(found, dict) else {}


def _for_jobs(cluster: Cluster, point: Point) -> Point:
    """Return a point about TrainJobs: no more than a note where no step of these profiles is one."""
    return replace(point, state="note") if point.state == "wrong" and not cluster.train_jobs else point


def _images(cluster: Cluster) -> list[tuple[str, str]]:
    """Return name and tag of the image of every deployment in the cluster."""
    return [
        _split(str(container.get("image", "")))
        for each in cluster.kubernetes.items("/apis/apps/v1/deployments")
        for container in each["spec"]["template"]["spec"]["containers"]
    ]


def _image_of(cluster: Cluster, deployment: str) -> str:
    """Return the tag of a deployment's image in Kubeflow's namespace; "" if it may not be seen."""
    try:
        found = cluster.kubernetes.get(f"/apis/apps/v1/namespaces/{KUBEFLOW}/deployments/{deployment}")
    except RefusedError:
        return ""
    containers = found["spec"]["template"]["spec"]["containers"] if found else []
    return _split(str(containers[0]["image"]))[1] if containers else ""


def _split(image: str) -> tuple[str, str]:
    """Return an image's name and tag, without the digest."""
    name, _, last = image.partition("@")[0].rpartition("/")
    last, _, tag = last.partition(":")
    return f"{name}/{last}", tag


def _version(text: str) -> Version | None:
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _shown(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


CHECKS = (
    Check("Kubernetes", check_kubernetes, essential=True),
    Check("Kubeflow Pipelines", check_pipelines, essential=True),
    Check("Kubeflow mode", check_mode, essential=True),
    Check("Kubeflow identity", check_identity, essential=True),
    Check("retry defaults", check_retries),
    Check("time to live", check_time_to_live),
    Check("APIs", check_apis),
    Check("controllers", check_controllers),
    Check("webhooks", check_webhooks),
    Check("training runtime", check_runtime),
    Check("queue", check_queue),
)
