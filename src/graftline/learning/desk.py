"""Give a component's training run its place to write: progress, metrics file and checkpoints."""

from __future__ import annotations

from collections.abc import Callable

from graftline import environment
from graftline.canonical import canonical_json
from graftline.component import Context
from graftline.digests import sha256_bytes
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.distributed import world
from graftline.learning.loop import Desk
from graftline.learning.remote import METRICS, remote_checkpoints


def open_desk(context: Context, batch: int | Callable[[int], int], unit: str = "images", part: str = "") -> Desk:
    """Return the desk of this run; call it when all parameter sections were read, for they are its identity.

    `batch` is how many `unit`s a step has, or a function that counts those of a step (from 0). How many processes
    share the work is no part of the identity: a run may go on with more of them, or with fewer. `part` names one of
    several trainings in a component.
    """
    identity = {
        "component": context.component.name,
        "parameters": context.draft.parameters,
        "inputs": {name: record.content for name, record in context.records.items()},
        "environment": context.draft.environment,
        # the stage's own code, not the repository: an edit elsewhere does not throw hours of training away
        "code": environment.stage_code(context.component.name),
        "lock": environment.lock_digest(),
        "image": environment.image_digest(),
    }
    if part:
        identity["part"] = part
    digest = sha256_bytes(canonical_json(identity))
    # A folder of its own for each identity: a try with other threads leaves this run's checkpoints alone.
    folder = context.work / digest[:16]
    metrics = folder / METRICS
    remote = None
    if world().leads:  # it alone has checkpoints
        remote = remote_checkpoints(context.component.name, digest, metrics)
    if remote:
        context.when_whole.append(remote.forget)
    checkpoints = Checkpoints(folder / "checkpoints", digest, context.checkpoint_seconds, remote)
    return Desk(
        f"{context.component.name} {context.task} {part}".rstrip(),
        metrics,
        checkpoints,
        batch,
        unit,
        shard=context.shard,
        environment=context.draft.environment,
    )
