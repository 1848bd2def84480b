"""Start a run on Kubeflow Pipelines and follow it to its end.

The version is uploaded under its own name if the server lacks it, and the run names it: without a version Kubeflow
takes the newest created. A run is found again by its name, which ends in the run key, so the same run is not
started twice.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftline.errors import EXIT_REFUSED, GraftlineError
from graftline.pipelines.compile import CompiledPipeline
from graftline.pipelines.reconcile.kubeflow import EXPERIMENT, NotFoundError, call, equals, pages
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

    def __init__(self, api_client: Any, endpoint: str, experiment: str = EXPERIMENT) -> None:
        """Use the API of `endpoint` through a `kfp_server_api.ApiClient` (reconcile.kubeflow.connect)."""
        import kfp_server_api

        self._pipelines = kfp_server_api.PipelineServiceApi(api_client)
        self._uploads = kfp_server_api.PipelineUploadServiceApi(api_client)
        self._runs = kfp_server_api.RunServiceApi(api_client)
        self._experiments = kfp_server_api.ExperimentServiceApi(api_client)
        self._endpoint, self._name = endpoint.rstrip("/"), experiment

    def submit(self, pipeline: CompiledPipeline, run: Run, service_account: str) -> Submitted:
        """Start `run`, unless one of its key is there already.

        Raises:
            BackendError: the server refused, or its answer was lost; the same call again finds what was made.
        """
        experiment = self._ensure_experiment()
        if found := self._find_run(experiment, run):
            return Submitted(found.run_id, self._link(found.run_id), found.state or "PENDING")
        pipeline_id, version_id = self._ensure_version(pipeline)
        made = self._create(experiment, pipeline_id, version_id, run, service_account)
        return Submitted(made, self._link(made), before="")

    def progress(self, run_id: str) -> Progress:
        """Return how far a run is. Raises BackendError."""
        run = call(self._runs.run_service_get_run, run_id)
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

    def _ensure_experiment(self) -> str:
        import kfp_server_api

        listed = self._experiments.experiment_service_list_experiments
        for experiment in pages(listed, "experiments", filter=equals("display_name", self._name)):
            return str(experiment.experiment_id)
        body = kfp_server_api.V2beta1Experiment(display_name=self._name)
        return str(call(self._experiments.experiment_service_create_experiment, body).experiment_id)

    def _ensure_version(self, pipeline: CompiledPipeline) -> tuple[str, str]:
        """Return the ids of the pipeline and its version, which are made if they are missing."""
        import kfp_server_api

        try:
            pipeline_id = call(
                self._pipelines.pipeline_service_get_pipeline_by_name, pipeline.pipeline
            ).pipeline_id
        except NotFoundError:
            body = kfp_server_api.V2beta1Pipeline(name=pipeline.pipeline, display_name=pipeline.pipeline)
            pipeline_id = call(self._pipelines.pipeline_service_create_pipeline, body).pipeline_id
        for version in pages(self._versions_of(pipeline_id), "pipeline_versions"):
            if (version.name or version.display_name) == pipeline.version:
                return pipeline_id, version.pipeline_version_id
        return pipeline_id, self._upload(pipeline, pipeline_id)

    def _versions_of(self, pipeline_id: str) -> Callable[..., Any]:
        def versions(**arguments: Any) -> Any:
            return self._pipelines.pipeline_service_list_pipeline_versions(pipeline_id, **arguments)

        return versions

    def _upload(self, pipeline: CompiledPipeline, pipeline_id: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{pipeline.version}.yaml")
            parts = (pipeline.spec["pipelineSpec"], pipeline.spec["platformSpec"])
            path.write_text("\n---\n".join(json.dumps(part) for part in parts))  # JSON is YAML
            made = call(
                self._uploads.upload_pipeline_version, str(path),
                name=pipeline.version, display_name=pipeline.version, pipelineid=pipeline_id,
            )  # fmt: skip
        return str(made.pipeline_version_id)

    def _find_run(self, experiment: str, run: Run) -> Any:
        """Return the server's run of this key, or None."""
        listed = self._runs.run_service_list_runs
        arguments = {"experiment_id": experiment, "filter": equals("display_name", run.name)}
        for found in pages(listed, "runs", **arguments):
            given = (found.runtime_config.parameters if found.runtime_config else None) or {}
            if given.get("run_key") == run.key:
                return found
        return None

    def _create(
        self, experiment: str, pipeline_id: str, version_id: str, run: Run, service_account: str
    ) -> str:
        import kfp_server_api

        body = kfp_server_api.V2beta1Run(
            display_name=run.name, experiment_id=experiment, service_account=service_account,
            pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
                pipeline_id=pipeline_id, pipeline_version_id=version_id
            ),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=run.parameters),
        )  # fmt: skip
        return str(call(self._runs.run_service_create_run, body).run_id)

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
