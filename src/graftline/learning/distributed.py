"""One run on several processes, as torchrun starts them: who does what, and what they tell one another.

    torchrun --nproc-per-node 2 -m graftline.components.pretrain --params ... --out-trunk ...

All processes do the same steps on the same weights; each computes its share of a step's rows, and the gradients are
added up (DistributedDataParallel: Li et al., 2020, arXiv:2006.15704; or fully_shard: Zhao et al., 2023,
arXiv:2304.11277). The first process, the leader, alone writes metrics, checkpoints and outputs; the others end when
training ends. Processes talk by gloo on CPUs, and by NCCL for what lies on GPUs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from graftline.errors import InputError, LostPeerError
from graftline.learning.checkpoint import Checkpoint
from graftline.learning.rendezvous import own_part

if TYPE_CHECKING:
    import torch


_SETTLE_SECONDS = 0.1
Items = TypeVar("Items", bound="Sequence[object] | torch.Tensor")


@dataclass(frozen=True)
class World:
    """The processes of a job, and which of them this one is."""

    rank: int = 0
    """From 0; on all machines."""
    size: int = 1
    local_rank: int = 0
    """From 0 on each machine: the number of the GPU to use."""
    local_size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0


def world() -> World:
    """Return the world that torchrun's environment describes; one process without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return World()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return World(*(int(os.environ[name]) for name in names))


def share(items: Items, part: World) -> Items:
    """Return what this process computes of a step's rows: every `size`-th one, from its rank.

    The rows of a step are the same however many processes there are; random draws must be made for all of them, and
    then shared out in the same way.

    Raises:
        InputError: there are fewer rows than processes.
    """
    if len(items) < part.size:
        raise InputError(
            "torchrun",
            f"{part.size} processes for a batch of {len(items)}",
            expected="at least one row for each",
            fix="start fewer processes, or give a larger batch",
        )
    return items[part.rank :: part.size]  # type: ignore[return-value]


def start() -> World:
    """Meet the other processes, once; return the world."""
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    from graftline.learning.device import count, device

    here = world()
    if here.size > 1 and not dist.is_initialized():
        on_gpu = device().type == "cuda"
        if on_gpu and here.local_size > count():
            raise InputError(
                "torchrun",
                f"{here.local_size} processes on a machine with {count()} GPUs",
                expected="a GPU for each",
                fix=f"start {count()}",
            )
        store, rank, size = next(rendezvous("env://"))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=own_part(store, rank, size), rank=rank, world_size=size
        )
    return here


def leave() -> None:
    """Part when training is done. The leader goes on to write the output; the other processes end here, with code 0."""
    here = world()
    if here.size == 1:
        return
    import torch.distributed as dist

    dist.barrier()
    # gloo's threads want Python's lock to drop the last tensors; the next call keeps it while it waits for them
    time.sleep(_SETTLE_SECONDS)
    dist.destroy_process_group()
    if not here.leads:
        raise SystemExit(0)


@contextmanager
def leader_first() -> Iterator[None]:
    """Let the leader do something, then the others: they find the files that it made."""
    here = start()
    if not here.leads:
        barrier()
    yield
    if here.leads:
        barrier()


def barrier() -> None:
    """Wait until all processes are here."""
    if world().size > 1:
        import torch.distributed as dist

        dist.barrier()


def any_of(*flags: bool) -> list[bool]:
    """Return each flag as true if it is true in any process: all then do the same."""
    if world().size == 1:
        return list(flags)
    import torch
    import torch.distributed as dist

    votes = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return [bool(vote) for vote in votes]


def total(addend: torch.Tensor) -> torch.Tensor:
    """Return the sum of the processes' addends."""
    if world().size > 1:
        import torch.distributed as dist

        dist.all_reduce(addend)
    return addend


def from_leader(checkpoint: Checkpoint | None) -> Checkpoint | None:
    """Return the leader's checkpoint in every process; the others' machines may not have its folder."""
    if world().size == 1:
        return checkpoint
    import torch

    tensors = checkpoint.tensors if checkpoint else {}
    head = None
    if checkpoint:
        kinds = {n: [str(t.dtype).removeprefix("torch."), list(t.shape)] for n, t in tensors.items()}
        head = {"step": checkpoint.step, "facts": checkpoint.facts, "tensors": kinds}
    head = json.loads(_bytes_from_leader(json.dumps(head).encode()))
    if head is None:
        return None
    for name, (kind, shape) in head["tensors"].items():
        if not world().leads:
            tensors[name] = torch.empty(shape, dtype=getattr(torch, kind))
        _broadcast(tensors[name])
    return Checkpoint(head["step"], tensors, head["facts"])


def _bytes_from_leader(data: bytes) -> bytes:
    import torch

    size = torch.tensor(len(data))
    _broadcast(size)
    buffer = torch.zeros(int(size), dtype=torch.uint8)
    if world().leads:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    _broadcast(buffer)
    return buffer.numpy().tobytes()


def _broadcast(tensor: torch.Tensor) -> None:
    import torch
    import torch.distributed as dist

    # as bytes: not every backend knows every dtype
    dist.broadcast(tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor, src=0)


@contextmanager
def told_of_lost_peers() -> Iterator[None]:
    """Turn the error of a call that waits for a process which has died into one line."""
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        if world().size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise LostPeerError("another process of the job has ended; start the job again") from None
