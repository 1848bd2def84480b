"""A run's state as named tensors: weights, optimisers, watcher. What `restore` gets is what `capture` gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from graftline.learning.spread import whole

if TYPE_CHECKING:
    from graftline.learning.loop import Run


def capture(run: Run) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return tensors and facts; with shards, all processes must call it, and get whole tensors."""
    weights, twins = run.module.state_dict(), _twins(run.module)
    tensors = {f"model.{name}": whole(weights[name]) for name in weights if name not in twins}
    for index, optimizer in enumerate(run.optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{index}.{number}.{name}"] = whole(torch.as_tensor(value))
    watched, facts = run.watcher.state()
    return tensors | {f"watcher.{name}": tensor for name, tensor in watched.items()}, facts


def restore(run: Run, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Put what `capture` returned into a run that was made in the same way."""
    weights = _part(tensors, "model.")
    weights |= {name: weights[first] for name, first in _twins(run.module).items()}
    run.module.load_state_dict(weights)
    for index, optimizer in enumerate(run.optimizers):
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _part(tensors, f"optimizer.{index}.").items():
            number, key = name.split(".", 1)
            states.setdefault(int(number), {})[key] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": states, "param_groups": groups})
    run.watcher.restore(_part(tensors, "watcher."), facts)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _twins(module: nn.Module) -> dict[str, str]:
    """Return, for each further name of a tied parameter, its first one: safetensors stores a tensor once."""
    first: dict[int, str] = {}
    pairs = module.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in pairs if first.setdefault(id(p), name) != name}
