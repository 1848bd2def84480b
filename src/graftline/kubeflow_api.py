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
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from urllib3.exceptions import HTTPError

from graftline.errors import BackendError, InputError

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
            "--endpoint",
            repr(endpoint),
            expected="http://... or https://...",
            fix=f"set $GRAFTLINE_KFP to the address of Kubeflow Pipelines{otherwise}",
        )


@cache
def share_configuration() -> None:
    """Have all objects that the client reads share one Configuration.

    Each makes its own otherwise, and a run is some three hundred of them: it counts the CPUs and sets loggers' levels,
    for which logging goes through all loggers that there are. That is most of the time that reading a run takes.
    """
    from kfp_server_api import Configuration, models

    shared = Configuration()
    for model in vars(models).values():
        if isinstance(model, type):
            vars(sys.modules[model.__module__])["Configuration"] = lambda: shared


@contextmanager
def connect(endpoint: str) -> Iterator[Any]:
    """Give a client of the API at `endpoint`; its calls are never repeated behind our back.

    What $GRAFTLINE_KFP_TOKEN holds is sent as a bearer token.

    Args:
        endpoint: such as http://localhost:8888 or https://kubeflow.example.com/pipeline.
    """
    import kfp_server_api

    share_configuration()
    configuration = kfp_server_api.Configuration(host=endpoint.rstrip("/"))
    configuration.retries = False
    if token := os.environ.get(TOKEN, ""):
        configuration.api_key["authorization"] = token
        configuration.api_key_prefix["authorization"] = "Bearer"
    with kfp_server_api.ApiClient(configuration) as client:
        yield client


class KubeflowApi:
    """One experiment of one Kubeflow Pipelines. Every call raises BackendError, or DeniedError."""

    def __init__(self, client: Any, *, namespace: str = "", service_account: str = "") -> None:
        """Use an API.

        Args:
            client: a `kfp_server_api.ApiClient`; see `connect`.
            namespace: of experiment, pipelines and runs in a multi-user installation; empty for a standalone one.
            service_account: of the runs.
        """
        self._client, self._service_account, self._experiment_id = client, service_account, ""
        self._place = {"namespace": namespace} if namespace else {}

    def check_version(self) -> None:
        """Raise InputError if the server is older than LEAST_VERSION; one that does not say so is taken as it is."""
        told = str(self._ask("GET", "/healthz").get("tag_name") or "")
        found = re.match(r"v?(\d+)\.(\d+)", told)
        if found and (int(found[1]), int(found[2])) < LEAST_VERSION:
            raise InputError(
                "Kubeflow Pipelines",
                f"version {told}",
                expected=".".join(map(str, LEAST_VERSION)) + " or later",
                fix="upgrade it (docs/cluster.md): an older one drops secrets, labels and machines without a word",
            )

    def find_experiment(self) -> str:
        """Return the experiment's id; "" if it is not there."""
        if not self._experiment_id:
            chosen = _filter(key="display_name", operation="EQUALS", string_value=EXPERIMENT)
            for found in self._pages("/experiments", "Experiments", filter=chosen, **self._place):
                self._experiment_id = _id(found, "experiment_id")
        return self._experiment_id

    def ensure_experiment(self) -> str:
        """Return the experiment's id; it is made if it is missing."""
        if not self.find_experiment():
            body = {"display_name": EXPERIMENT, "description": "Runs of graftline.", **self._place}
            try:
                made = self._ask("POST", "/experiments", "V2beta1Experiment", body=body)
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
        return {  # one that was uploaded has another name than one that git applied, and the same display name
            str(name): Version(pipeline_id, _id(version, "pipeline_version_id"))
            for version in self._pages(f"/pipelines/{pipeline_id}/versions", "PipelineVersions")
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
        pipeline_id = self._find_pipeline(pipeline)
        if not pipeline_id:
            body = {"name": pipeline, "display_name": pipeline, **self._place}
            pipeline_id = _id(self._ask("POST", "/pipelines", "V2beta1Pipeline", body=body), "pipeline_id")
        parts = [spec["pipelineSpec"], spec.get("platformSpec")]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{version}.yaml")
            path.write_text(
                "\n---\n".join(json.dumps(part) for part in parts if part), encoding="utf-8"
            )  # JSON is YAML
            made = self._ask(
                "POST",
                "/pipelines/upload_version",
                "V2beta1PipelineVersion",
                file=path,
                name=version,
                display_name=version,
                pipelineid=pipeline_id,
            )
        return Version(pipeline_id, _id(made, "pipeline_version_id"))

    def find_runs(self, name: str, key: str) -> Iterator[Any]:
        """Yield the runs of that name and run key."""
        for run in self._runs(key="display_name", operation="EQUALS", string_value=name):
            if parameters(run).get("run_key") == key:
                _id(run, "run_id")
                yield run

    def runs_in(self, *states: str) -> Iterator[Any]:
        """Yield the experiment's runs in one of the states, such as RUNNING."""
        return self._runs(key="state", operation="IN", string_values={"values": states})

    def get_run(self, run_id: str) -> Any:
        return self._ask("GET", f"/runs/{run_id}", "V2beta1Run")

    def read_log(self, run_id: str, node: str) -> str:
        """Return what a pod of a run printed, also when pod and workflow are gone."""
        self._send("GET", f"/apis/v1alpha1/runs/{run_id}/nodes/{node}/log")
        return str(self._client.last_response.data)

    def create_run(self, name: str, version: Version, given: Mapping[str, str], *, description: str = "") -> str:
        """Start a run with the parameters `given`; return its id."""
        body = {
            "display_name": name,
            "description": description,
            "experiment_id": self.ensure_experiment(),
            "service_account": self._service_account,
            "runtime_config": {"parameters": dict(given)},
            "pipeline_version_reference": {"pipeline_id": version.pipeline_id, "pipeline_version_id": version.id},
        }
        return _id(self._ask("POST", "/runs", "V2beta1Run", body=body), "run_id")

    def _find_pipeline(self, name: str) -> str:
        try:
            found = self._ask("GET", f"/pipelines/names/{name}", "V2beta1Pipeline", **self._place)
        except NotFoundError:
            return ""
        return _id(found, "pipeline_id")

    def _runs(self, **predicate: Any) -> Iterator[Any]:
        if experiment := self.find_experiment():
            chosen = _filter(**predicate)
            yield from self._pages("/runs", "Runs", experiment_id=experiment, filter=chosen, **self._place)

    def _pages(self, path: str, kind: str, **query: str) -> Iterator[Any]:
        """Yield what a list holds, such as Runs, page by page."""
        token, name = "", re.sub("(?<=[a-z])(?=[A-Z])", "_", kind).lower()
        while True:
            page = self._ask("GET", path, f"V2beta1List{kind}Response", page_token=token, page_size="100", **query)
            yield from getattr(page, name) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def _ask(self, method: str, path: str, kind: str = "object", **given: Any) -> Any:
        """Make a request whose answer is a JSON object; return it as the client's model of that name.

        The client takes anything for an object without a field: a login page, status 200, for an empty Kubeflow.
        """
        answer = self._send(method, f"/apis/v2beta1{path}", kind, **given)
        response = self._client.last_response
        try:
            if isinstance(json.loads(response.data), dict):
                return answer
        except ValueError:
            pass
        found = response.getheader("content-type") or "no content type"
        what = f"{found}, not a JSON object; check the address and ${TOKEN}"
        raise BackendError(f"an answer that is not Kubeflow's: {what}")

    def _send(
        self,
        method: str,
        path: str,
        kind: str | None = None,
        *,
        body: Any = None,
        file: Path | None = None,
        **query: str,
    ) -> Any:
        """Make a request; turn what goes wrong into our errors."""
        from kfp_server_api.exceptions import ApiException, OpenApiException

        content = "multipart/form-data" if file else "application/json"
        try:
            return self._client.call_api(
                path,
                method,
                query_params=list(query.items()),
                body=body,
                response_type=kind,
                header_params={"Accept": "application/json", "Content-Type": content},
                auth_settings=["Bearer"],
                files={"uploadfile": str(file)} if file else None,
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )
        except ApiException as error:
            text = f"{error.status} {_message(error)}"
            if error.status in (401, 403):
                raise DeniedError("Kubeflow Pipelines", text, fix=_TOKEN_FIX) from None
            if error.status == 404:
                raise NotFoundError(text) from None
            raise (RefusedError if error.status in _CERTAIN else BackendError)(text) from None
        except HTTPError as error:
            raise BackendError(f"Kubeflow Pipelines does not answer: {_short(error)}") from None
        except (OpenApiException, ValueError) as error:
            raise BackendError(f"an answer that is not Kubeflow's: {_short(error)}") from None


def parameters(run: Any) -> dict[str, Any]:
    """Return what a run was given; a run of somebody else may have been given nothing."""
    return (run.runtime_config.parameters if run.runtime_config else None) or {}


def _filter(**predicate: Any) -> str:
    return json.dumps({"predicates": [predicate]})


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
