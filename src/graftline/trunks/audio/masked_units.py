"""Masked prediction of units: hide stretches of a clip, and tell from the rest what kind of sound is hidden.

HuBERT (Hsu et al., 2021, arXiv:2106.07447), the first of its iterations, on hidden frames only; and one layer tells the
units where there a cosine with a vector of each does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.trunks.audio.parameters import MaskedUnitsParams
from graftline.trunks.audio.trunk import AudioTrunk, frame_samples, frames_of, inputs, seen_samples
from graftline.trunks.audio.units import MELS, log_mel, nearest


class UnitHead(nn.Module):
    """What the objective learns besides the trunk, and the units' centres, which it does not."""

    centres: torch.Tensor
    """(clusters, MELS)."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.instead = nn.Parameter(torch.empty(width).uniform_())
        self.output = nn.Linear(width, clusters)
        self.register_buffer("centres", torch.zeros(clusters, MELS))


class MaskedUnits(nn.Module):
    """A trunk, asked for the units of what is hidden of clips."""

    def __init__(self, trunk: AudioTrunk, params: MaskedUnitsParams, dtype: str) -> None:
        super().__init__()
        self.trunk, self._params, self._dtype = trunk, params, dtype
        self.head = UnitHead(trunk.config.hidden_size, params.clusters)

    def pieces(self, clips: Sequence[np.ndarray], draw: torch.Generator) -> list[np.ndarray]:
        """Return (samples,) int16 of each clip, of those that are too long a piece."""
        longest = round(self._params.crop_seconds * self.trunk.rate)
        places = torch.rand(len(clips), generator=draw).tolist()
        starts = [int(place * max(0, len(clip) - longest + 1)) for place, clip in zip(places, clips, strict=True)]
        return [clip[start : start + longest] for start, clip in zip(starts, clips, strict=True)]

    def spectra(self, waves: torch.Tensor, frames: int) -> torch.Tensor:
        """Return (n, frames, MELS) of (n, samples) waveforms."""
        config = self.trunk.config
        return log_mel(waves, self.trunk.rate, frame_samples(config), seen_samples(config), frames)

    def loss(self, clips: Sequence[np.ndarray], seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean cross entropy of a hidden frame's unit, in nats, a scalar.

        Args:
            clips: (samples,) int16 of each.
            seed: decides, with `step`, what is seen of long clips and what is hidden.
            step: from 0.
            part: with it, this process's addend is returned.
        """
        here, place = part or World(), self.head.output.weight.device
        whole = self.pieces(clips, generator(seed, step, "crop"))
        counts = torch.from_numpy(frames_of(self.trunk.config, np.array([len(clip) for clip in whole])).clip(1))
        hidden = hide(counts, self._params, generator(seed, step, "mask"))
        total = int(hidden.sum())
        mine = share(range(len(whole)), here)
        waves = inputs([whole[n] for n in mine], self.trunk.config, place)["input_values"]
        frames = counts[list(mine)]
        width = int(frames_of(self.trunk.config, np.array([waves.shape[1]]))[0])
        asked = hidden[list(mine), :width].to(place)
        with torch.no_grad():
            units = nearest(self.spectra(waves, width)[asked], self.head.centres)
        with autocast(self._dtype, place):
            states = self.trunk(waves, frames.to(place), asked, self.head.instead)
            logits = self.head.output(states[asked])
        return nn.functional.cross_entropy(logits.float(), units, reduction="sum") / total


def hide(frames: torch.Tensor, params: MaskedUnitsParams, draw: torch.Generator) -> torch.Tensor:
    """Return (n, longest) bool: which of (n,) frames are hidden, of each clip at least one.

    Stretches begin anywhere, so often that the share `mask_ratio` is hidden on average, and may overlap.
    """
    longest = int(frames.max())
    begins = 1 - (1 - params.mask_ratio) ** (1 / params.span)
    starts = torch.rand(len(frames), longest + params.span - 1, generator=draw) < begins
    spread = nn.functional.max_pool1d(starts.float()[:, None], params.span, stride=1)[:, 0].bool()
    inside = torch.arange(longest) < frames[:, None]
    hidden = spread & inside
    any_place = (torch.rand(len(frames), generator=draw) * frames).long()
    none = ~hidden.any(dim=1)
    hidden[none, any_place[none]] = True
    return hidden
