"""Tell Kubeflow Pipelines about an output: the executor output file of a container component.

Format: ExecutorOutput of kfp-pipeline-spec (`pipeline_spec.proto`). Without it, an artifact of a container
component has no metadata, and its page in the Kubeflow UI is empty.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from graftline.digests import ENVELOPE
from graftline.durable import write_atomic
from graftline.records.folder import check_signature
from graftline.records.model import Record

MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}
"""Where the launcher keeps the artifacts of an object store. It wants their addresses back."""


def write_executor_output(path: Path, name: str, folder: Path, record: Record, *, store: str = "") -> None:
    """Write `path`: the artifact's address, and as metadata its digest, its record and who signed it, its metrics.

    With them go the ids of the keys that signed the record, and the address that the record has in the store from
    the moment when the run is published. The record's digest is the output parameter `record` as well: what reads the
    artifact takes it as a parameter, since the backend's cache compares parameters, and of an artifact only its name.

    Args:
        store: where releases live; $GRAFTLINE_STORE if empty. The address is left out where neither says it.

    Raises:
        InputError: the record's envelope is not sound, or a signature in it is of no key that is trusted here.
    """
    metrics = {key: value for key, value in record.metrics.items() if isinstance(value, int | float | str)}
    metadata = {**metrics, "sha256": record.content, "record": record.sha256}
    if signed_by := _signers(folder):
        metadata["signed_by"] = signed_by
    if place := store or os.environ.get("GRAFTLINE_STORE"):
        metadata["record_url"] = f"{place.rstrip('/')}/records/{record.sha256}.json"
    write_outputs(path, {name: (folder, metadata)}, {"record": record.sha256})


def _signers(folder: Path) -> str:
    """Return the ids of the keys that signed the folder's record, verified, joined by commas; empty if none did."""
    return ", ".join(check_signature(folder)) if (folder / ENVELOPE).is_file() else ""


def write_outputs(path: Path, artifacts: dict[str, tuple[Path, dict[str, Any]]], parameters: dict[str, str]) -> None:
    """Write `path`: each artifact's place and metadata by name, and the output parameters."""
    listed = {
        name: {"artifacts": [{"name": name, "uri": _address(place), "metadata": metadata}]}
        for name, (place, metadata) in artifacts.items()
    }
    write_atomic(path, json.dumps({"artifacts": listed, "parameterValues": parameters}).encode())


def add_run(path: Path, run: str) -> str:
    """Note in each artifact's metadata which run made it; return the output parameter `record`, "" without one.

    A later step finds it in its executor input: of another run, the engine took the artifact from its cache.

    Raises:
        OSError, ValueError: nothing was told about the outputs.
    """
    told = json.loads(path.read_bytes())
    for listed in told["artifacts"].values():
        for artifact in listed["artifacts"]:
            artifact["metadata"]["run"] = run
    write_atomic(path, json.dumps(told).encode())
    return str(told["parameterValues"].get("record", ""))


def _address(folder: Path) -> str:
    for scheme, mount in MOUNTS.items():
        if str(folder).startswith(mount):
            return scheme + str(folder).removeprefix(mount)
    return str(folder)
