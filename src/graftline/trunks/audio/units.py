"""What kind of sound a frame is: the nearest of some centres of log-mel spectra, which k-means finds.

HuBERT's first iteration clusters MFCCs; a log-mel spectrum holds the same, and is a product and a logarithm less.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

MELS = 40
_HERTZ = 60.0
"""Where the bands begin."""
_FLOOR = 1e-6
_ROUNDS = 20


@lru_cache(maxsize=4)
def mel_bands(rate: int, size: int) -> torch.Tensor:
    """Return (MELS, size // 2 + 1): triangles of equal width on the mel scale (O'Shaughnessy, 1987)."""
    low, high = (2595 * torch.log10(torch.tensor(1 + hertz / 700)) for hertz in (_HERTZ, rate / 2))
    edges = 700 * (10 ** (torch.linspace(float(low), float(high), MELS + 2) / 2595) - 1)
    hertz = torch.linspace(0, rate / 2, size // 2 + 1)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


def log_mel(waves: torch.Tensor, rate: int, step: int, seen: int, frames: int) -> torch.Tensor:
    """Return (n, frames, MELS) float32: the log-mel spectrum around the middle of what a model's frame sees.

    Args:
        waves: (n, samples).
        rate: samples a second.
        step: samples that a frame moves on by.
        seen: samples that a frame sees.
        frames: how many.
    """
    size = 1 << max(5, round(math.log2(2 * step)))  # the power of two that is next to two frames: windows overlap
    before = max(0, (size - seen) // 2)
    after = max(0, (frames - 1) * step + size - before - waves.shape[1])
    shifted = torch.nn.functional.pad(waves, (before, after))[:, max(0, (seen - size) // 2) :]
    missing = (frames - 1) * step + size - shifted.shape[1]
    shifted = torch.nn.functional.pad(shifted, (0, max(0, missing)))
    window = torch.hann_window(size, device=waves.device)
    spectrum = torch.stft(shifted, size, step, window=window, center=False, return_complex=True)[:, :, :frames]
    mels = mel_bands(rate, size).to(waves.device) @ spectrum.abs().square()
    return (mels / size + _FLOOR).log().transpose(1, 2)


def k_means(frames: torch.Tensor, clusters: int, draw: torch.Generator) -> torch.Tensor:
    """Return (clusters, MELS) centres of (n, MELS) frames: Lloyd's algorithm from frames that are drawn.

    With fewer frames than clusters, some centres are equal.
    """
    start = torch.randperm(len(frames), generator=draw)[:clusters]
    centres = frames[start[torch.arange(clusters) % len(start)]].clone()
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(centres).index_add_(0, nearest(frames, centres), frames)
        counts = torch.bincount(nearest(frames, centres), minlength=clusters)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres


def nearest(frames: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return (...,) int64: which centre each of (..., MELS) frames is nearest to."""
    distances = centres.square().sum(dim=1) - 2 * frames @ centres.T
    return distances.argmin(dim=-1)
