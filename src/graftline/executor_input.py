"""What Kubeflow's driver and launcher put into a step's container, and where: the one place that knows.

In a container's arguments the launcher replaces `{{$}}` by the executor input, an ExecutorInput of kfp-pipeline-spec
(`pipeline_spec.proto`) as JSON, and single inputs and outputs; nothing else, whatever kfp's documentation lists. What
it does not replace reaches the program as it stands, so `unreplaced` refuses a pipeline that counts on more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.errors import InputError
from graftline.executor_output import MOUNTS
from graftline.yamlfile import parse_json

_LOG = "executor-logs"
"""The launcher's own output, which it asks no step for."""
RUN_ID = "{{workflow.uid}}"
"""Kubeflow's API server replaces this by the run's id, in labels: another for every run, whoever started it, and the
same however often a step of it is tried. A label cannot hold a parameter's value, and a run's name is free text.
https://github.com/kubeflow/pipelines/blob/master/backend/src/common/util/workflow.go"""
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\[\[(ScheduledTime|CurrentTime|Index|RunUUID)\b.*?\]\]")
"""The second kind are the macros of recurring runs, which the present back end leaves as they are."""
_IN_ARGUMENTS = re.compile(
    r"\{\{\$(\.inputs\.parameters\['[^']+'\]|\.(inputs|outputs)\.artifacts\['[^']+'\]\.(uri|path)"
    r"|\.outputs\.parameters\['[^']+'\]\.output_file)?\}\}"
)
_IN_CONSTANTS = re.compile(r"\{\{\$\.pipeline_job_(create|schedule)_time_utc\}\}")


@dataclass(frozen=True)
class Artifact:
    """An input that an earlier step made."""

    path: Path
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class ExecutorInput:
    """What a step is given."""

    parameters: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Path]
    output_file: Path | None
    """Where to tell Kubeflow about the outputs (executor_output.py)."""


def read_executor_input(text: str) -> ExecutorInput:
    """Return what `{{$}}` became. Raises InputError."""
    where = "--executor-input"
    value = parse_json(text, where=where)
    try:
        inputs, outputs = value.get("inputs") or {}, value.get("outputs") or {}
        given = {name: listed["artifacts"][0] for name, listed in (inputs.get("artifacts") or {}).items()}
        made = {name: listed["artifacts"][0] for name, listed in (outputs.get("artifacts") or {}).items()}
        return ExecutorInput(
            parameters=dict(inputs.get("parameterValues") or {}),
            inputs={name: Artifact(_path(each), each.get("metadata") or {}) for name, each in given.items()},
            outputs={name: _path(each) for name, each in made.items() if name != _LOG},
            output_file=Path(outputs["outputFile"]) if outputs.get("outputFile") else None,
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise InputError(where, repr(text[:80]), expected="an ExecutorInput as JSON, which `{{$}}` becomes") from None


def _path(artifact: Mapping[str, Any]) -> Path:
    """Return where the launcher keeps an artifact."""
    uri = str(artifact["uri"])
    scheme = next((scheme for scheme in MOUNTS if uri.startswith(scheme)), "")
    return Path(artifact.get("customPath") or MOUNTS.get(scheme, "") + uri.removeprefix(scheme))


def unreplaced(spec: Mapping[str, Any]) -> list[str]:
    """Return where a pipeline holds a placeholder that nobody replaces there, as `place: text`.

    Args:
        spec: the IR, `pipelineSpec` and `platformSpec`; or what a run is given, `{"parameters": {...}}`.
    """
    return [f"{place}: {text}" for place, text in _texts(spec) if _PLACEHOLDER.search(_replaced(place).sub("", text))]


def _replaced(place: str) -> re.Pattern[str]:
    if ".container.args." in place or ".container.command." in place:
        return _IN_ARGUMENTS
    if place.endswith(".constant"):
        return _IN_CONSTANTS
    return re.compile(re.escape(RUN_ID) if ".labels." in place else r"(?!)")


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from _texts(part, f"{place}.{name}" if place else str(name))
