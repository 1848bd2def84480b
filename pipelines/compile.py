"""Compile a task's pipeline to Kubernetes manifests: the same bytes from the same sources, named by their content.

The commit is no part of them: it would change with every commit the file that the commit holds. Which data, which
revision and why are parameters of a run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import yaml

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.executor_input import unreplaced
from graftline.profiles import placement
from graftline.settings import Settings, load_settings
from graftline.tasks.documents import parameter_models, task_document
from graftline.tasks.parameters import section

SECTIONS = {
    "validate": ("validate",),
    "pretrain": ("pretrain",),
    "finetune": ("finetune",),
    "evaluate": ("evaluate", "finetune"),  # it runs finetune's fit
    "publish": ("publish",),
}
"""The parameter sections that each component reads."""
FOLDER = ROOT / "pipelines/compiled"
API = "pipelines.kubeflow.org/v2beta1"
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The same bytes, in a thirtieth of the time."""
_FIX = "a step reads what it needs from its executor input (pipelines/step.py)"


@dataclass(frozen=True)
class CompiledPipeline:
    """A task's pipeline, ready for a cluster."""

    task: str
    version: str
    """Name of the PipelineVersion: `retrain-<task>-<12 hex of the content>`."""
    pipeline: str
    """Name of the Pipeline: `retrain-<task>`."""
    spec: dict[str, Any] = field(repr=False)
    """The IR: `pipelineSpec` and `platformSpec`."""
    parameters: dict[str, str] = field(repr=False)
    """What a run is given, but for the run's own: revision, data_digest, run_key and reason (runkey.Run)."""
    manifest: bytes = field(repr=False)
    """YAML: Pipeline and PipelineVersion."""


def compiled(
    task: str, *, profiles: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> CompiledPipeline:
    """Return a task's pipeline, the same on every call.

    Args:
        task: the folder under data/.
        profiles: the profile of each step that is not to run where profiles.yaml says; another place is another
            version of the pipeline.
        overrides: values of the task's parameters by dotted key (`finetune.epochs`), for this run's `parameters`;
            the version stays that of the files.

    Raises:
        InputError: the task, a profile, a parameter or a setting is wrong.
    """
    settings = load_settings()
    places = placement(profiles)
    name = f"retrain-{task.replace('_', '-')}"  # a Kubernetes name has no underscore
    written = component_params(task)
    defaults = {"task": task, "store": settings.store, "repository": settings.repository}
    spec = _compile(_draw(name, task, places, settings), name, defaults | written)
    if left := unreplaced(spec):
        place, _, text = left[0].partition(": ")
        raise InputError(place, text, expected="no placeholder that Kubeflow leaves as it is", fix=_FIX)
    version = f"{name}-{sha256_bytes(canonical_json(spec | {'source': settings.repository}))[:12]}"
    changed = component_params(task, overrides) if overrides else written
    return CompiledPipeline(
        task=task,
        version=version,
        pipeline=name,
        spec=spec,
        parameters=defaults | changed | {"version": version},
        manifest=_manifest(task, name, version, spec, settings.repository),
    )


def component_params(task: str, overrides: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return each component's `--params`, defaults filled in, by the name of the pipeline's parameter.

    Raises:
        InputError: the task does not exist, or its parameters or the overrides are wrong.
    """
    document, where = task_document(task, overrides)
    values = {
        name: section(document, where, name, model).model_dump(mode="json")
        for name, model in parameter_models().items()
    }
    return {
        f"{component}_params": json.dumps({"task": task} | {name: values[name] for name in names}, sort_keys=True)
        for component, names in SECTIONS.items()
    }


def _compile(pipeline: Any, name: str, defaults: dict[str, str]) -> dict[str, Any]:
    """Return the IR as plain data: what `kfp.compiler.Compiler` writes, which takes a second to print and read it."""
    from google.protobuf.json_format import MessageToDict
    from kfp.compiler.pipeline_spec_builder import modify_pipeline_spec_with_override

    spec = modify_pipeline_spec_with_override(pipeline.pipeline_spec, name, defaults)
    return {"pipelineSpec": MessageToDict(spec), "platformSpec": MessageToDict(pipeline.platform_spec)}


def _draw(name: str, task: str, places: Mapping[str, Any], settings: Settings) -> Any:
    """Return the kfp pipeline with every step in its place."""
    from kfp import dsl

    from graftline.pipelines import pods, retrain

    def place(step: str, node: Any) -> None:
        pods.apply(node, places[step], places["fetch"], settings)
        pods.secure(node, task, settings)

    kept = settings.ttl_days * 86_400
    config = dsl.PipelineConfig(
        # All three: the back end's own defaults for success and failure, one hour, win over the first alone.
        ttl_seconds_after_finished=kept,
        ttl_seconds_after_success=kept,
        ttl_seconds_after_failure=kept,
        active_deadline_seconds=settings.deadline_hours * 3600,
    )
    with _quick_to_tell():
        return retrain.pipeline(name, place, config)


@contextmanager
def _quick_to_tell() -> Iterator[None]:
    """Within, kfp is told who calls it without a look at the sources.

    It asks 62 times a pipeline, by `inspect.stack`, for a name in an error. Of each frame that has no file that looks
    for the source among all modules: with thousands of them, as in `graftline new`, for seconds.
    """
    from kfp.dsl import pipeline_task

    before = pipeline_task.inspect
    pipeline_task.inspect = SimpleNamespace(stack=_callers)
    try:
        yield
    finally:
        pipeline_task.inspect = before


def _callers() -> list[tuple[object, ...]]:
    """Return what kfp reads of `inspect.stack()`: at 3 the name of the function that asks, and of its caller."""
    asks = sys._getframe(1)
    return [(None, None, None, frame.f_code.co_name) for frame in (asks, asks.f_back) if frame]


def _manifest(task: str, name: str, version: str, spec: dict[str, Any], source: str) -> bytes:
    """Return the two Kubernetes objects as YAML, in kfp's own form plus the source's address."""
    description = spec["pipelineSpec"]["pipelineInfo"]["description"]
    labels = {"app.kubernetes.io/part-of": "graftline", "graftline.dev/task": task}
    pipeline = {
        "apiVersion": API,
        "kind": "Pipeline",
        "metadata": {"name": name, "labels": labels},
        "spec": {"displayName": name, "description": description},
    }
    pinned = {
        "apiVersion": API,
        "kind": "PipelineVersion",
        "metadata": {"name": version, "labels": labels},
        "spec": {
            "pipelineName": name,
            "displayName": version,
            "description": description,
            "codeSourceURL": source,
            **spec,
        },
    }
    head = f"# Written by `graftline compile {task}`, from pipelines/, images.lock and data/{task}/params.yaml.\n"
    text = yaml.dump_all([pipeline, pinned], Dumper=_Dumper, sort_keys=True, width=110, allow_unicode=True)
    return (head + "---\n" + text).encode()
