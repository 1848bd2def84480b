"""The number format that matrices are multiplied in. Weights, sums and losses stay float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from graftline.learning.device import device
from graftline.learning.parameters import Precision


def arithmetic(precision: Precision, *, narrow_on_cpu: bool = True) -> str:
    """Return `float32` or `bfloat16` for the parameter `precision` where this process computes.

    `narrow_on_cpu`: whether `auto` narrows on a CPU that can. It pays for large matrix products, not for small
    convolutions.
    """
    if precision != "auto":
        return precision
    if device().type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if not narrow_on_cpu:
        return "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def multiplies_tiles() -> bool:
    """Return whether this CPU multiplies bfloat16 in tiles (AMX), several times as fast as float32.

    AVX-512 alone has bfloat16 too, at no more products a second: without AMX oneDNN reached 80 GFLOP/s in bfloat16 and
    131 in float32, of products and convolutions large and small (Xeon with AVX512_BF16, one thread).
    """
    return bool(torch.cpu._is_amx_tile_supported())


def autocast(dtype: str, place: torch.device) -> AbstractContextManager[object]:
    """Return a context in which matrices are multiplied in `dtype`."""
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(place.type, dtype=torch.bfloat16)
