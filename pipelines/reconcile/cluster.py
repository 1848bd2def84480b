"""What the Kubernetes API knows and Kubeflow's does not: which runs have a workflow, and which left TrainJobs.

A run whose workflow was deleted is RUNNING in Kubeflow's API for ever; ending or archiving it changes nothing. Such a
ghost does no work. A run's workflow is made before the run is, and labelled with its id, so the Kubernetes API tells.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from graftline import runs
from graftline.errors import GraftlineError, InputError
from graftline.learning.remote import sweep_checkpoints
from graftline.pipelines.pods import RUN_LABEL
from graftline.pipelines.reconcile.reconcile import BackendError
from graftline.pipelines.trainjob.cluster import Cluster, connect
from graftline.pipelines.trainjob.handover import sweep
from graftline.store import Store

WORKFLOW_LABEL = "pipeline/runid"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
"""Without the objects' content: a workflow may have a megabyte."""
_TIMEOUT = (5.0, 30.0)
_AT_ONCE = 50
"""Ids in one question: an address may not be much longer."""
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class RunsOfCluster:
    """What one namespace holds of runs: in the cluster that this is a pod of, or that of kubectl's context."""

    def __init__(self, namespace: str) -> None:
        """Connect; without a cluster, say so once and know nothing."""
        self._namespace, self._api = namespace, None
        try:
            self._api = connect()
        except InputError as error:
            self._give_up(str(error).splitlines()[0])

    def ghosts(self, asked: Collection[str]) -> set[str]:
        """Return those of some unfinished runs, by id, that have no workflow; none where it cannot be told.

        A cluster of kubectl's context that knows none of the runs may be another one than Kubeflow's: it tells nothing.

        Raises:
            BackendError: the API server did not answer.
        """
        listed, there = sorted(asked), set[str]()
        for first in range(0, len(listed), _AT_ONCE):
            there |= self._with_workflow(listed[first : first + _AT_ONCE])
        return set(asked) - there if self._api and (there or _ACCOUNT.exists()) else set()

    def clean(self, store: Store, now: datetime) -> list[str]:
        """Delete the TrainJobs of runs that have ended, and what was handed over to them; return the runs. Checkpoints
        go once no run of the same work has taken them up for long (`GIVEN_UP`).

        Their last step does so itself, unless it could not run. One that is at work again has no end, or is open.
        What cannot be deleted now is said, and left to the next time.
        """
        try:
            sweep_checkpoints(store, now)
            return self._clean(store)
        except GraftlineError as error:
            print(f"graftline: what runs have left is not all gone: {error}", file=sys.stderr, flush=True)
            return []

    def _clean(self, store: Store) -> list[str]:
        jobs = defaultdict[str, list[str]](list)
        cluster = Cluster(self._api, self._namespace) if self._api else None
        try:
            for job in cluster.find(RUN_LABEL) if cluster else ():
                jobs[job["metadata"]["labels"][RUN_LABEL]].append(job["metadata"]["name"])
        except GraftlineError as error:
            print(f"graftline: TrainJobs of runs that have ended: {error}", file=sys.stderr, flush=True)
        left = {key.split("/")[1] for key in store.list("handover/")}
        at_work = {begun.run for begun in runs.open_runs(store)}
        over = [run for run in sorted({*jobs, *left} - at_work) if runs.ends(store, run)]
        for run in over:
            for name in jobs[run]:
                assert cluster is not None
                cluster.delete(name)
            sweep(store, run)
        return over

    def _with_workflow(self, asked: list[str]) -> set[str]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        if self._api is None:
            return set()
        try:
            answer: Any = self._api.call_api(
                f"/apis/argoproj.io/v1alpha1/namespaces/{self._namespace}/workflows", "GET",
                query_params=[("labelSelector", f"{WORKFLOW_LABEL} in ({','.join(asked)})")],
                header_params={"Accept": _METADATA}, auth_settings=["BearerToken"], response_type="object",
                _request_timeout=_TIMEOUT, _return_http_data_only=True,
            )  # fmt: skip
        except ApiException as error:
            if error.status not in (401, 403, 404):
                raise BackendError(f"the Kubernetes API: {error.status} {error.reason}") from None
            self._give_up(
                f"namespace {self._namespace}: workflows cannot be listed: {error.status} {error.reason}"
            )
            return set()
        except (HTTPError, OSError, ValueError) as error:
            raise BackendError(f"the Kubernetes API does not answer: {type(error).__name__}") from None
        return {str(item["metadata"]["labels"][WORKFLOW_LABEL]) for item in answer["items"]}

    def _give_up(self, why: str) -> None:
        self._api = None
        print(f"graftline: {why}: a run counts as what Kubeflow's API calls it", file=sys.stderr, flush=True)
