"""An MLflow file store (`mlruns/`) with one finished run a release, that `mlflow` 1 to 3 reads.

Layout: mlruns/<experiment>/meta.yaml and <run>/{meta.yaml,params,metrics,tags,inputs,artifacts}, as MLflow's own file
store writes it. meta.yaml is JSON, which is YAML. The same release has the same run id wherever it is written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from graftline.durable import output_directory
from graftline.errors import InputError
from graftline.exports.facts import Facts, StoredRecord
from graftline.exports.values import numbers, parameters, uuid_of
from graftline.records.model import CODE, IMAGE, LOCK

_FINISHED, _LOCAL = 3, 4
"""RunStatus.FINISHED and SourceType.LOCAL of MLflow's service.proto."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_. -]")
_LONGEST = 200
"""Characters of a name: MLflow takes 250, a file name 255 bytes."""


def write_runs(folder: Path, found: list[Facts]) -> None:
    """Write the file store `folder`, which must not be there yet, or be empty.

    Raises:
        InputError: `folder` has content already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(folder, "there already, with content", expected="a new folder", fix="give another place")
    place = folder.absolute()
    with output_directory(place) as aside:
        for facts in found:
            experiment = _experiment_id(facts.release.task)
            _write(aside / experiment / "meta.yaml", _experiment(place, experiment, facts.release))
            _write_run(aside / experiment, place / experiment, experiment, facts)


def run_id(facts: Facts) -> str:
    """Return the run's id, 32 hex digits."""
    return uuid_of("mlflow", facts.release.manifest).hex


def _experiment_id(task: str) -> str:
    """Return 18 digits that follow from the task, as MLflow's own random ones look."""
    return str(10**17 + int(hashlib.sha256(task.encode()).hexdigest(), 16) % (9 * 10**17))


def _experiment(place: Path, experiment: str, release: Any) -> dict[str, Any]:
    at = _milliseconds(release.created)
    return {
        "artifact_location": (place / experiment).as_uri(),
        "creation_time": at,
        "experiment_id": experiment,
        "last_update_time": at,
        "lifecycle_stage": "active",
        "name": f"graftline/{release.task}",
    }


def _write_run(folder: Path, place: Path, experiment: str, facts: Facts) -> None:
    identity, at = run_id(facts), _milliseconds(facts.release.created)
    run = folder / identity
    _write(run / "meta.yaml", {
        "artifact_uri": (place / identity / "artifacts").as_uri(), "deleted_time": None, "end_time": at,
        "entry_point_name": "", "experiment_id": experiment, "lifecycle_stage": "active", "run_id": identity,
        "run_name": facts.release.name, "run_uuid": identity, "source_name": "", "source_type": _LOCAL,
        "source_version": "", "start_time": at, "status": _FINISHED, "tags": [], "user_id": "graftline",
    })  # fmt: skip
    for name in ("params", "metrics", "tags", "artifacts"):
        (run / name).mkdir()
    for name, text in _params(facts).items():
        _write_text(run / "params" / _safe(name), text)
    for name, value in _metrics(facts).items():
        _write_text(run / "metrics" / _safe(name), f"{at} {value!r} 0\n")
    for name, text in _tags(facts).items():
        _write_text(run / "tags" / _safe(name), text)
    for step in facts.steps:
        _write_dataset_inputs(folder, run, identity, step)
    _write_artifacts(run / "artifacts", facts)


def _params(facts: Facts) -> dict[str, str]:
    """Return every parameter of the chain, each under the output that it made."""
    return {
        f"{name}.{parameter}": value
        for name, step in facts.named.items()
        for parameter, value in parameters(step).items()
    }


def _metrics(facts: Facts) -> dict[str, float]:
    """Return the release's metrics as they are called, and those of the steps under the output's name."""
    steps = {
        f"{name}.{metric}": value
        for name, step in facts.named.items()
        if name != "evaluation"
        for metric, value in numbers(step.record.metrics).items()
    }
    return steps | numbers(facts.manifest["metrics"])


def _tags(facts: Facts) -> dict[str, str]:
    release, model = facts.release, facts.named.get("model")
    tags = {
        "mlflow.runName": release.name,
        "mlflow.user": "graftline",
        "mlflow.source.type": "LOCAL",
        "graftline.manifest": release.manifest,
        "graftline.content": release.digest,
        "graftline.version": str(release.version),
    }
    for name, step in facts.named.items():
        tags[f"graftline.record.{name}"] = step.record.sha256
        tags[f"graftline.content.{name}"] = step.record.content
    ran = model.record.what_ran if model else {}
    keys = {CODE: "mlflow.source.git.commit", IMAGE: "graftline.image", LOCK: "graftline.lock"}
    tags |= {keys[name]: digest for name, digest in ran.items()}
    return tags


def _write_dataset_inputs(experiment: Path, run: Path, identity: str, step: StoredRecord) -> None:
    """Write what went into a step as MLflow's data set inputs, in the context of that step."""
    for given in step.record.inputs:
        name, digest = f"{step.record.task}/{given.name}", given.sha256
        dataset = _identifier(name, digest)
        source = {"uri": f"urn:sha256:{digest}"} | ({"record": given.record} if given.record else {})
        _write(experiment / "datasets" / dataset / "meta.yaml", {
            "name": name, "digest": digest, "source_type": "graftline", "source": json.dumps(source, sort_keys=True),
            "schema": None, "profile": None,
        })  # fmt: skip
        edge = _identifier(dataset, identity)
        _write(
            run / "inputs" / edge / "meta.yaml",
            {
                "source_type": "DATASET",
                "source_id": dataset,
                "destination_type": "RUN",
                "destination_id": dataset,
                "tags": {"mlflow.data.context": step.record.component},
            },
        )


def _write_artifacts(folder: Path, facts: Facts) -> None:
    """Write what can be read at a glance: manifest, records, model card and pictures; not the weights."""
    (folder / "manifest.json").write_bytes(facts.manifest_data)
    (folder / "records").mkdir()
    for step in facts.steps:
        (folder / "records" / f"{step.record.sha256}.json").write_bytes(step.data)
        if step.envelope is not None:
            (folder / "records" / f"{step.record.sha256}.dsse.json").write_bytes(step.envelope)
    for name in _shown(facts):
        data = facts.read(name)
        if data is not None:
            (folder / name).write_bytes(data)


def _shown(facts: Facts) -> Iterator[str]:
    for file in facts.files:
        if "/" not in file.path and file.path.endswith((".png", ".md", ".json")) and file.path != "manifest.json":
            yield file.path


def _identifier(first: str, second: str) -> str:
    """Return MLflow's identifier of a data set (name, digest) or of an input (data set, run)."""
    return hashlib.md5(f"{first}{second}".encode(), usedforsecurity=False).hexdigest()


def _safe(name: str) -> str:
    """Return a name that MLflow takes and that is a file's name and no path; two names that differ stay two."""
    plain = _UNSAFE.sub("_", name)
    if plain == name and len(name) <= _LONGEST and set(name) != {"."}:
        return name
    return f"{plain[:_LONGEST].strip('.')}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _milliseconds(at: str) -> int:
    try:
        return int(datetime.fromisoformat(at).timestamp() * 1000)
    except ValueError:
        raise InputError("manifest.json", f"created {at!r}", expected="an ISO 8601 time") from None


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
