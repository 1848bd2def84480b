"""Give a component's training run its place to write: progress, metrics file and checkpoints."""

from __future__ import annotations

from graftline import environment
from graftline.canonical import canonical_json
from graftline.component import Context
from graftline.digests import sha256_bytes
from graftline.training.checkpoint import Checkpoints
from graftline.training.loop import Desk


def open_desk(context: Context, batch: int) -> Desk:
    """Return the desk of this run; call it when all parameter sections were read, for they are its identity."""
    identity = {
        "component": context.component.name,
        "parameters": context.draft.parameters,
        "inputs": {name: record.content for name, record in context.records.items()},
        "environment": context.draft.environment,
        "code": environment.code_revision(),
    }
    checkpoints = Checkpoints(
        context.work / "checkpoints", sha256_bytes(canonical_json(identity)), context.checkpoint_seconds
    )
    name = f"{context.component.name} {context.task}"
    return Desk(name, context.work / "metrics.jsonl", checkpoints, batch)
