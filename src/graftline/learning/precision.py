"""The number format that matrices are multiplied in. Weights, sums and losses stay float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from graftline.learning.parameters import Precision


def arithmetic(precision: Precision) -> str:
    """Return `float32` or `bfloat16` for the parameter `precision` on this machine."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def autocast(dtype: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which matrices are multiplied in `dtype`."""
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
