"""Tell Kubeflow Pipelines about an output: the executor output file of a container component.

Format: ExecutorOutput of kfp-pipeline-spec (`pipeline_spec.proto`). Without it, an artifact of a container
component does not exist in kfp's local runner, and its page in the Kubeflow UI is empty.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graftline.durable import write_atomic
from graftline.records import Record

# The launcher mounts object stores under these folders and wants their addresses back.
_MOUNTS = {"/gcs/": "gs://", "/minio/": "minio://", "/s3/": "s3://"}


def write_executor_output(path: Path, name: str, folder: Path, record: Record) -> None:
    """Write `path`: the artifact's address, and as metadata its digest, its record's digest and its metrics.

    The record's digest is the output parameter `record` as well: what reads the artifact takes it as a parameter,
    since the backend's cache compares parameters, and of an artifact only its name.
    """
    metrics = {key: value for key, value in record.metrics.items() if isinstance(value, int | float | str)}
    metadata = {"sha256": record.content, "record": record.sha256, **metrics}
    write_outputs(path, {name: (folder, metadata)}, {"record": record.sha256})


def write_outputs(
    path: Path, artifacts: dict[str, tuple[Path, dict[str, Any]]], parameters: dict[str, str]
) -> None:
    """Write `path`: each artifact's place and metadata by name, and the output parameters."""
    listed = {
        name: {"artifacts": [{"name": name, "uri": _address(place), "metadata": metadata}]}
        for name, (place, metadata) in artifacts.items()
    }
    write_atomic(path, json.dumps({"artifacts": listed, "parameterValues": parameters}).encode())


def _address(folder: Path) -> str:
    for mount, scheme in _MOUNTS.items():
        if str(folder).startswith(mount):
            return scheme + str(folder).removeprefix(mount)
    return str(folder)
