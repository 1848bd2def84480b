"""The run key: one sha256 over all that decides a run, so that the same run is never started twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.images import Images

if TYPE_CHECKING:
    from graftline.pipelines.compile import CompiledPipeline

SHORT = 16
"""Characters of the key that names and labels carry."""
_NO_PART = ("run_key", "version", "data_digest", "repository", "revision", "reason")
"""Parameters that are no part of the key's `parameters`: the key itself, what it holds by its own name, where the
data's bytes came from (the digest says what they are: a commit that changes nothing is no reason to run), and why."""


def run_key(
    *, version: str, parameters: Mapping[str, str], data_digest: str, images: Mapping[str, str], slot: str
) -> str:
    """Return the run's key, 64 hex characters.

    Args:
        version: name of the compiled pipeline's version.
        parameters: what the run is given; those that say nothing about its content are left out here.
        data_digest: of raw data and contract (task_data.py).
        images: each image with its digest.
        slot: why once more: the schedule's time (ISO 8601, UTC), `commit:<sha>` or `manual:<uuid>`.
    """
    return sha256_bytes(
        canonical_json(
            {
                "version": version,
                "parameters": {name: value for name, value in parameters.items() if name not in _NO_PART},
                "data": data_digest,
                "images": dict(images),
                "slot": slot,
            }
        )
    )


def run_name(task: str, key: str) -> str:
    """Return the run's name in Kubeflow, a valid Kubernetes label as well: the task and the start of the key."""
    return f"{task[: 62 - SHORT]}-{key[:SHORT]}"


@dataclass(frozen=True)
class Run:
    """A run that is to be started."""

    key: str
    name: str
    parameters: dict[str, str]
    """All of the pipeline's parameters."""


def plan_run(
    pipeline: CompiledPipeline, images: Images, *, revision: str, data_digest: str, slot: str, reason: str
) -> Run:
    """Return the run of `pipeline` on a revision of its data.

    Args:
        pipeline: compiled with the run's profiles and overrides.
        images: that it was compiled with.
        revision: commit to bring the data from.
        data_digest: of raw data and contract at that commit.
        slot: see `run_key`.
        reason: JSON that says why the run is started; it goes into the run's record in the store.
    """
    parameters = pipeline.parameters
    key = run_key(
        version=pipeline.version, parameters=parameters, data_digest=data_digest,
        images=images.model_dump(), slot=slot,
    )  # fmt: skip
    given = {"revision": revision, "data_digest": data_digest, "run_key": key, "reason": reason}
    return Run(key, run_name(pipeline.task, key), parameters | given)
