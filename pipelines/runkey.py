"""A run before it is started, and its key: one sha256 over all that decides it, so that none is started twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes

if TYPE_CHECKING:
    from graftline.images import Images
    from graftline.pipelines.compile import CompiledPipeline

SHORT = 16
"""Characters of the key that names and labels carry."""
_NO_PART = ("run_key", "version", "data_digest", "repository", "revision", "reason")
"""Parameters that are no part of the key's `parameters`: the key itself, what it holds by its own name, where the
data's bytes came from (the digest says what they are: a commit that changes nothing is no reason to run), and why."""


def run_name(task: str, key: str) -> str:
    """Return the run's name in Kubeflow, a valid Kubernetes label as well: the task and the start of the key."""
    return f"{task[: 62 - SHORT]}-{key[:SHORT]}"


@dataclass(frozen=True)
class Work:
    """What a run does: everything but when and why."""

    task: str
    pipeline: str
    """Name of the Kubeflow pipeline."""
    version: str
    """Name of its version, by content."""
    parameters: Mapping[str, str]
    """Of the pipeline, without those that each run has its own of."""
    images: Mapping[str, str]
    data_digest: str
    """Of raw data and contract (task_data.py)."""
    revision: str
    """The commit that last changed the data's pointer, its contract or its remotes: where the data comes from."""
    spec: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """`pipelineSpec` and `platformSpec`, for a backend that does not have the version yet."""

    def run_key(self, slot: str) -> str:
        """Return the key of a run of this in `slot`, 64 hex characters, over all that decides it."""
        given = {name: value for name, value in self.parameters.items() if name not in _NO_PART}
        decides = {
            "version": self.version,
            "parameters": given,
            "data": self.data_digest,
            "images": dict(self.images),
            "slot": slot,
        }
        return sha256_bytes(canonical_json(decides))


def work_of(pipeline: CompiledPipeline, images: Images, *, data_digest: str, revision: str) -> Work:
    """Return the work of a pipeline that was compiled with these images, on a revision of its data."""
    return Work(
        pipeline.task,
        pipeline.pipeline,
        pipeline.version,
        pipeline.parameters,
        images.model_dump(),
        data_digest,
        revision,
        pipeline.spec,
    )


@dataclass(frozen=True)
class Run:
    """A run that is to be started."""

    work: Work
    slot: str
    """Why once more: the schedule's time (ISO 8601, UTC), `commit:<sha>` or `manual:<uuid>`."""
    reason: Mapping[str, Any] = field(hash=False)
    """Why it is started, for its record in the store."""

    @property
    def key(self) -> str:
        return self.work.run_key(self.slot)

    @property
    def name(self) -> str:
        """The run's name in the backend."""
        return run_name(self.work.task, self.key)

    @property
    def parameters(self) -> dict[str, str]:
        """All of the pipeline's parameters."""
        own = {
            "revision": self.work.revision,
            "data_digest": self.work.data_digest,
            "run_key": self.key,
            "reason": json.dumps(dict(self.reason), sort_keys=True),
        }
        return dict(self.work.parameters) | own
