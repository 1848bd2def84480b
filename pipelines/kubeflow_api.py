"""Kubeflow Pipelines through its published client (kfp_server_api): what submit and reconcile ask of it.

Everything that is made here lies in one experiment. Versions are named by content and uploaded where the server lacks
them; a run always names its version: without one, Kubeflow takes the newest created.

A multi-user installation refuses a call that names neither a namespace nor something in one; a standalone one knows no
namespaces (ReplaceNamespace and canAccessExperiment in kubeflow/pipelines, backend/src/apiserver).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.errors import InputError
from graftline.pipelines.reconcile.reconcile import BackendError

EXPERIMENT = "graftline"
TOKEN = "GRAFTLINE_KFP_TOKEN"  # noqa: S105  (the name of a variable)
TIMEOUT_SECONDS = 30
LEAST_VERSION = (2, 17)
"""Of Kubeflow Pipelines. An older one drops a pipeline's platform spec without a word: no secret, no label, no pool."""
_CERTAIN = (400, 404, 429)
"""Answers after which nothing was created. A 409 or a 5xx may come after the deed."""
_TOKEN_FIX = (
    f"set ${TOKEN} to a fresh token of an account that may: "
    "kubectl -n graftline create token graftline-reconcile --audience pipelines.kubeflow.org"
)
_LONGEST = 600
"""Characters of a message that are shown: its beginning and its end, where Kubeflow puts the innermost cause."""


class RefusedError(BackendError):
    """The server refused a call and did nothing."""


class NotFoundError(RefusedError):
    """What the call was about is not there."""


class DeniedError(InputError):
    """The server does not know the caller, or does not let him (exit code 2)."""


@dataclass(frozen=True)
class Version:
    """A version on the server."""

    pipeline_id: str
    id: str


def check_endpoint(endpoint: str, *, otherwise: str = "") -> None:
    """Raise InputError unless `endpoint` is an address; `otherwise` says what else one may do than set it."""
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(
            "--endpoint", repr(endpoint), expected="http://... or https://...",
            fix=f"set $GRAFTLINE_KFP to the address of Kubeflow Pipelines{otherwise}",
        )  # fmt: skip


@contextmanager
def connect(endpoint: str) -> Iterator[Any]:
    """Give a client of the API at `endpoint`; its calls are never repeated behind our back.

    What $GRAFTLINE_KFP_TOKEN holds is sent as a bearer token.

    Args:
        endpoint: such as http://localhost:8888 or https://kubeflow.example.com/pipeline.
    """
    import kfp_server_api

    configuration = kfp_server_api.Configuration(host=endpoint.rstrip("/"))
    configuration.retries = False
    if token := os.environ.get(TOKEN, ""):
        configuration.api_key["authorization"] = token
        configuration.api_key_prefix["authorization"] = "Bearer"
    with kfp_server_api.ApiClient(configuration) as client:
        yield client


class KubeflowApi:
    """One experiment of one Kubeflow Pipelines. Every call raises BackendError, or DeniedError."""

    def __init__(
        self, client: Any, *, namespace: str = "", service_account: str = "", experiment: str = EXPERIMENT
    ) -> None:
        """Use an API.

        Args:
            client: a `kfp_server_api.ApiClient`; see `connect`.
            namespace: of experiment, pipelines and runs in a multi-user installation; empty for a standalone one.
            service_account: of the runs.
            experiment: the name of the experiment that holds all runs of this repository.
        """
        import kfp_server_api

        self._client = client
        self._pipelines = kfp_server_api.PipelineServiceApi(client)
        self._uploads = kfp_server_api.PipelineUploadServiceApi(client)
        self._runs = kfp_server_api.RunServiceApi(client)
        self._experiments = kfp_server_api.ExperimentServiceApi(client)
        self._namespace, self._service_account, self._experiment = namespace, service_account, experiment
        self._experiment_id = ""

    def check_version(self) -> None:
        """Raise InputError if the server is older than LEAST_VERSION; one that does not say so is taken as it is."""
        health = self._get("/apis/v2beta1/healthz")
        self._check_answer()
        told = str(json.loads(health).get("tag_name") or "")
        found = re.match(r"v?(\d+)\.(\d+)", told)
        if found and (int(found[1]), int(found[2])) < LEAST_VERSION:
            raise InputError(
                "Kubeflow Pipelines", f"version {told}", expected=".".join(map(str, LEAST_VERSION)) + " or later",
                fix="upgrade it (docs/cluster.md): an older one drops secrets, labels and machines without a word",
            )  # fmt: skip

    def read_log(self, run_id: str, node: str) -> str:
        """Return what a pod of a run printed, also when pod and workflow are gone."""
        return self._get(f"/apis/v1alpha1/runs/{run_id}/nodes/{node}/log")

    def find_experiment(self) -> str:
        """Return the experiment's id; "" if it is not there."""
        if not self._experiment_id:
            listed = self._experiments.experiment_service_list_experiments
            predicate = {
                "key": "display_name", "operation": "EQUALS", "string_value": self._experiment,
            }  # fmt: skip
            for found in self._pages(
                listed, "experiments", filter=json.dumps({"predicates": [predicate]}), **self._place()
            ):
                self._experiment_id = _id(found, "experiment_id")
        return self._experiment_id

    def ensure_experiment(self) -> str:
        """Return the experiment's id; it is made if it is missing."""
        import kfp_server_api

        if not self.find_experiment():
            body = kfp_server_api.V2beta1Experiment(
                display_name=self._experiment, description="Runs of graftline.", **self._place()
            )
            try:
                made = self._call(self._experiments.experiment_service_create_experiment, body)
                self._experiment_id = _id(made, "experiment_id")
            except BackendError:
                if not self.find_experiment():  # somebody else was quicker, or the answer was lost
                    raise
        return self._experiment_id

    def versions(self, pipeline: str) -> dict[str, Version]:
        """Return the versions of a pipeline by name; none if the pipeline is not there."""
        pipeline_id = self._find_pipeline(pipeline)
        if not pipeline_id:
            return {}

        def listed(**arguments: Any) -> Any:
            return self._pipelines.pipeline_service_list_pipeline_versions(pipeline_id, **arguments)

        return {  # one that was uploaded has another name than one that git applied, and the same display name
            str(name): Version(pipeline_id, _id(version, "pipeline_version_id"))
            for version in self._pages(listed, "pipeline_versions")
            for name in (version.name, version.display_name)
            if name
        }

    def upload(self, pipeline: str, version: str, spec: Mapping[str, Any]) -> Version:
        """Upload a version, and make the pipeline that it belongs to where that is missing.

        Args:
            pipeline: the pipeline's name.
            version: the version's name.
            spec: `pipelineSpec`, perhaps `platformSpec`.
        """
        import kfp_server_api

        pipeline_id = self._find_pipeline(pipeline)
        if not pipeline_id:
            body = kfp_server_api.V2beta1Pipeline(name=pipeline, display_name=pipeline, **self._place())
            pipeline_id = _id(
                self._call(self._pipelines.pipeline_service_create_pipeline, body), "pipeline_id"
            )
        parts = [spec["pipelineSpec"], spec.get("platformSpec")]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{version}.yaml")
            path.write_text("\n---\n".join(json.dumps(part) for part in parts if part))  # JSON is YAML
            made = self._call(
                self._uploads.upload_pipeline_version, str(path),
                name=version, display_name=version, pipelineid=pipeline_id,
            )  # fmt: skip
        return Version(pipeline_id, _id(made, "pipeline_version_id"))

    def find_runs(self, name: str, key: str) -> Iterator[Any]:
        """Yield the runs of that name and run key."""
        for run in self._list_runs(key="display_name", operation="EQUALS", string_value=name):
            if parameters(run).get("run_key") == key:
                _id(run, "run_id")
                yield run

    def runs_in(self, *states: str) -> Iterator[Any]:
        """Yield the experiment's runs in one of the states, such as RUNNING."""
        return self._list_runs(key="state", operation="IN", string_values={"values": states})

    def get_run(self, run_id: str) -> Any:
        return self._call(self._runs.run_service_get_run, run_id)

    def create_run(
        self, name: str, version: Version, given: Mapping[str, str], *, description: str = ""
    ) -> str:
        """Start a run with the parameters `given`; return its id."""
        import kfp_server_api

        body = kfp_server_api.V2beta1Run(
            display_name=name, description=description or None, experiment_id=self.ensure_experiment(),
            service_account=self._service_account or None,
            pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
                pipeline_id=version.pipeline_id, pipeline_version_id=version.id
            ),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(given)),
        )  # fmt: skip
        return _id(self._call(self._runs.run_service_create_run, body), "run_id")

    def _place(self) -> dict[str, str]:
        return {"namespace": self._namespace} if self._namespace else {}

    def _find_pipeline(self, name: str) -> str:
        by_name = self._pipelines.pipeline_service_get_pipeline_by_name
        try:
            return _id(self._call(by_name, name, **self._place()), "pipeline_id")
        except NotFoundError:
            return ""

    def _list_runs(self, **predicate: Any) -> Iterator[Any]:
        if experiment := self.find_experiment():
            listed, chosen = self._runs.run_service_list_runs, json.dumps({"predicates": [predicate]})
            yield from self._pages(listed, "runs", experiment_id=experiment, filter=chosen, **self._place())

    def _pages(self, request: Callable[..., Any], name: str, **arguments: Any) -> Iterator[Any]:
        """Yield what a list call returns, page by page."""
        token = ""
        while True:
            page = self._call(request, page_token=token, page_size=100, **arguments)
            yield from getattr(page, name) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def _get(self, path: str) -> str:
        """Return what the published client has no method for, as text."""
        call, headers = self._client.call_api, {"Accept": "*/*"}
        self._ask(call, path, "GET", header_params=headers, auth_settings=["Bearer"])
        return str(self._client.last_response.data)

    def _call(self, request: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make a request whose answer is a JSON object."""
        answer = self._ask(request, *arguments, **named)
        self._check_answer()
        return answer

    def _ask(self, request: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make a request; turn what goes wrong into our errors."""
        from kfp_server_api.exceptions import ApiException, OpenApiException
        from urllib3.exceptions import HTTPError

        try:
            return request(*arguments, _request_timeout=TIMEOUT_SECONDS, **named)
        except ApiException as error:
            text = f"{error.status} {_message(error)}"
            if error.status in (401, 403):
                raise DeniedError("Kubeflow Pipelines", text, fix=_TOKEN_FIX) from None
            if error.status == 404:
                raise NotFoundError(text) from None
            raise (RefusedError if error.status in _CERTAIN else BackendError)(text) from None
        except HTTPError as error:
            raise BackendError(f"no answer: {_short(error)}") from None
        except (OpenApiException, ValueError) as error:
            raise BackendError(f"an answer that is not Kubeflow's: {_short(error)}") from None

    def _check_answer(self) -> None:
        """Raise BackendError unless the last answer was a JSON object.

        The client takes anything for an object without a field: a login page, status 200, for an empty Kubeflow.
        """
        response = self._client.last_response
        try:
            if isinstance(json.loads(response.data), dict):
                return
        except ValueError:
            pass
        kind = response.getheader("content-type") or "no content type"
        raise BackendError(
            f"an answer that is not Kubeflow's: {kind}, not a JSON object; check the address and ${TOKEN}"
        )


def parameters(run: Any) -> dict[str, Any]:
    """Return what a run was given; a run of somebody else may have been given nothing."""
    return (run.runtime_config.parameters if run.runtime_config else None) or {}


def _id(found: Any, field: str) -> str:
    """Return the id of what the server has made or found."""
    value = getattr(found, field)
    if not value:
        raise BackendError(f"an answer that is not Kubeflow's: {field} is missing")
    return str(value)


def _message(error: Any) -> str:
    """Return what the server says, in one line."""
    try:
        text = json.loads(error.body)["message"]
    except (ValueError, TypeError, KeyError):
        text = error.reason or "no message"
    return _short(text)


def _short(text: object) -> str:
    """Return it in one line, without its middle if it is long."""
    line, half = " ".join(str(text).split()), _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}"
