"""The runs' namespace: labels, accounts and rights, settings, secrets, and what its network policies let out.

Accounts and rights are compared with infra/base of this checkout, so nothing is listed twice.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from graftline.doctor.cluster import KUBEFLOW, Check, Cluster
from graftline.doctor.points import Point, State, judged
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.kubernetes_api import RefusedError
from graftline.yamlfile import parse_json, parse_yaml

BASE = ROOT / "infra/base"
APPLY = "kubectl apply --server-side -k infra/overlays/OVERLAY"
SETTINGS = "graftline-settings"
"""The ConfigMap that reconcile and the pods of TrainJobs read."""
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418, "s3": 443}
_LEVEL = "pod-security.kubernetes.io/enforce"


def check_labels(cluster: Cluster) -> Iterator[Point]:
    """What Kubeflow asks of a namespace: its network policy lets in namespaces of profiles only (K31)."""
    labels = _labels(cluster)
    needed = {"pipelines.kubeflow.org/enabled": "true", "app.kubernetes.io/part-of": "kubeflow-profile"}
    if not cluster.settings.multi_user:
        needed = {}
    missing = [f"{key}={labels.get(key, '(none)')}" for key, value in needed.items() if labels.get(key) != value]
    wanted = " ".join(f"{key}={value}" for key, value in needed.items())
    yield judged(
        "namespace labels",
        missing,
        "there",
        wanted,
        f"kubectl label --overwrite namespace {cluster.settings.namespace} {wanted}",
    )


def check_pod_security(cluster: Cluster) -> Iterator[Point]:
    level = _labels(cluster).get(_LEVEL, "")
    do = f"kubectl label --overwrite namespace {cluster.settings.namespace} {_LEVEL}=restricted"
    levels: dict[str, State] = {"restricted": "ok", "baseline": "note"}
    state = levels.get(level, "wrong")
    yield Point("pod security", state, level or "none", "restricted", "" if state == "ok" else do)


def check_accounts(cluster: Cluster) -> Iterator[Point]:
    wanted = [each["metadata"]["name"] for each in _declared("ServiceAccount")]
    found = {each["metadata"]["name"] for each in cluster.kubernetes.items(f"{cluster.place}/serviceaccounts")}
    missing = [name for name in wanted if name not in found and name != "default"]
    yield judged("service accounts", [f"no {name}" for name in missing], "there", ", ".join(wanted), APPLY)


def check_roles(cluster: Cluster) -> Iterator[Point]:
    """Each Role holds the rights that infra/base gives it, and is bound to its account."""
    space = f"{_RBAC}/namespaces/{cluster.settings.namespace}"
    for role in _declared("Role"):
        name = role["metadata"]["name"]
        found = cluster.kubernetes.get(f"{space}/roles/{name}")
        lacks = sorted(_rights(role) - _rights(found or {}))
        problems = [f"may not {verb} {resource}" for resource, verb in lacks] if found else ["no such role"]
        if cluster.kubernetes.get(f"{space}/rolebindings/{name}") is None:
            problems.append("no role binding")
        yield judged(f"role {name}", problems, "as in infra/base", "as in infra/base", APPLY)


def check_settings(cluster: Cluster) -> Iterator[Point]:
    """Reconcile and TrainJobs' pods read a ConfigMap, compiled pipelines hold pipelines/settings.yaml: one address."""
    found = (cluster.kubernetes.get(f"{cluster.place}/configmaps/{SETTINGS}") or {}).get("data")
    needed = {"GRAFTLINE_STORE": cluster.store_url, "GRAFTLINE_REPOSITORY": cluster.settings.repository}
    problems = (
        [f"no ConfigMap {SETTINGS}"]
        if found is None
        else [f"{key} is {found.get(key, 'missing')}" for key, value in needed.items() if found.get(key) != value]
    )
    yield judged(
        "settings",
        problems,
        "as in pipelines/settings.yaml",
        ", ".join(f"{key}={value}" for key, value in needed.items()),
        "make pipelines/settings.yaml and the overlay's settings agree, `graftline compile`, apply",
    )


def check_store_secret(cluster: Cluster) -> Iterator[Point]:
    name, keys = cluster.settings.store_secret, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    found = cluster.secret(name)
    yield judged(
        f"secret {name}",
        _missing(found, keys),
        ", ".join(sorted(found or ())),
        ", ".join(keys),
        "docs/cluster.md, step 5: a step whose secret lacks a key never starts",
    )


def check_signing_secret(cluster: Cluster) -> Iterator[Point]:
    """The keyring, and the private key of each valid key that it calls its own: without one every stage ends with 2."""
    name = cluster.settings.signing_secret
    found = cluster.secret(name)
    problems = _missing(found, ("keyring.json",))
    if found and not problems:
        problems = _missing(found, [f"{key}.key" for key in _own_keys(found["keyring.json"])] or ["KEY.key"])
    yield judged(
        f"secret {name}",
        problems,
        ", ".join(sorted(found or ())),
        "keyring.json and its KEY.key",
        "docs/cluster.md, step 5: without a key every stage ends with exit code 2",
    )


def check_git_secret(cluster: Cluster) -> Iterator[Point]:
    """A public repository needs none; one that is there needs what steps and reconcile read of it."""
    name, keys = cluster.settings.git_secret, ("token", "credentials")
    found = cluster.secret(name)
    if found is None:
        yield Point(f"secret {name}", "ok", "none: the repository must be public", "for a private repository")
        return
    yield judged(
        f"secret {name}",
        _missing(found, keys),
        ", ".join(sorted(found)),
        ", ".join(keys),
        "docs/cluster.md, step 5: steps clone with `token`, reconcile with `credentials`",
    )


def check_artifacts(cluster: Cluster) -> Iterator[Point]:
    """Where Kubeflow's launcher keeps artifacts, and with whose keys."""
    found = (cluster.kubernetes.get(f"{cluster.place}/configmaps/kfp-launcher") or {}).get("data") or {}
    root = found.get("defaultPipelineRoot") or "minio://mlpipeline/v2/artifacts"
    needed = "a secret of its own for the pipeline root"
    if root.startswith("minio://"):
        there = cluster.kubernetes.get(f"{cluster.place}/secrets/mlpipeline-minio-artifact") is not None
        problems = [] if there or not cluster.settings.multi_user else ["no secret mlpipeline-minio-artifact"]
        yield judged("artifacts", problems, root, needed, "Kubeflow's profile controller makes it: see the labels")
        return
    named = re.findall(r"secretName: *([^\s,}]+)", found.get("providers") or "")
    problems = [
        f"no secret {name}" for name in named if cluster.kubernetes.get(f"{cluster.place}/secrets/{name}") is None
    ]
    problems += [] if named else [f"{root}, with our store's keys from the environment"]
    yield judged("artifacts", problems, root, needed, "see infra/kubeflow/kfp-launcher.yaml")


@dataclass(frozen=True)
class Target:
    """An address that a step's pod talks to."""

    name: str
    host: str
    port: int
    labels: Mapping[str, str] | None = None
    """Of the namespace that it is in; None for one outside the cluster."""

    def __str__(self) -> str:
        return f"{self.name} at {self.host}:{self.port}"


def check_egress(cluster: Cluster) -> Iterator[Point]:
    """Network policies open ports: a store or git on another one is shut off where policies hold (K34, K44).

    A name outside the cluster is taken to be in any block of addresses: only the pod can tell.
    """
    path = f"/apis/networking.k8s.io/v1/namespaces/{cluster.settings.namespace}/networkpolicies"
    pod = {"graftline.dev/task": "any", "graftline.dev/run": "any"}
    policies = [
        policy["spec"]
        for policy in cluster.kubernetes.items(path)
        if selects(policy["spec"].get("podSelector") or {}, pod)
        and "Egress" in (policy["spec"].get("policyTypes") or ())
    ]
    rules = [rule for policy in policies for rule in policy.get("egress") or ()]
    targets = list(_targets(cluster))
    shut = [target for target in targets if policies and not any(_allows(rule, target) for rule in rules)]
    yield judged(
        "egress",
        [f"nothing lets a step out to {target}" for target in shut],
        ", ".join(map(str, targets)),
        "a network policy that lets steps out to each",
        "open its port: infra/components/egress, in the overlay",
    )


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label selector chooses what has these labels."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions") or ():
        there, value = each["key"] in labels, labels.get(each["key"])
        holds = {
            "In": value in (each.get("values") or ()),
            "NotIn": value not in (each.get("values") or ()),
            "Exists": there,
            "DoesNotExist": not there,
        }
        if not holds[each["operator"]]:
            return False
    return True


def _targets(cluster: Cluster) -> Iterator[Target]:
    yield _target(cluster, "the store", _store_endpoint(cluster))
    scheme, separator, _ = cluster.settings.repository.partition("://")
    if separator and scheme != "file":
        yield _target(cluster, "git", cluster.settings.repository)
    elif not separator and ":" in cluster.settings.repository:  # user@host:path
        host = cluster.settings.repository.partition(":")[0].rpartition("@")[2]
        yield Target("git", host, _PORTS["ssh"])
    yield _target(cluster, "Kubeflow Pipelines", f"http://ml-pipeline.{KUBEFLOW}.svc:8887")
    for one in cluster.kubernetes.items(
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        labelSelector="kubernetes.io/service-name=kubernetes",
    ):
        for endpoint in one.get("endpoints") or ():
            yield Target("the Kubernetes API", endpoint["addresses"][0], one["ports"][0]["port"])


def _store_endpoint(cluster: Cluster) -> str:
    """Return the store's address: the pods' own, or this machine's where their secret may not be read."""
    try:
        found = (cluster.secret(cluster.settings.store_secret) or {}).get("AWS_ENDPOINT_URL", "")
    except RefusedError:
        found = os.environ.get("AWS_ENDPOINT_URL", "")
    return found or "https://s3.amazonaws.com"


def _target(cluster: Cluster, name: str, address: str) -> Target:
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
    service, _, rest = host.partition(".")
    space, _, more = rest.partition(".")
    if not space or (more and not more.startswith("svc")):
        return Target(name, host, port)
    found = cluster.kubernetes.get(f"/api/v1/namespaces/{space}")
    if found is None:  # two labels, as in example.com
        return Target(name, host, port)
    return Target(name, host, _pod_port(cluster, space, service, port), found["metadata"].get("labels") or {})


def _pod_port(cluster: Cluster, namespace: str, service: str, port: int) -> int:
    """Return the port of the pods behind a service's port: policies know pods, not services."""
    found = cluster.kubernetes.get(f"/api/v1/namespaces/{namespace}/services/{service}") or {"spec": {}}
    for each in found["spec"].get("ports") or ():
        if each["port"] == port and isinstance(each.get("targetPort"), int):
            return int(each["targetPort"])
    return port


def _allows(rule: Mapping[str, Any], target: Target) -> bool:
    ports = rule.get("ports")
    if ports and not any(_covers(each, target.port) for each in ports):
        return False
    peers = rule.get("to")
    return not peers or any(_reaches(peer, target) for peer in peers)


def _covers(entry: Mapping[str, Any], port: int) -> bool:
    if entry.get("protocol", "TCP") != "TCP":
        return False
    first = entry.get("port")
    return first is None or (isinstance(first, int) and first <= port <= entry.get("endPort", first))


def _reaches(peer: Mapping[str, Any], target: Target) -> bool:
    if block := peer.get("ipBlock"):
        try:
            address = ipaddress.ip_address(target.host)
        except ValueError:
            return target.labels is None
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(each) for each in block.get("except") or ())
    return (
        target.labels is not None
        and "namespaceSelector" in peer
        and selects(peer["namespaceSelector"] or {}, target.labels)
    )


def _labels(cluster: Cluster) -> dict[str, str]:
    found = cluster.kubernetes.get(f"/api/v1/namespaces/{cluster.settings.namespace}")
    if found is None:
        raise InputError(f"namespace {cluster.settings.namespace}", "does not exist", fix=APPLY)
    return dict(found["metadata"].get("labels") or {})


def _declared(kind: str) -> list[dict[str, Any]]:
    """Return the objects of a kind that infra/base declares."""
    return [each for each in _base() if each.get("kind") == kind]


@cache
def _base() -> list[dict[str, Any]]:
    """Return all of them, read once."""
    found: list[dict[str, Any]] = []
    for path in sorted(BASE.glob("*.yaml")):
        for text in f"\n{path.read_text(encoding='utf-8')}".split("\n---\n"):
            document = parse_yaml(text, where=path) or {}
            found += document.get("items") or [document]
    return found


def _rights(role: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return a role's rights as (what, verb)."""
    return {
        ("/".join(filter(None, (group, resource, name))), verb)
        for rule in role.get("rules") or ()
        for group in rule.get("apiGroups") or ("",)
        for resource in rule.get("resources") or ()
        for name in rule.get("resourceNames") or ("",)
        for verb in rule["verbs"]
    }


def _missing(found: Mapping[str, str] | None, keys: Iterable[str]) -> list[str]:
    if found is None:
        return ["no such secret"]
    return [f"no {key}" if key not in found else f"{key} is empty" for key in keys if not found.get(key)]


def _own_keys(keyring: str) -> list[str]:
    """Return the ids of a keyring's own keys that still sign; none if it is not one."""
    try:
        keys = parse_json(keyring, where="keyring.json")["keys"]
        return [each["keyid"] for each in keys if each["own"] and not (each.get("retired") or each.get("revoked"))]
    except (InputError, KeyError, TypeError):
        return []


CHECKS = (
    Check("namespace labels", check_labels, essential=True),
    Check("pod security", check_pod_security, essential=True),
    Check("service accounts", check_accounts),
    Check("roles", check_roles),
    Check("settings", check_settings),
    Check("secret of the store", check_store_secret),
    Check("secret of the keys", check_signing_secret),
    Check("secret of git", check_git_secret),
    Check("artifacts", check_artifacts),
    Check("egress", check_egress),
)
