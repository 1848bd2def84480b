"""Kubeflow's back end for one machine: walks a compiled pipeline as driver, launcher and Argo do, in containers.

It does what a real one was seen to do (docs/decisions/container-engine.md), the unhelpful included:

- In a container's command and arguments it replaces `{{$}}`, parameters' values, artifacts' uri and path and output
  parameters' files, and nothing else; the run's name, id and times in a task's constant input only.
- A step ends with 1 whatever its program ended with, and steps that never ran have no state.
- A pod that is lost is made again, a step that failed is not.
- The exit handler runs however the run ended, and is told COMPLETE, FAILED, or RUNNING of a run that was cancelled.
- The cache's key holds parameters' values and the names of artifacts, image and command: no content, no variable.

How a container is started is the caller's.
"""

from __future__ import annotations

import json
import platform
import re
import secrets
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.durable import write_atomic
from graftline.errors import InputError

State = Literal["COMPLETE", "CACHED", "FAILED", "RUNNING"]
"""Words of the back end's metadata; RUNNING is also the last that it knows of a step which was cancelled or lost."""
DONE: tuple[State, ...] = ("COMPLETE", "CACHED")
BUCKET = "minio://mlpipeline/v2/artifacts"
LOG = "executor-logs"
OUTPUT_FILE = "/tmp/kfp_outputs/output_metadata.json"  # noqa: S108  (in the container)
PARAMETERS = "/tmp/kfp/outputs"  # noqa: S108  (in the container)
_MOUNTS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}
_RUN_ID = "{{workflow.uid}}"
"""In a label: the API server replaces it by the run's id."""
_LOST_PODS = 2
"""How often a pod that is lost is made again where a step says nothing: the stock default of Kubeflow's workflows."""


@dataclass(frozen=True)
class Pod:
    """One start of a step: what its container is made of."""

    run: str
    """The run's id."""
    step: str
    name: str
    image: str
    command: list[str]
    """Command and arguments, with all replaced that is replaced."""
    env: dict[str, str]
    labels: dict[str, str]
    secrets: tuple[dict[str, Any], ...]
    """Secrets that the platform spec wants as volumes: `mountPath`, `secretName`."""
    inputs: dict[Path, str]
    """Artifacts on this machine, and where the container sees them."""
    outputs: dict[Path, str]
    """Folders to write to, likewise."""
    log: str
    """The file in the container that takes what the step says."""


@dataclass(frozen=True)
class Execution:
    """What became of one step."""

    step: str
    state: State
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each output by name, with its `uri`, its id as `name`, and its `metadata`."""
    parameters: dict[str, Any] = field(default_factory=dict)


Start = Callable[[Pod], int | None]
"""Starts a container and waits for its end; returns its exit code, None if it was lost. May raise KeyboardInterrupt
after it has stopped the container."""


class Backend:
    """One run of a compiled pipeline."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        root: Path,
        start: Start,
        *,
        run: str = "",
        on_step: Callable[[str, str], None] = lambda step, event: None,
        whole: Callable[[Path], bool] = Path.exists,
    ) -> None:
        """Prepare a run.

        Args:
            spec: `pipelineSpec` and `platformSpec`.
            root: the folder that stands for the object store and the cache: runs that share it share both.
            start: starts a pod.
            run: the run's id; a new one if empty.
            on_step: called with a step's name and `started`, or the State that it ended with.
            whole: whether an artifact in the cache is as it was made.
        """
        self.id = run or str(uuid.uuid4())
        self.executions: dict[str, Execution] = {}
        """Of the steps that ran or were taken from the cache, in order."""
        self.cancelled = threading.Event()
        self._pipeline, self._platform = spec["pipelineSpec"], spec.get("platformSpec") or {}
        self._root, self._start, self._on_step, self._whole = root, start, on_step, whole
        name = self._pipeline["pipelineInfo"]["name"]
        self._name, self._uri = f"{name}-{secrets.token_hex(3)}", f"{BUCKET}/{name}/{self.id}"
        self._created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def run(self, parameters: Mapping[str, Any]) -> State:
        """Run the pipeline with these parameters; return how it ended.

        Raises:
            InputError: a parameter is unknown, or one without a default is not given.
        """
        declared = self._pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
        if unknown := sorted(parameters.keys() - declared.keys()):
            raise InputError("parameters", f"unknown: {', '.join(unknown)}", expected=", ".join(declared))
        defaults = {name: each["defaultValue"] for name, each in declared.items() if "defaultValue" in each}
        values = defaults | dict(parameters)
        if missing := sorted(declared.keys() - values.keys()):
            raise InputError("parameters", f"missing: {', '.join(missing)}")
        state, _ = self._dag(self._pipeline["root"]["dag"], values)
        return state

    def path(self, uri: str) -> Path:
        """Return where an artifact lies on this machine."""
        return self._root / "artifacts" / uri.removeprefix(f"{BUCKET}/")

    def forget_others(self) -> None:
        """Remove what this run has no use for: other executions in the cache, their artifacts, what its pods left."""
        used = {artifact["uri"] for one in self.executions.values() for artifact in one.artifacts.values()}
        for path in (self._root / "executions").glob("*.json"):
            if not {artifact["uri"] for artifact in json.loads(path.read_bytes())["artifacts"].values()} <= used:
                path.unlink()
        kept = {self.path(uri).parent for uri in used}
        for folder in (self._root / "artifacts").glob("*/*/*/*"):  # pipeline, run, step, start
            if folder not in kept:
                shutil.rmtree(folder)
        shutil.rmtree(self._root / "pods", ignore_errors=True)

    def _dag(self, dag: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[State, dict[str, Execution]]:
        """Run the tasks of a graph, what each depends on first; return its state and what its steps made."""
        done: dict[str, Execution] = {}
        for name, task in _ordered(dag["tasks"]):
            exits = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            before = [done.get(other) for other in task.get("dependentTasks", ())]
            if not exits and (self.cancelled.is_set() or not all(one and one.state in DONE for one in before)):
                continue
            component = self._pipeline["components"][task["componentRef"]["name"]]
            try:
                values, artifacts = self._inputs(name, task, component, given, done)
            except KeyError:  # an output that its step did not make: the driver or the launcher fails
                done[name] = self.executions[name] = Execution(name, "FAILED")
                continue
            if "dag" in component:
                state, _ = self._dag(component["dag"], values)
                done[name] = Execution(name, state)
            else:
                done[name] = self.executions[name] = self._step(name, task, component, values, artifacts)
        states = [done[name].state if name in done else None for name in dag["tasks"]]
        if all(state in DONE for state in states):
            return "COMPLETE", done
        return ("RUNNING" if self.cancelled.is_set() or "RUNNING" in states else "FAILED"), done

    def _inputs(
        self,
        name: str,
        task: Mapping[str, Any],
        component: Mapping[str, Any],
        given: Mapping[str, Any],
        done: Mapping[str, Execution],
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return a task's parameters and artifacts, as the driver resolves them. Raises KeyError: one is not there."""
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        values = {key: each["defaultValue"] for key, each in declared.items() if "defaultValue" in each}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if "componentInputParameter" in source:
                values[key] = given[source["componentInputParameter"]]
            elif "taskOutputParameter" in source:
                output = source["taskOutputParameter"]
                values[key] = done[output["producerTask"]].parameters[output["outputParameterKey"]]
            elif "taskFinalStatus" in source:
                values[key] = self._final_status(done[source["taskFinalStatus"]["producerTask"]])
            else:
                constant = source["runtimeValue"]["constant"]
                values[key] = self._known(name).get(constant, constant) if isinstance(constant, str) else constant
        artifacts = {}
        for key, source in task.get("inputs", {}).get("artifacts", {}).items():
            output = source["taskOutputArtifact"]
            artifacts[key] = done[output["producerTask"]].artifacts[output["outputArtifactKey"]]
            if not self.path(artifacts[key]["uri"]).exists():
                raise KeyError(key)
        return values, artifacts

    def _known(self, task: str) -> dict[str, str]:
        """Return what the driver puts in the place of a constant that is nothing but one of these."""
        values = {
            "name": self._name,
            "resource_name": self._name,
            "uuid": self.id,
            "create_time_utc": self._created,
            "schedule_time_utc": self._created,
        }
        known = {f"{{{{$.pipeline_job_{key}}}}}": value for key, value in values.items()}
        return known | {"{{$.pipeline_task_name}}": task, "{{$.pipeline_task_uuid}}": secrets.token_hex(4)}

    def _final_status(self, producer: Execution) -> dict[str, Any]:
        return {
            "state": producer.state,
            "pipelineJobResourceName": self._name,
            "pipelineTaskName": producer.step,
            "error": {"message": ""},
        }

    def _step(
        self,
        name: str,
        task: Mapping[str, Any],
        component: Mapping[str, Any],
        values: dict[str, Any],
        artifacts: dict[str, dict[str, Any]],
    ) -> Execution:
        """Take a step from the cache, or start its pod."""
        label = component["executorLabel"]
        container = self._pipeline["deploymentSpec"]["executors"][label]["container"]
        command = [*container.get("command", ()), *container.get("args", ())]
        uri = f"{self._uri}/{name}/{uuid.uuid4()}"
        given = _executor_input(values, artifacts, component.get("outputDefinitions", {}), uri)
        cached = self._root / "executions" / f"{_fingerprint(given, container['image'], command)}.json"
        caching = task.get("cachingOptions", {}).get("enableCache", False)
        if caching and (found := self._cached(cached, name)):
            self._on_step(name, found.state)
            return found
        self._on_step(name, "started")
        kubernetes = self._platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        extra = kubernetes.get("executors", {}).get(label, {})
        handover = self._root / "pods" / f"{name}-{uuid.uuid4()}"
        starts = 1 + int(task.get("retryPolicy", {}).get("maxRetryCount", _LOST_PODS))
        state: State = "RUNNING"
        for _ in range(starts):
            pod = self._pod(name, container, extra, given, uri, handover)
            try:
                code = self._start(pod)
            except KeyboardInterrupt:
                self.cancelled.set()
                code = 1
            if code is not None:
                state = "RUNNING" if self.cancelled.is_set() and code else "FAILED" if code else "COMPLETE"
            if code is not None or self.cancelled.is_set():
                break
        ended = Execution(name, state)
        if state == "COMPLETE":
            ended = Execution(name, state, **_made(given, handover))
            if caching:
                text = json.dumps({"artifacts": ended.artifacts, "parameters": ended.parameters})
                cached.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(cached, text.encode())
        self._on_step(name, ended.state)
        return ended

    def _cached(self, path: Path, step: str) -> Execution | None:
        """Return an earlier execution of the same key, if all that it made is still there."""
        if not path.is_file():
            return None
        found = json.loads(path.read_bytes())
        if not all(self._whole(self.path(artifact["uri"])) for artifact in found["artifacts"].values()):
            return None
        return Execution(step, "CACHED", **found)

    def _pod(
        self,
        step: str,
        container: Mapping[str, Any],
        extra: Mapping[str, Any],
        given: dict[str, Any],
        uri: str,
        handover: Path,
    ) -> Pod:
        """Return one start of a step, with its folders made."""
        name = f"{self._name}-{secrets.randbelow(10**10)}"
        labels = {
            key: self.id if value == _RUN_ID else value
            for key, value in extra.get("podMetadata", {}).get("labels", {}).items()
        }
        fields = {f"metadata.labels['{key}']": value for key, value in labels.items()}
        fields |= {"metadata.name": name, "spec.nodeName": platform.node()}
        env = {each["name"]: each["value"] for each in container.get("env", ())}
        env |= {each["name"]: fields[each["fieldPath"]] for each in extra.get("fieldPathAsEnv", ())}
        folders = {
            self.path(uri): _local(uri),
            handover / "told": OUTPUT_FILE.rpartition("/")[0],
            handover / "parameters": PARAMETERS,
        }
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        replaced = _placeholders(given)
        return Pod(
            run=self.id, step=step, name=name, image=container["image"], labels=labels,
            command=[_replace(part, replaced) for part in (*container.get("command", ()), *container.get("args", ()))],
            env=env, secrets=tuple(extra.get("secretAsVolume", ())),
            inputs={
                self.path(artifact["uri"]): _local(artifact["uri"])
                for listed in given.get("inputs", {}).get("artifacts", {}).values() for artifact in listed["artifacts"]
            },
            outputs=folders, log=f"{_local(uri)}/{LOG}",
        )  # fmt: skip


def _ordered(tasks: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each task after those that it depends on."""
    rest, seen = dict(tasks), set[str]()
    while rest:
        ready = [name for name, task in rest.items() if seen >= set(task.get("dependentTasks", ()))]
        for name in ready:
            seen.add(name)
            yield name, rest.pop(name)


def _executor_input(
    values: dict[str, Any], artifacts: dict[str, dict[str, Any]], outputs: Mapping[str, Any], uri: str
) -> dict[str, Any]:
    """Return the ExecutorInput of pipeline_spec.proto; as JSON, what is empty is left out."""
    declared = {name: each["artifactType"] for name, each in outputs.get("artifacts", {}).items()}
    declared[LOG] = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
    inputs: dict[str, Any] = {"parameterValues": values} if values else {}
    if artifacts:
        inputs["artifacts"] = {name: {"artifacts": [artifact]} for name, artifact in artifacts.items()}
    made: dict[str, Any] = {
        "artifacts": {
            name: {"artifacts": [{"name": name, "type": kind, "uri": f"{uri}/{name}"}]}
            for name, kind in declared.items()
        },
        "outputFile": OUTPUT_FILE,
    }
    if parameters := outputs.get("parameters"):
        made["parameters"] = {name: {"outputFile": f"{PARAMETERS}/{name}"} for name in parameters}
    return {"inputs": inputs, "outputs": made} if inputs else {"outputs": made}


def _fingerprint(given: Mapping[str, Any], image: str, command: list[str]) -> str:
    """Return the cache's key: what a step is told and starts, but for addresses, which every run has of its own."""
    inputs, outputs = given.get("inputs", {}), given["outputs"]
    key = {
        "inputArtifactNames": {
            name: [artifact["name"] for artifact in listed["artifacts"]]
            for name, listed in inputs.get("artifacts", {}).items()
        },
        "inputParameterValues": inputs.get("parameterValues", {}),
        "outputArtifactsSpec": {
            name: {"name": name, "type": listed["artifacts"][0]["type"]}
            for name, listed in outputs["artifacts"].items()
        },
        "outputParametersSpec": sorted(outputs.get("parameters", {})),
        "containerSpec": {"image": image, "cmdArgs": command},
    }
    return sha256_bytes(canonical_json(key))


def _placeholders(given: Mapping[str, Any]) -> dict[str, str]:
    """Return all that the launcher replaces in a container's arguments."""
    found = {"{{$}}": json.dumps(given)}
    for side in ("inputs", "outputs"):
        for name, listed in given.get(side, {}).get("artifacts", {}).items():
            uri = listed["artifacts"][0]["uri"]
            found[f"{{{{$.{side}.artifacts['{name}'].uri}}}}"] = uri
            found[f"{{{{$.{side}.artifacts['{name}'].path}}}}"] = _local(uri)
    for name, value in given.get("inputs", {}).get("parameterValues", {}).items():
        text = value if isinstance(value, str) else json.dumps(value)
        found[f"{{{{$.inputs.parameters['{name}']}}}}"] = text
    for name, output in given["outputs"].get("parameters", {}).items():
        found[f"{{{{$.outputs.parameters['{name}'].output_file}}}}"] = output["outputFile"]
    return found


def _replace(text: str, values: Mapping[str, str]) -> str:
    """Replace placeholders in one go: a value may quote one, and stays as it is."""
    return re.sub("|".join(map(re.escape, values)), lambda match: values[match[0]], text)


def _made(given: Mapping[str, Any], handover: Path) -> dict[str, Any]:
    """Return a step's outputs, as the launcher takes them over: declared ones only, each with an id for a name."""
    told: dict[str, Any] = {}
    file = handover / "told" / OUTPUT_FILE.rpartition("/")[2]
    if file.is_file():
        told = json.loads(file.read_bytes())
    artifacts = {}
    for name, listed in given["outputs"]["artifacts"].items():
        if name == LOG:
            continue
        own: dict[str, Any] = next(iter(told.get("artifacts", {}).get(name, {}).get("artifacts", ())), {})
        artifacts[name] = listed["artifacts"][0] | {
            "name": str(secrets.randbits(53)),
            "uri": own.get("uri") or listed["artifacts"][0]["uri"],
            "metadata": own.get("metadata", {}),
        }
    parameters = dict(told.get("parameterValues", {}))
    for name in given["outputs"].get("parameters", {}):
        written = handover / "parameters" / name
        if name not in parameters and written.is_file():
            parameters[name] = written.read_text(encoding="utf-8")
    return {"artifacts": artifacts, "parameters": parameters}


def _local(uri: str) -> str:
    """Return where a container sees an artifact."""
    scheme = next(scheme for scheme in _MOUNTS if uri.startswith(scheme))
    return _MOUNTS[scheme] + uri.removeprefix(scheme)
