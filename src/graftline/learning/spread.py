"""A run's module on the processes of a job: whole on each (DDP), or in shards (fully_shard)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

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
            from graftline.learning import shards

            self._plain = shards.plain_parts(module)
            shards.shard(around, optimizers, team)
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
        from graftline.learning import shards

        wholes = {
            id(p): nn.Parameter(whole(p.detach()), requires_grad=p.requires_grad) for p in self._module.parameters()
        }
        for part in self._module.modules():
            for name, shard in list(part._parameters.items()):
                if shard is not None:
                    part._parameters[name] = wholes[id(shard)]
        shards.make_plain(self._plain)


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
    if not hasattr(tensor, "full_tensor"):  # as a DTensor has, whose import takes a second
        return tensor
    full: torch.Tensor = tensor.full_tensor()
    return full.cpu() if world().leads else torch.empty(0)
