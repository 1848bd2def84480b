"""Methods of attribution: each gives the parts of an input numbers, the larger the more a part speaks for the answer.

    integrated gradients   M. Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017; by captum
    occlusion              M. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014
    attention roll-out     S. Abnar and W. Zuidema, "Quantifying attention flow in transformers", ACL 2020

The first two are in nats: of the answer's log-probability. A method takes what a problem explains and returns (n, most)
numbers, or in words why it does not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from graftline.explain.names import INTEGRATED_GRADIENTS, OCCLUSION, ROLLOUT
from graftline.problems.explained import Explained, Floats, Places, Sets

STEPS = 24
"""Points of the Gauss-Legendre quadrature along each line."""
CELLS = 20_000_000
"""Parts of examples, kept or hidden, that are in memory at once: 20 MB."""

Method = Callable[[Explained], Floats | str]


def integrated_gradients(explained: Explained) -> Floats:
    """Return each part's share in how much likelier the answer is, in nats, than where all parts are hidden."""
    from captum.attr import IntegratedGradients

    found = np.zeros((len(explained), explained.most))
    for line in explained.lines():
        made = IntegratedGradients(line.output).attribute(
            line.end, line.start, additional_forward_args=torch.arange(len(line.places)), n_steps=STEPS
        )
        found[line.places] = line.by_part(made.detach())
    return found


def completeness_gap(explained: Explained, found: Floats) -> Floats:
    """Return (n,): how far the sums of integrated gradients are from the differences that they share out, in nats."""
    places = np.arange(len(explained))
    full, empty = (explained.log_probabilities(places, kept) for kept in (explained.there, ~explained.there))
    gap: Floats = np.abs(np.where(explained.there, found, 0).sum(axis=1) - (full - empty))
    return gap


def occlusion(explained: Explained) -> Floats:
    """Return how much the answer's log-probability falls where a window is hidden, the mean of a part's windows."""
    found = np.zeros((len(explained), explained.most))
    whole = explained.log_probabilities(np.arange(len(explained)), explained.there)
    for places, hidden in _some(explained):
        drops = whole[places] - explained.log_probabilities(places, explained.there[places] & ~hidden)
        for place in np.unique(places):
            mine = places == place
            counts = np.maximum(hidden[mine].sum(axis=0), 1)
            found[place] = drops[mine] @ hidden[mine] / counts
    return found


def _some(explained: Explained) -> Iterator[tuple[Places, Sets]]:
    """Yield windows and their examples' places, those of some whole examples at a time."""
    places: list[Places] = []
    windows: list[Sets] = []
    size = 0
    for place in range(len(explained)):
        mine = explained.windows(place)
        if windows and (size + len(mine)) * explained.most > CELLS:
            yield np.concatenate(places), np.concatenate(windows)
            places, windows, size = [], [], 0
        places.append(np.full(len(mine), place))
        windows.append(mine)
        size += len(mine)
    yield np.concatenate(places), np.concatenate(windows)


def attention_rollout(explained: Explained) -> Floats | str:
    """Return how much of each part flows through all layers' attention into what the head reads; no answer is asked.

    Half of each layer is what goes past the attention, as in the paper.
    """
    all_ = explained.attention()
    if isinstance(all_, str):
        return all_
    found = np.zeros((len(explained), explained.most))
    for some in all_:
        flow = some.readers[:, None]  # (k, 1, tokens)
        for layer in reversed(some.layers):
            flow = (flow + flow @ layer) / 2
        found[some.places] = some.by_part(flow[:, 0])
    return found


METHODS: dict[str, Method] = {
    INTEGRATED_GRADIENTS: integrated_gradients,
    OCCLUSION: occlusion,
    ROLLOUT: attention_rollout,
}
