"""How a cluster is asked: plain JSON from the Kubernetes API, and from that of Kubeflow Pipelines."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from urllib3.exceptions import HTTPError

from graftline.doctor.points import Point
from graftline.errors import GraftlineError, InputError, brief
from graftline.images import Images
from graftline.kubeflow_api import TOKEN, connect
from graftline.kubernetes_api import TIMEOUT, Kubernetes, RefusedError, reason_of
from graftline.pipelines.pods import DISTRIBUTED
from graftline.profiles import TRAINING, Pod, load_profiles
from graftline.settings import Settings

KUBEFLOW = "kubeflow"
"""The namespace of Kubeflow Pipelines and its Argo Workflows."""


@dataclass(frozen=True)
class Cluster:
    """A cluster, and what this checkout wants of it."""

    kubernetes: Kubernetes
    settings: Settings
    store_url: str
    placed: dict[str, Pod]
    """What the pod of each step asks for."""
    images: Images
    endpoint: str = ""
    """Of Kubeflow Pipelines; "" if it was not given."""
    wait_seconds: float = 90.0
    """How long a pod may take to start and to answer."""

    @property
    def place(self) -> str:
        """The path below which the objects of the runs' namespace lie."""
        return f"/api/v1/namespaces/{self.settings.namespace}"

    @property
    def train_jobs(self) -> set[str]:
        """The steps that are TrainJobs: on several nodes, or on machines that may be taken away."""
        return {
            step
            for step, pod in self.placed.items()
            if (pod.nodes > 1 and step in DISTRIBUTED) or (pod.retries.preemptions > 0 and step in TRAINING)
        }

    @cached_property
    def profiles(self) -> list[tuple[str, Pod, list[str]]]:
        """Each profile that a step is on: its name, its pod, the steps."""
        found = []
        for name, profile in load_profiles().items():
            steps = [step for step, pod in self.placed.items() if pod == profile.pod]
            if profile.pod and steps:
                found.append((name, profile.pod, steps))
        return found

    def secret(self, name: str) -> dict[str, str] | None:
        """Return a secret's values of text by key; None if there is no such secret."""
        found = self.kubernetes.get(f"{self.place}/secrets/{name}")
        if found is None:
            return None
        data = found.get("data") or {}
        return {key: base64.b64decode(value or "").decode(errors="replace") for key, value in data.items()}

    def kubeflow(self, path: str, **query: str) -> Any:
        """Return the JSON of Kubeflow Pipelines at `path`.

        Raises:
            RefusedError: the server refused.
            GraftlineError: no endpoint is known, or it does not answer.
        """
        from kfp_server_api.exceptions import ApiException

        if not self.endpoint:
            raise GraftlineError("no endpoint is known: give --endpoint or $GRAFTLINE_KFP")
        with connect(self.endpoint) as client:
            try:
                answer = client.call_api(
                    path,
                    "GET",
                    query_params=list(query.items()),
                    header_params={"Accept": "application/json"},
                    auth_settings=["Bearer"],
                    response_type="object",
                    _return_http_data_only=True,
                    _request_timeout=TIMEOUT,
                )
            except ApiException as error:
                raise RefusedError(error.status or 0, reason_of(error)) from None
            except (HTTPError, OSError, ValueError) as error:
                raise GraftlineError(f"{self.endpoint} does not answer ({brief(error)})") from None
        if not isinstance(answer, dict):
            raise GraftlineError(f"{self.endpoint}: an answer that is not Kubeflow's; check the address and ${TOKEN}")
        return answer


Look = Callable[[Cluster], Iterable[Point]]


@dataclass(frozen=True)
class Check:
    """One look at a cluster; most say one point."""

    name: str
    """Of the point that is said where the look fails."""
    look: Look
    essential: bool = False
    """Whether the cluster counts as wrong if the look fails."""


def examine(cluster: Cluster, checks: Iterable[Check]) -> Iterator[Point]:
    """Yield the points of all checks; one that fails is said to be unknown, with the reason."""
    for check in checks:
        try:
            yield from check.look(cluster)
        except InputError as error:
            if error.where == "cluster":
                raise
            yield Point(check.name, "unknown", str(error), essential=check.essential)
        except RefusedError as error:
            do = "ask who runs the cluster, or give yourself the right to look" if error.forbids else ""
            yield Point(check.name, "unknown", f"could not be looked at: {error}", "", do, check.essential)
        except GraftlineError as error:
            yield Point(check.name, "unknown", str(error), essential=check.essential)
