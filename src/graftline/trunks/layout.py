"""What the families share that keep their trunks in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quiet() -> None:
    """Keep transformers' notes and progress bars out of the components' own output; its errors still raise."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def keeping_attention(network: PreTrainedModel) -> Iterator[None]:
    """Within, compute attention so that a model can give its weights, which the fused kernel does not keep."""
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)
