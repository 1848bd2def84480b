"""Whether a pod of each profile finds a place: the namespace's limits, the nodes, the queue's flavours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from kubernetes.utils import parse_quantity

from graftline.doctor.cluster import Check, Cluster
from graftline.doctor.namespace import selects
from graftline.doctor.points import Point, State, judged
from graftline.pipelines.trainjob.manifest import QUEUE
from graftline.profiles import Pod

_FLAVOURS = "/apis/kueue.x-k8s.io/v1beta2/resourceflavors"
_QUEUES = "/apis/kueue.x-k8s.io/v1beta2/clusterqueues"
_COUNTED = (
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
)
"""What a quota may count: a pod that says nothing of it is refused, unless a limit range has a default."""

Amounts = dict[str, Decimal]


def requests(pod: Pod) -> Amounts:
    """Return what a node must have free for a profile's pod, by resource; cores and bytes."""
    return _resources(pod, pod.requested.cpu, pod.requested.memory_gib)


def limits(pod: Pod) -> Amounts:
    """Return what a profile's pod may use."""
    return _resources(pod, pod.cpu, pod.memory_gib)


def _resources(pod: Pod, cpu: float, memory_gib: float) -> Amounts:
    asked = {"cpu": Decimal(str(cpu)), "memory": Decimal(str(memory_gib)) * (1 << 30)}
    return asked | ({pod.resource: Decimal(pod.accelerators)} if pod.resource else {})


def check_quota(cluster: Cluster) -> Iterator[Point]:
    """A pod above the quota is never made, and Kubeflow's API says nothing of it (K10)."""
    quotas = cluster.kubernetes.items(f"{cluster.place}/resourcequotas")
    for name, pod, steps in cluster.profiles:
        count = pod.nodes if cluster.train_jobs & set(steps) else 1
        asked = {
            "pods": Decimal(1),
            **requests(pod),
            **{f"requests.{resource}": amount for resource, amount in requests(pod).items()},
            **{f"limits.{resource}": amount for resource, amount in limits(pod).items()},
        }
        over, full = [], []
        for quota in quotas:
            used = (quota.get("status") or {}).get("used") or {}
            for limited, limit in (quota["spec"].get("hard") or {}).items():
                amount = asked.get(limited, Decimal(0)) * count
                said = f"{limited}: {_shown(amount, limited)}"
                if amount > _amount(limit):
                    over.append(f"{said} > {limit}")
                elif amount and amount + _amount(used.get(limited, 0)) > _amount(limit):
                    full.append(f"{said} beside {used[limited]} in use > {limit}")
        do = "raise the overlay's quota, or choose a smaller profile" if over or full else ""
        state: State = "wrong" if over else "note" if full else "ok"
        yield Point(f"quota for {name}", state, "; ".join([*over, *full]) or "fits", "room for one pod", do)


def check_limits(cluster: Cluster) -> Iterator[Point]:
    """Kubeflow's own containers say nothing of some resources, and a quota on those refuses them."""
    ranges = [
        limit
        for each in cluster.kubernetes.items(f"{cluster.place}/limitranges")
        for limit in each["spec"]["limits"]
        if limit["type"] == "Container"
    ]
    problems = []
    for quota in cluster.kubernetes.items(f"{cluster.place}/resourcequotas"):
        for limited in set(quota["spec"].get("hard") or {}) & set(_COUNTED):
            side, _, resource = limited.partition(".")
            key = "default" if side == "limits" else "defaultRequest"
            if not any(resource in (limit.get(key) or {}) for limit in ranges):
                problems.append(f"the quota counts {limited}, and no limit range has a {key} of {resource}")
    for name, pod, _ in cluster.profiles:
        for resource, amount in limits(pod).items():
            least = [limit["max"][resource] for limit in ranges if resource in (limit.get("max") or {})]
            problems += [
                f"{name}: {resource} {_shown(amount, resource)} > {most}" for most in least if amount > _amount(most)
            ]
    yield judged(
        "limit range",
        sorted(problems),
        "fits",
        "defaults for what the quota counts, no maximum below a profile",
        "apply infra/base/quota.yaml of this checkout, or choose a smaller profile",
    )


def check_nodes(cluster: Cluster) -> Iterator[Point]:
    """Nodes on which a pod of each profile could be: labels, taints, size."""
    nodes = cluster.kubernetes.items("/api/v1/nodes")
    for name, pod, steps in cluster.profiles:
        reasons = {node["metadata"]["name"]: _hindrance(node, pod) for node in nodes}
        fitting = [node for node, reason in reasons.items() if not reason]
        point, needed = f"nodes for {name}", f"one for {', '.join(steps)}"
        if fitting:
            yield Point(point, "ok", f"{len(fitting)} of {len(nodes)}", needed)
            continue
        why = "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items())[:3]) or "no nodes"
        grows = _grows(cluster)
        do = "the pool may grow from nothing; else: " if grows else ""
        do += "label or add a node (docs/cluster.md, Pools), or choose a profile that fits: --profile NAME"
        yield Point(point, "note" if grows else "wrong", why, needed, do)


def check_flavours(cluster: Cluster) -> Iterator[Point]:
    """Kueue lets a TrainJob in only by a flavour whose taints its pods tolerate and whose quota it fits (K41)."""
    queue = cluster.kubernetes.get(f"{_QUEUES}/{QUEUE}")
    if queue is None:
        return  # said by `queue`
    flavours = {each["metadata"]["name"]: each.get("spec") or {} for each in cluster.kubernetes.items(_FLAVOURS)}
    nodes = cluster.kubernetes.items("/api/v1/nodes")
    groups = queue["spec"].get("resourceGroups") or ()
    quotas = {
        each["name"]: {one["name"]: _amount(one["nominalQuota"]) for one in each.get("resources") or ()}
        for group in groups
        for each in group.get("flavors") or ()
    }
    problems = [f"no ResourceFlavor {name}" for name in quotas if name not in flavours]
    for name in quotas:
        pool = [each for each in nodes if _has(each, flavours.get(name, {}).get("nodeLabels") or {})]
        problems += [
            f"{name} has the taint {_taint(taint)}, which node {node['metadata']['name']} lacks"
            for node in pool[:1]
            for taint in flavours.get(name, {}).get("nodeTaints") or ()
            if taint not in (node["spec"].get("taints") or ())
        ]
    for name, pod, steps in cluster.profiles:
        if cluster.train_jobs & set(steps):
            refusals = [_refusal(flavours.get(each, {}), quota, pod) for each, quota in quotas.items()]
            if all(refusals):
                problems.append(f"a TrainJob of {name} is never let in: {'; '.join(filter(None, refusals))}")
    yield judged(
        "flavours",
        problems,
        ", ".join(quotas),
        "a flavour for each pool, with no taint that its nodes lack",
        "make nodes, flavour (infra/components/kueue*) and profile agree",
    )


def _refusal(flavour: Mapping[str, Any], quota: Amounts, pod: Pod) -> str:
    """Return why Kueue would not let a job of a profile in by a flavour; "" if it would."""
    labels = flavour.get("nodeLabels") or {}
    for key, value in pod.node_selector.items():
        if key in labels and labels[key] != value:
            return f"it is for {key}={labels[key]}"
    for taint in flavour.get("nodeTaints") or ():
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(pod, taint):
            return f"untolerated taint {_taint(taint)}"
    for resource, amount in requests(pod).items():
        if resource not in quota:
            return f"the queue does not cover {resource}"
        if amount * pod.nodes > quota[resource]:
            return f"{resource} {_shown(amount * pod.nodes, resource)} > its quota"
    return ""


def _hindrance(node: Mapping[str, Any], pod: Pod) -> str:
    """Return why a pod of a profile cannot be on a node; "" if it can."""
    labels, spec, status = (node["metadata"].get("labels") or {}, node.get("spec") or {}, node.get("status") or {})
    for key, value in pod.node_selector.items():
        if labels.get(key) != value:
            return f"no label {key}={value}"
    required = [
        {"key": each.key, "operator": each.operator, "values": list(each.values)}
        for each in pod.affinity
        if each.weight is None
    ]
    if not selects({"matchExpressions": required}, labels):
        return "its labels are not those that the profile requires"
    ready: dict[str, Any] = next((each for each in status.get("conditions") or () if each["type"] == "Ready"), {})
    if spec.get("unschedulable") or ready.get("status") != "True":
        return "cordoned" if spec.get("unschedulable") else "not ready"
    for taint in spec.get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(pod, taint):
            return f"untolerated taint {_taint(taint)}"
    allocatable = status.get("allocatable") or {}
    for resource, amount in requests(pod).items():
        if amount > _amount(allocatable.get(resource, 0)):
            return f"{resource} {allocatable.get(resource, 0)} < {_shown(amount, resource)}"
    return ""


def _tolerated(pod: Pod, taint: Mapping[str, Any]) -> bool:
    return any(
        each.key == taint["key"]
        and each.effect == taint["effect"]
        and (each.operator == "Exists" or (each.value or "") == (taint.get("value") or ""))
        for each in pod.tolerations
    )


def _has(node: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return bool(labels) and selects({"matchLabels": labels}, node["metadata"].get("labels") or {})


def _grows(cluster: Cluster) -> bool:
    """Return whether something makes nodes here when pods ask for them."""
    return bool(cluster.kubernetes.items("/apis/karpenter.sh/v1/nodepools")) or (
        cluster.kubernetes.get("/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status") is not None
    )


def _taint(taint: Mapping[str, Any]) -> str:
    return f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"


def _amount(text: Any) -> Decimal:
    return Decimal(parse_quantity(text))


def _shown(amount: Decimal, resource: str) -> str:
    if resource.endswith(("memory", "storage")):
        return f"{amount / (1 << 30):.0f}Gi"
    return f"{amount.normalize():f}"


CHECKS = (
    Check("quota", check_quota),
    Check("limit range", check_limits),
    Check("nodes", check_nodes),
    Check("flavours", check_flavours),
)
