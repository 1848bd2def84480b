"""A run's module on the processes of a job: whole on each (DDP), or in shards (fully_shard)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from graftline.errors import InputError
from graftline.learning.distributed import World, total, world


class Spread:
    """The loss to step with: after its `backward`, every process has the gradient of the whole batch."""

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[int], torch.Tensor],
        optimizers: list[torch.optim.Optimizer],
        team: World,
        *,
        addends: bool,
        shard: bool,
    ) -> None:
        """Spread `module` over the processes.

        Args:
            module: what is trained, the same in every process; with `shard` its parameters become shards.
            loss: of a step, computed with `module`.
            optimizers: of the module's parameters, with the state to go on from.
            team: the processes.
            addends: the processes' losses add up to the loss, rather than each being it.
            shard: keep only a part of weights, gradients and optimiser state in each process.

        Raises:
            InputError: an optimizer cannot work on shards.
        """
        self.sharded = shard and team.size > 1
        self._module = module
        # DDP and fully_shard average the gradients: the factor makes that a sum.
        self._factor = team.size if addends else 1
        around = _Loss(module, loss, self._factor)
        self._call: nn.Module = around
        if self.sharded:
            self._plain = _plain_parts(module)
            _shard(around, optimizers, team)
        elif team.size > 1:
            # The search for unused parameters also keeps the buckets as they were at the first step: a resumed run
            # adds up in the same order as an unbroken one.
            self._call = nn.parallel.DistributedDataParallel(
                around, find_unused_parameters=True, gradient_as_bucket_view=True
            )

    def __call__(self, step: int) -> torch.Tensor:
        """Return this process's loss, times the factor that its gradient needs."""
        value: torch.Tensor = self._call(step)
        return value

    def value(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss of the whole batch, given what a call returned."""
        return loss.detach() if self._factor == 1 else total(loss.detach() / self._factor)

    def gather(self) -> None:
        """Make the module whole again, on the leader's CPU; elsewhere leave it empty."""
        if not self.sharded:
            return
        wholes = {
            id(p): nn.Parameter(whole(p.detach()), requires_grad=p.requires_grad) for p in self._module.parameters()
        }
        for part in self._module.modules():
            for name, shard in list(part._parameters.items()):
                if shard is not None:
                    part._parameters[name] = wholes[id(shard)]
        _make_plain(self._module, self._plain)


class _Loss(nn.Module):
    """A run's loss as a module around the run's own: calling it is what DDP and fully_shard hook into."""

    def __init__(self, module: nn.Module, loss: Callable[[int], torch.Tensor], factor: int) -> None:
        super().__init__()
        self.module, self._loss, self._factor = module, loss, factor

    def forward(self, step: int) -> torch.Tensor:
        return self._loss(step) * self._factor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of which each process holds a shard, on the CPU of the leader, and nothing (0,) elsewhere.

    Any other tensor is returned as it is. All processes must call it.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    full: torch.Tensor = tensor.full_tensor()
    return full.cpu() if world().leads else torch.empty(0)


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the parts to gather and free one after the other, inner ones first: a Transformers model's layers."""
    names = {n for part in module.modules() for n in getattr(part, "_no_split_modules", None) or ()}
    places: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        places[id(parameter)] = places.get(id(parameter), 0) + 1

    def tied(part: nn.Module) -> bool:  # the other place would keep the parameter that this one gives up
        return any(places[id(parameter)] > 1 for parameter in part.parameters())

    return [p for p in reversed(list(module.modules())) if type(p).__name__ in names and not tied(p)]


def _shard(around: nn.Module, optimizers: list[torch.optim.Optimizer], team: World) -> None:
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
        for parameter, shard in zip(old, group["params"], strict=True):
            assert isinstance(shard, DTensor)
            for name, value in optimizer.state.pop(parameter, {}).items():
                if value.shape == parameter.shape and value.dim():
                    value = distribute_tensor(value, shard.device_mesh, shard.placements)
                optimizer.state[shard][name] = value


_Plain = list[tuple[nn.Module, type, dict[str, Any]]]


def _plain_parts(module: nn.Module) -> _Plain:
    """Note each part's class, hooks and attribute names: fully_shard changes them and offers no way back."""

    def hooks(value: Any) -> Any:
        return value.copy() if isinstance(value, dict) else None

    return [
        (part, type(part), {k: hooks(v) if "_hooks" in k else None for k, v in vars(part).items()})
        for part in module.modules()
    ]


def _make_plain(module: nn.Module, plain: _Plain) -> None:
    for part, kind, attributes in plain:
        part.__class__ = kind
        for name in set(vars(part)) - set(attributes):
            delattr(part, name)
        vars(part).update({name: hooks for name, hooks in attributes.items() if hooks is not None})
