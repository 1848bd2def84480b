"""The gradient of each unit of privacy, clipped, and their sum, out of one backward pass.

A layer's gradient is made of what went in and of the gradient of what came out. Hooks keep both, and torch computes no
gradient of weights of its own. Of matrices and tables the norm of a unit's gradient follows without the gradient, and
the clipped sum is one product more ("ghost clipping" and "book-keeping": Li et al., 2022, arXiv:2110.05679; Bu et al.,
2023, arXiv:2210.00038). All other layers' gradients are made row by row by opacus' rules, and two of our own. Norms
and sums are float32 whatever arithmetic the pass narrows to: rounded sums of all rows would move by more than one
row may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from graftline.errors import InputError
from graftline.learning.batch_norm import BatchNorm1d, BatchNorm2d
from graftline.learning.convolution import Conv2d
from graftline.processes import importing

Rule = Callable[[Any, torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]
"""Of a layer, (n, ...) inputs and (n, ...) gradients of the outputs: (n, ...) gradients by the parameters' names."""
_SUMMED = (nn.Linear, nn.Embedding)
_FROZEN = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNorm1d, BatchNorm2d)
"""Their statistics would mix a batch's rows: they stay as they are."""
_TINY = 1e-12


def _layer_norm(layer: nn.LayerNorm, inputs: torch.Tensor, gradients: torch.Tensor) -> dict[str, torch.Tensor]:
    """As opacus' rule, but of layers without a bias too, such as ModernBERT's."""
    normal = nn.functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    axes = list(range(1, inputs.ndim - len(layer.normalized_shape)))
    return {"weight": _sum(normal * gradients, axes), "bias": _sum(gradients, axes)}


def _batch_norm(layer: Any, inputs: torch.Tensor, gradients: torch.Tensor) -> dict[str, torch.Tensor]:
    """With statistics that stay: each channel is shifted and scaled."""
    shape, axes = [1, -1, *(1 for _ in inputs.shape[2:])], list(range(2, inputs.ndim))
    normal = (inputs - layer.running_mean.view(shape)) * (layer.running_var.view(shape) + layer.eps).rsqrt()
    return {"weight": _sum(normal * gradients, axes), "bias": _sum(gradients, axes)}


def _sum(values: torch.Tensor, axes: list[int]) -> torch.Tensor:
    return values.sum(axes) if axes else values


def _rule(layer: nn.Module) -> Rule | None:
    """Return how a layer's gradients are made row by row; None if nobody knows."""
    if isinstance(layer, _FROZEN):
        return _batch_norm
    if type(layer) is nn.LayerNorm:
        return _layer_norm
    with importing():
        from opacus.grad_sample import GradSampleModule
    kind: type[nn.Module] = nn.Conv2d if isinstance(layer, Conv2d) else type(layer)
    known = GradSampleModule.GRAD_SAMPLERS.get(kind)
    if known is None:
        return None

    def made(layer: nn.Module, inputs: torch.Tensor, gradients: torch.Tensor) -> dict[str, torch.Tensor]:
        named = {parameter: name for name, parameter in layer.named_parameters(recurse=False)}
        for parameter in named:  # the rules pass over what is not trained
            parameter.requires_grad_(True)
        own, layer.__class__ = type(layer), kind  # the rules go by the exact class
        try:
            # in torch's usual order: opacus takes windows of a convolution by strides, of which it knows these alone
            each = known(layer, [inputs.contiguous()], gradients.contiguous())
            found = {named[parameter]: of for parameter, of in each.items()}
        finally:
            layer.__class__ = own
        for parameter in named:
            parameter.requires_grad_(False)
        return found

    return made


class _Rows:
    """Which rows of a pass are of one unit, and what each row's gradient is multiplied by."""

    def __init__(self, numbers: torch.Tensor, scale: torch.Tensor) -> None:
        self.numbers, self._scale = numbers, scale
        """(n,) the number of each row's unit, and its factor."""
        units, self._place, sizes = numbers.unique(return_inverse=True, return_counts=True)
        self._most = int(sizes.max())
        alone = self._most == 1
        self.units = numbers if alone else units
        """(p,) the units that have rows here: as the rows come where each is its own."""
        self.factors = scale if alone else torch.ones(len(units), device=scale.device)
        """(p,) what a unit's gradient is still to be multiplied by, once its rows are together."""
        if alone:
            return
        self._order = self._place.argsort(stable=True)
        first = (sizes.cumsum(0) - sizes)[self._place[self._order]]
        self._slot = torch.arange(len(numbers), device=numbers.device) - first

    def __len__(self) -> int:
        return len(self.numbers)

    def scaled(self, values: torch.Tensor) -> torch.Tensor:
        """Return (n, ...) values, each row's times its factor."""
        return values * self._scale.view(-1, *(1 for _ in values.shape[1:]))

    def together(self, inputs: torch.Tensor, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (p, parts, width) of (n, ..., width) each: a unit's rows as one, with zeros behind shorter ones.

        Where each row is a unit, these are views.
        """
        if self._most == 1:
            return _flat(inputs), _flat(gradients)
        return self._table(inputs), self._table(self.scaled(gradients))

    def _table(self, values: torch.Tensor) -> torch.Tensor:
        flat = _flat(values)[self._order]
        table = flat.new_zeros(len(self.units), self._most, *flat.shape[1:])
        table[self._place[self._order], self._slot] = flat
        return table.flatten(1, 2)

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Return (p, ...): the sums over each unit's rows of (n, ...)."""
        if self._most == 1:
            return values
        values = self.scaled(values)
        return values.new_zeros(len(self.units), *values.shape[1:]).index_add_(0, self._place, values)


def _flat(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(len(values), -1, values.shape[-1])


@dataclass
class _Kept:
    """What one layer saw in one pass."""

    layer: nn.Module
    inputs: torch.Tensor
    rows: _Rows
    gradients: torch.Tensor | None = None

    def of_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (n, ...) inputs and (n, ...) gradients of the outputs, in float32."""
        assert self.gradients is not None
        return self.inputs.float() if self.inputs.is_floating_point() else self.inputs, self.gradients.float()


class UnitGradients:
    """Between passes and an optimizer's step: leaves the clipped sum over units in the parameters' `grad`."""

    def __init__(self, model: nn.Module, where: str = "finetune.privacy") -> None:
        """Hook onto the layers of a model that are trained; torch computes their gradients no more.

        Raises:
            InputError: a trained layer is of a kind whose gradients nobody knows row by row, or two layers share one.
        """
        self._kept: list[_Kept] = []
        self._now: _Rows | None = None
        self._rules: dict[nn.Module, Rule] = {}
        self._where, self._seen = where, set[nn.Module]()
        self.frozen = [layer for layer in model.modules() if isinstance(layer, _FROZEN)]
        """Layers that must stay in evaluation mode."""
        self._names: dict[nn.Module, str] = {}
        self._trained = {layer: trained for layer in model.modules() if (trained := _trained(layer))}
        self.parameters = [parameter for trained in self._trained.values() for parameter in trained.values()]
        if len({id(parameter) for parameter in self.parameters}) < len(self.parameters):
            raise self._unsuited("two layers share a parameter")
        for name, layer in model.named_modules():
            if layer not in self._trained:
                continue
            if type(layer) not in _SUMMED:
                rule = _rule(layer)
                if rule is None:
                    raise self._unsuited(f"{name} is of the kind {type(layer).__name__}")
                self._rules[layer] = rule
            self._names[layer] = name
            layer.register_forward_pre_hook(self._spread)
            layer.register_forward_hook(self._keep)
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def _unsuited(self, found: str) -> InputError:
        return InputError(
            self._where, f"{found}: its gradient is not known row by row",
            expected="a trunk of linear layers, convolutions, tables and norms",
            fix="set finetune.freeze_trunk, or on text head.lora, so that the trunk's other layers stay as they are",
        )  # fmt: skip

    @contextmanager
    def rows(self, units: torch.Tensor, scale: torch.Tensor) -> Iterator[None]:
        """Within, what the model computes is of rows of the (n,) units.

        `scale` (n,) is what the gradient of each row's share of the pass's loss is multiplied by.
        """
        device = self.parameters[0].device
        self._now, self._seen = _Rows(units.to(device), scale.to(device)), set()
        try:
            yield
        finally:
            self._now = None

    def _spread(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Give each row a table's index of its own where one stands for all, as BERT's positions."""
        if self._now is not None and isinstance(layer, nn.Embedding) and len(inputs[0]) == 1:
            return (inputs[0].expand(len(self._now), *inputs[0].shape[1:]),)
        return None

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        if self._now is None:
            return
        if len(inputs[0]) != len(self._now):
            raise self._unsuited(f"{self._names[layer]} sees {len(inputs[0])} parts of {len(self._now)} rows")
        if layer in self._seen:
            raise self._unsuited(f"{self._names[layer]} is used twice on the way")
        self._seen.add(layer)
        kept = _Kept(layer, inputs[0].detach(), self._now)
        if not output.requires_grad:
            output.requires_grad_(True)
        output.register_hook(lambda gradients: setattr(kept, "gradients", gradients))
        self._kept.append(kept)

    @torch.no_grad()
    def clip(self, count: int, most: float) -> torch.Tensor:
        """Set each parameter's `grad` to the sum over units of gradients of norm `most` at most.

        Args:
            count: of units in the batch; theirs are numbered from 0.
            most: the largest norm of a unit's gradient, over all parameters.

        Returns:
            (count,) the norms before.
        """
        device = self.parameters[0].device
        squares = torch.zeros(count, device=device)
        parts = [part for kept in self._kept for part in self._parts(kept)]
        self._kept = []
        for part in parts:
            squares.index_add_(0, part.units, part.squares() * part.factors.square())
        norms = squares.sqrt()
        weights = (most / (norms + _TINY)).clamp(max=1.0)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        for part in parts:
            assert part.parameter.grad is not None
            part.parameter.grad += part.total(weights[part.units] * part.factors).view_as(part.parameter)
        return norms

    def _parts(self, kept: _Kept) -> Iterator[_Part]:
        if kept.gradients is None:
            return
        inputs, gradients = kept.of_rows()
        trained, rows = self._trained[kept.layer], kept.rows
        if type(kept.layer) is nn.Embedding:
            yield _Table(trained["weight"], rows.numbers, inputs, rows.scaled(gradients), kept.layer.padding_idx)
            return
        if type(kept.layer) is nn.Linear:
            inputs, gradients = rows.together(inputs, gradients)
            if "weight" in trained:
                yield _matrix(trained["weight"], rows, inputs, gradients)
            if "bias" in trained:
                yield _Whole(trained["bias"], rows.units, rows.factors, gradients.sum(1))
            return
        of = self._rules[kept.layer](kept.layer, inputs, gradients)
        for name, parameter in trained.items():
            yield _Whole(parameter, rows.units, rows.factors, rows.summed(of[name]))


def _trained(layer: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in layer.named_parameters(recurse=False) if parameter.requires_grad}


class _Part(Protocol):
    """What one parameter's gradient is of the units that have rows in a pass."""

    parameter: nn.Parameter
    units: torch.Tensor
    """(p,) their numbers, some more than once."""
    factors: torch.Tensor
    """(p,) what each gradient is still to be multiplied by."""

    def squares(self) -> torch.Tensor:
        """Return (p,): the squared norms, or addends of them."""

    def total(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the sum of the gradients, each times its (p,) weight."""


@dataclass
class _Whole:
    """Gradients as they are, (p, ...)."""

    parameter: nn.Parameter
    units: torch.Tensor
    factors: torch.Tensor
    values: torch.Tensor

    def squares(self) -> torch.Tensor:
        return self.values.flatten(1).square().sum(1)

    def total(self, weights: torch.Tensor) -> torch.Tensor:
        return weights @ self.values.flatten(1)


@dataclass
class _Matrix:
    """Of a matrix, as what they are products of: (p, parts, in) inputs, (p, parts, out) gradients of the outputs."""

    parameter: nn.Parameter
    units: torch.Tensor
    factors: torch.Tensor
    inputs: torch.Tensor
    gradients: torch.Tensor

    def squares(self) -> torch.Tensor:
        products = [values @ values.transpose(1, 2) for values in (self.inputs, self.gradients)]
        return (products[0] * products[1]).sum((1, 2)).clamp(min=0)

    def total(self, weights: torch.Tensor) -> torch.Tensor:
        return (self.gradients * weights[:, None, None]).flatten(0, 1).T @ self.inputs.flatten(0, 1)


def _matrix(parameter: nn.Parameter, rows: _Rows, inputs: torch.Tensor, gradients: torch.Tensor) -> _Part:
    """Return the form in which norms take the least work: with many parts to a unit, the gradients as they are."""
    if 2 * inputs.shape[1] ** 2 > parameter.numel():
        return _Whole(parameter, rows.units, rows.factors, gradients.transpose(1, 2) @ inputs)
    return _Matrix(parameter, rows.units, rows.factors, inputs, gradients)


class _Table:
    """Of a table of vectors: a line each for the indices that a unit has."""

    def __init__(
        self,
        parameter: nn.Parameter,
        units: torch.Tensor,
        indices: torch.Tensor,
        gradients: torch.Tensor,
        padding: int | None,
    ) -> None:
        flat = gradients.flatten(0, -2)
        if padding is not None:  # which no step moves
            flat = flat.masked_fill((indices == padding).flatten()[:, None], 0.0)
        keys = (units.view(-1, *(1 for _ in indices.shape[1:])) * len(parameter) + indices).flatten()
        found, place = keys.unique(return_inverse=True)
        self.parameter, self.units, self._indices = parameter, found // len(parameter), found % len(parameter)
        self.factors = torch.ones(len(found), device=flat.device)
        self._lines = flat.new_zeros(len(found), flat.shape[1]).index_add_(0, place, flat)

    def squares(self) -> torch.Tensor:
        return self._lines.square().sum(1)

    def total(self, weights: torch.Tensor) -> torch.Tensor:
        lines = self._lines * weights[:, None]
        return torch.zeros_like(self.parameter).index_add_(0, self._indices, lines)
