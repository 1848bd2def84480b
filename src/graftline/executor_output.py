"""Tell Kubeflow Pipelines about an output: the executor output file of a container component.

Format: ExecutorOutput of kfp-pipeline-spec (`pipeline_spec.proto`). Without it, an artifact of a container
component does not exist in kfp's local runner, and its page in the Kubeflow UI is empty.
"""

from __future__ import annotations

import json
from pathlib import Path

from graftline.durable import write_atomic
from graftline.records import Record

# The launcher mounts object stores under these folders and wants their addresses back.
_MOUNTS = {"/gcs/": "gs://", "/minio/": "minio://", "/s3/": "s3://"}


def write_executor_output(path: Path, name: str, folder: Path, record: Record) -> None:
    """Write `path`: the artifact's address, and as metadata its digest, its record's digest and its metrics."""
    metrics = {key: value for key, value in record.metrics.items() if isinstance(value, int | float | str)}
    artifact = {
        "name": name,
        "uri": _address(folder),
        "metadata": {"sha256": record.content, "record": record.sha256, **metrics},
    }
    write_atomic(path, json.dumps({"artifacts": {name: {"artifacts": [artifact]}}}).encode())


def _address(folder: Path) -> str:
    for mount, scheme in _MOUNTS.items():
        if str(folder).startswith(mount):
            return scheme + str(folder).removeprefix(mount)
    return str(folder)
