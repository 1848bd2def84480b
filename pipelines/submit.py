"""Start a run on Kubeflow Pipelines and follow it to its end.

The version is uploaded under its own name if the server lacks it, and the run names it: without a version Kubeflow
takes the newest created. A run is found again by its name, which ends in the run key, so the same run is not
started twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from graftline.errors import EXIT_REFUSED, GraftlineError
from graftline.pipelines.compile import CompiledPipeline
from graftline.pipelines.kubeflow_api import KubeflowApi, NotFoundError
from graftline.pipelines.reconcile.reconcile import BackendError
from graftline.pipelines.runkey import Run
from graftline.profiles import STEPS

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
PATIENCE = 10
"""How many looks in a row may fail before following a run is given up; the run itself goes on."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    state: str
    """Such as PENDING, RUNNING, SUCCEEDED, FAILED."""
    steps: dict[str, str] = field(default_factory=dict)
    """The state of each step that the server tells of."""
    message: str = ""
    """Why it failed, if it did and the server says."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Submitted:
    """A run on the server."""

    id: str
    link: str
    before: str
    """The state of a run of this key that was there already; "" if this one is new."""


class Submission:
    """One server's experiment, for runs that people start."""

    def __init__(self, api: KubeflowApi, endpoint: str) -> None:
        """Use an API; links are made of its `endpoint`."""
        self._api, self._endpoint = api, endpoint.rstrip("/")

    def submit(self, pipeline: CompiledPipeline, run: Run) -> Submitted:
        """Start `run`, unless one of its key is there already.

        Raises:
            BackendError: the server refused, or its answer was lost; the same call again finds what was made.
        """
        for found in self._api.find_runs(run.name, run.key):
            return Submitted(found.run_id, self._link(found.run_id), found.state or "PENDING")
        version = self._api.versions(pipeline.pipeline).get(pipeline.version)
        if version is None:
            version = self._api.upload(pipeline.pipeline, pipeline.version, pipeline.spec)
        made = self._api.create_run(run.name, version, run.parameters)
        return Submitted(made, self._link(made), before="")

    def progress(self, run_id: str) -> Progress:
        """Return how far a run is. Raises BackendError."""
        run = self._api.get_run(run_id)
        details = (run.run_details.task_details if run.run_details else None) or []
        seen = {task.display_name: task for task in details}
        steps = {step: seen[step].state or "PENDING" for step in STEPS if step in seen}
        errors = [task.error for task in details if task.error] + ([run.error] if run.error else [])
        message = next((error.message for error in errors if error.message), "")
        return Progress(run.state or "PENDING", steps, message)

    def follow(self, run_id: str, seconds: float) -> Iterator[Progress]:
        """Yield how far the run is every few seconds until it ends; a look that fails is tried again.

        Raises:
            BackendError: the server did not answer several times in a row.
        """
        failures = 0
        while True:
            try:
                progress = self.progress(run_id)
            except NotFoundError:
                raise
            except BackendError:
                failures += 1
                if failures == PATIENCE:
                    raise
            else:
                failures = 0
                yield progress
                if progress.ended:
                    return
            time.sleep(seconds)

    def _link(self, run_id: str) -> str:
        return f"{self._endpoint}/#/runs/details/{run_id}"


def exit_code(progress: Progress) -> int:
    """Return how the command ends: 0 done, 3 the gate refused, 1 anything else.

    The API has no exit codes; Argo Workflows writes a container's into the message: `Error (exit code 3)`.
    """
    if progress.state == "SUCCEEDED":
        return 0
    if progress.steps.get("publish") == "FAILED" and f"exit code {EXIT_REFUSED}" in progress.message:
        return EXIT_REFUSED
    return GraftlineError.exit_code
