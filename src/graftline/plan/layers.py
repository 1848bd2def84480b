"""Large text trunks: measured with one layer and with two, and extended to all of them.

A trunk's layers are alike, so that all a step takes is a straight line in their number: weights, operations, memory,
and time to the accuracy of a plan. A machine that could never hold the model can still plan it.
"""

from __future__ import annotations

from graftline.plan.measure import Measured
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks.parameters import TrunkParams

MOST_PARAMETERS = 50e6
"""Layers with more weights than this in all are not tried whole: a step of them takes seconds on a few cores."""


def is_large(params: PretrainParams) -> bool:
    """Return whether the largest trunk is to be measured by its layers."""
    return any(trunk.layer_weights > MOST_PARAMETERS for trunk in _trunks(params).values())


def with_layers(params: PretrainParams, layers: int) -> PretrainParams:
    """Return the same parameters with trunks of so many layers."""
    sizes = {
        name: size.model_copy(update={"trunk": size.trunk.with_layers(layers)}) for name, size in params.sizes.items()
    }
    return params.model_copy(update={"trunk": params.trunk.with_layers(layers), "sizes": sizes})


def layers_of(params: PretrainParams, name: str) -> int:
    """Return the layers of the trunk of that name in `sizes`, or of the main one for an empty name."""
    return _trunks(params)[name].layer_count


def extend(one: Measured, two: Measured, layers: int) -> Measured:
    """Return what a step of `layers` layers takes, from steps of one and of two."""

    def line(first: float, second: float) -> float:
        return first + (layers - 1) * max(0.0, second - first)

    return Measured(
        parameters=round(line(one.parameters, two.parameters)),
        trained=round(line(one.trained, two.trained)),
        examples=one.examples,
        tokens=one.tokens,
        seconds=line(one.seconds, two.seconds),
        share=min(one.share, two.share),
        flops=line(one.flops, two.flops),
        state_bytes=round(line(one.state_bytes, two.state_bytes)),
        activation_bytes=round(line(one.activation_bytes, two.activation_bytes)),
    )


def _trunks(params: PretrainParams) -> dict[str, TrunkParams]:
    return {"": params.trunk, **{name: size.trunk for name, size in params.sizes.items()}}
