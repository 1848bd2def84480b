"""The Kubernetes API, asked for plain JSON; each call once, however long its answer takes to come."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client import ApiClient, ApiException
from kubernetes.config import incluster_config
from urllib3.exceptions import HTTPError

from graftline.errors import GraftlineError, InputError, brief

Timeout = tuple[float, float]
"""Seconds to connect, and between two packets."""
TIMEOUT: Timeout = (5.0, 30.0)
QUICK: Timeout = (3.0, 10.0)
"""Of what is only looked at: after a cancel a run's last step has little time."""


class RefusedError(GraftlineError):
    """The API refused a request."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"{status} {message}")

    @property
    def forbids(self) -> bool:
        """Whether it is the caller who may not, rather than what was asked for."""
        return self.status in (401, 403) and ("cannot " in str(self) or self.status == 401)


class NoAnswerError(InputError):
    """The API cannot be reached; `cause` is what kind of error says so."""

    cause = ""


def connect() -> Kubernetes:
    """Return the API of kubectl's current context; in a pod that of its cluster, if KUBECONFIG names no other.

    Raises:
        InputError: there is neither.
    """
    configuration = client.Configuration()
    named = os.environ.get("KUBECONFIG") or None
    in_pod = Path(incluster_config.SERVICE_TOKEN_FILENAME).exists()
    try:
        if named is None and in_pod:
            config.load_incluster_config(configuration)
        else:  # the client read the variable when it was imported, not now
            config.load_kube_config(named, client_configuration=configuration)
    except config.ConfigException as error:
        raise InputError(
            "cluster",
            f"no context to talk to ({brief(error)})",
            fix=f"set KUBECONFIG{'' if named else ' or write ~/.kube/config'}",
        ) from None
    configuration.retries = False  # who calls knows what may be tried again
    return Kubernetes(client.ApiClient(configuration))


class Kubernetes:
    """The API of one cluster. Every method raises RefusedError, and NoAnswerError if it cannot be reached."""

    def __init__(self, api: ApiClient) -> None:
        self.api = api

    def get(self, path: str, **query: str) -> Any:
        """Return the JSON at `path`; None if nothing is there."""
        return self.call("GET", path, absent=True, query=query)

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return what a list holds; nothing where the kind does not exist."""
        return list((self.get(path, **query) or {}).get("items") or ())

    def seen(self, path: str, **query: str) -> Any:
        """Return the JSON at `path`; None where it may not be seen, is not there, or nobody answers. Never raises."""
        try:
            return self.call("GET", path, query=query, timeout=QUICK)
        except GraftlineError:
            return None

    def create(self, path: str, body: dict[str, Any]) -> Any:
        return self.call("POST", path, body=body)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """Merge `body` into the object at `path`."""
        return self.call("PATCH", path, body=body)

    def delete(self, path: str, **query: str) -> None:
        """Delete what is at `path`, if it is there."""
        self.call("DELETE", path, absent=True, query=query)

    def call(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: Any = None, absent: bool = False,
        accept: str = "application/json", kind: str = "object", timeout: Timeout = TIMEOUT,
    ) -> Any:  # fmt: skip
        """Make a request; return its answer, as the client's model of the name `kind` if one is given.

        `absent`: nothing being there is an answer, None.
        """
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = f"application/{'merge-patch+' if method == 'PATCH' else ''}json"
        try:
            return self.api.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                response_type=kind,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=timeout,
            )
        except ApiException as error:
            if absent and error.status == 404:
                return None
            raise RefusedError(error.status or 0, reason_of(error)) from None
        except (HTTPError, OSError, ValueError) as error:
            silent = NoAnswerError(
                "cluster",
                f"{self.api.configuration.host} does not answer ({brief(error)})",
                fix="check kubectl's context: `kubectl version` must answer",
            )
            silent.cause = type(error).__name__
            raise silent from None


def reason_of(error: Any) -> str:
    """Return in one line what an API server says of a request that it refused."""
    try:
        return brief(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return brief(error.reason or "no message")
