"""A module in shards: each process of a job keeps a part of its weights, gradients and optimiser state.

Apart from `spread`, which loads it where shards are asked for: its imports take a second.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from graftline.errors import InputError
from graftline.learning.distributed import World

Plain = list[tuple[nn.Module, type, dict[str, Any]]]


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the parts to gather and free one after the other, inner ones first: a Transformers model's layers."""
    names = {n for part in module.modules() for n in getattr(part, "_no_split_modules", None) or ()}
    places: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        places[id(parameter)] = places.get(id(parameter), 0) + 1

    def tied(part: nn.Module) -> bool:  # the other place would keep the parameter that this one gives up
        return any(places[id(parameter)] > 1 for parameter in part.parameters())

    return [p for p in reversed(list(module.modules())) if type(p).__name__ in names and not tied(p)]


def shard(around: nn.Module, optimizers: list[torch.optim.Optimizer], team: World) -> None:
    """Put the module's parameters, and the optimisers' state of them, in shards. Raises InputError: one cannot be."""
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.Muon):
            raise InputError(
                "--shard",
                "the optimizer Muon",
                expected="AdamW",
                fix="Muon needs whole matrices: take the other optimizer, or leave --shard out",
            )
    before = dict(around.named_parameters())
    mesh = init_device_mesh(next(iter(before.values())).device.type, (team.size,))
    for part in blocks(around):
        fully_shard(part, mesh=mesh)
    fully_shard(around, mesh=mesh)
    after = dict(around.named_parameters())
    shards = {id(parameter): after[name] for name, parameter in before.items()}
    for optimizer in optimizers:
        _hand_over(optimizer, shards)


def _hand_over(optimizer: torch.optim.Optimizer, shards: dict[int, nn.Parameter]) -> None:
    """Give the optimizer the shards of its parameters, and its state in shards as they are."""
    for group in optimizer.param_groups:
        old = list(group["params"])
        group["params"] = [shards[id(parameter)] for parameter in old]
        for parameter, part in zip(old, group["params"], strict=True):
            assert isinstance(part, DTensor)
            for name, value in optimizer.state.pop(parameter, {}).items():
                if value.shape == parameter.shape and value.dim():
                    value = distribute_tensor(value, part.device_mesh, part.placements)
                optimizer.state[part][name] = value


def plain_parts(module: nn.Module) -> Plain:
    """Note each part's class, hooks and attribute names: fully_shard changes them and offers no way back."""

    def hooks(value: Any) -> Any:
        return value.copy() if isinstance(value, dict) else None

    return [
        (part, type(part), {k: hooks(v) if "_hooks" in k else None for k, v in vars(part).items()})
        for part in module.modules()
    ]


def make_plain(plain: Plain) -> None:
    """Make a module's parts what they were when `plain_parts` was asked."""
    for part, kind, attributes in plain:
        part.__class__ = kind
        for name in set(vars(part)) - set(attributes):
            delattr(part, name)
        vars(part).update({name: hooks for name, hooks in attributes.items() if hooks is not None})
