"""Which runs have a workflow: what Kubeflow's API says of a run is not enough.

A run whose workflow was deleted is RUNNING in the API for ever; ending or archiving it changes nothing. Such a ghost
does no work. The Kubernetes API knows: a run's workflow is made before the run is, and labelled with its id.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection
from typing import Any

from graftline.errors import GraftlineError, InputError

LABEL = "pipeline/runid"
# Without the objects' content: a workflow may have a megabyte.
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_TIMEOUT = (5.0, 30.0)
_AT_ONCE = 50
"""Ids in one question: an address may not be much longer."""


class Workflows:
    """The workflows of one namespace."""

    def __init__(self, api: Any, namespace: str, *, here: bool, say: Callable[[str], None]) -> None:
        """Use a `kubernetes.client.ApiClient`; see `find_workflows`."""
        self._api, self._namespace, self._here, self._say = api, namespace, here, say

    def ghosts(self, runs: Collection[str]) -> set[str]:
        """Return those of `runs`, ids of runs that Kubeflow calls unfinished, that have no workflow.

        None where it cannot be told: no right to ask, or a cluster of kubectl's context that knows none of the runs,
        which then may be another one than Kubeflow's.

        Raises:
            GraftlineError: the API server did not answer.
        """
        if self._api is None or not runs:
            return set()
        listed = sorted(runs)
        there = set[str]()
        for first in range(0, len(listed), _AT_ONCE):
            found = self._ask(listed[first : first + _AT_ONCE])
            if found is None:
                return set()
            there |= found
        return set(runs) - there if self._here or there else set()

    def _ask(self, runs: list[str]) -> set[str] | None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer, _, _ = self._api.call_api(
                f"/apis/argoproj.io/v1alpha1/namespaces/{self._namespace}/workflows", "GET",
                query_params=[("labelSelector", f"{LABEL} in ({','.join(runs)})")],
                header_params={"Accept": _METADATA}, auth_settings=["BearerToken"], response_type="object",
                _request_timeout=_TIMEOUT,
            )  # fmt: skip
        except ApiException as error:
            if error.status in (401, 403, 404):
                self._say(f"the Kubernetes API shows no workflows here ({error.status} {error.reason})")
                self._api = None
                return None
            raise GraftlineError(f"the Kubernetes API: {error.status} {error.reason}") from None
        except (HTTPError, OSError, json.JSONDecodeError) as error:
            raise GraftlineError(f"the Kubernetes API does not answer: {type(error).__name__}") from None
        return {str(item["metadata"]["labels"][LABEL]) for item in answer["items"]}


def find_workflows(namespace: str) -> Workflows:
    """Return the workflows of the cluster that this runs in, or of KUBECONFIG's; it says so once where there is none."""
    from kubernetes.config.incluster_config import SERVICE_TOKEN_FILENAME

    from graftline.pipelines.trainjob.cluster import connect

    def say(why: str) -> None:
        print(f"graftline: {why}: a run counts as what Kubeflow's API calls it", file=sys.stderr, flush=True)

    from pathlib import Path

    try:
        api = connect()
    except InputError as error:
        say(str(error).splitlines()[0])
        api = None
    return Workflows(api, namespace, here=Path(SERVICE_TOKEN_FILENAME).exists(), say=say)
