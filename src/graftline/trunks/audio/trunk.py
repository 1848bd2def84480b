"""Trunks of sound: transformers' own HuBERT or wav2vec 2.0, in its own layout, so that they open without Graftline.

trunk.json                      kind "audio", the samples a second, the objective's parameters
config.json model.safetensors   AutoModel.from_pretrained(folder); with a head AutoModelForAudioClassification or ForCTC
preprocessor_config.json        AutoFeatureExtractor.from_pretrained(folder)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from graftline.learning.device import send
from graftline.trunks.audio.parameters import HubertParams
from graftline.trunks.layout import quiet
from graftline.values.clip_decoding import FULL

if TYPE_CHECKING:
    from transformers import HubertConfig, PreTrainedConfig, PreTrainedModel

KIND = "audio"
NARROW_ON_CPU = False
"""Whether the arithmetic `auto` narrows on a CPU that can: convolutions in bfloat16 take longer there."""
_LOWEST = 80.0
"""Hertz of the lowest filter."""
_FLOOR = 1e-7
"""What transformers' feature extractor adds to a clip's variance."""
WITHOUT_CHANCE: dict[str, Any] = {
    "layerdrop": 0.0, "apply_spec_augment": False, "hidden_dropout": 0.0, "activation_dropout": 0.0,
    "attention_dropout": 0.0, "feat_proj_dropout": 0.0, "feat_quantizer_dropout": 0.0, "final_dropout": 0.0,
}  # fmt: skip
"""Everything by which such models draw in training: what a step draws must be a pure function of (seed, step)."""


def build_config(params: HubertParams) -> HubertConfig:
    """Return transformers' configuration of the shape."""
    from transformers import HubertConfig

    layers = len(params.kernels)
    # Norms a layer and a frame (not over a clip's time): padding beside a clip then changes nothing in it.
    return HubertConfig(
        hidden_size=params.width, num_hidden_layers=params.layers, num_attention_heads=params.heads,
        intermediate_size=params.hidden, conv_dim=(params.channels,) * layers, conv_kernel=params.kernels,
        conv_stride=params.strides, conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True,
        num_conv_pos_embeddings=params.neighbours, num_conv_pos_embedding_groups=16,
        classifier_proj_size=params.width, mask_time_prob=0.0, **WITHOUT_CHANCE,
    )  # fmt: skip


def new_network(params: HubertParams, rate: int) -> PreTrainedModel:
    """Return an untrained model for clips of a rate; its weights are drawn from torch's global generator."""
    from transformers import HubertModel

    quiet()
    network = HubertModel(build_config(params))
    network.set_attn_implementation("sdpa")
    start_filters(network, rate)
    return network


@torch.no_grad()
def start_filters(network: Any, rate: int) -> None:
    """Have a model's convolutions begin as those of a spectrogram, in place of noise.

    The first is a cosine and a sine of each of some frequencies, even on the mel scale, under a Hann window, as in LEAF
    (Zeghidour et al., 2021, arXiv:2101.08596), louder in proportion to it, as speech is more silent; each later one
    mixes its channels at random, and is smooth in time.
    """
    first, *later = (layer.conv for layer in network.feature_extractor.conv_layers)
    channels, _, size = first.weight.shape
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (_LOWEST, 0.95 * rate / 2))
    hertz = 700 * (10 ** (torch.linspace(low, high, -(-channels // 2)) / 2595) - 1)
    angles = 2 * math.pi * hertz[:, None] * (torch.arange(size) - (size - 1) / 2) / rate
    waves = torch.cat([angles.cos(), angles.sin()])[:channels] * _window(size)
    gain = torch.cat([hertz, hertz])[:channels, None] / 1000
    first.weight.copy_((gain * waves / waves.norm(dim=1, keepdim=True))[:, None])
    for convolution in later:
        outputs, given, size = convolution.weight.shape
        mixed = torch.randn(outputs, given) / math.sqrt(given)
        smooth = _window(size)
        convolution.weight.copy_(mixed[:, :, None] * (smooth / smooth.norm()))


def _window(size: int) -> torch.Tensor:
    """Return (size,): Hann's, of which no end is 0."""
    return torch.hann_window(size + 2, periodic=False)[1:-1]


def save_network(network: PreTrainedModel, rate: int, folder: Path) -> None:
    """Write a trunk, or one with a head on it: config.json, model.safetensors and preprocessor_config.json."""
    network.save_pretrained(folder, safe_serialization=True, max_shard_size="1TB")
    save_processor(network.config, rate, folder)


def save_processor(config: PreTrainedConfig, rate: int, folder: Path) -> None:
    """Write what makes a model's input of a clip; transformers' own class reads it."""
    from transformers import Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor(
        sampling_rate=rate, do_normalize=True, return_attention_mask=not pads_count(config)
    ).save_pretrained(folder)


def pads_count(config: PreTrainedConfig) -> bool:
    """Return whether the zeros beside a clip in a batch change what the model makes of it: then ask clip by clip."""
    return bool(config.feat_extract_norm == "group")


def frame_samples(config: PreTrainedConfig) -> int:
    """Return the samples that a frame moves on by."""
    return math.prod(config.conv_stride)


def seen_samples(config: PreTrainedConfig) -> int:
    """Return the samples that a frame sees."""
    seen = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        seen = (seen - 1) * stride + kernel
    return seen


def frames_of(config: PreTrainedConfig, samples: np.ndarray) -> np.ndarray:
    """Return (n,) int64: how many frames clips of (n,) samples have; 0 of those that are too short for one."""
    found = samples.astype(np.int64)
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        found = (found - kernel) // stride + 1
    return np.maximum(found, 0)


def inputs(clips: Sequence[np.ndarray], config: PreTrainedConfig, to: torch.device) -> dict[str, torch.Tensor]:
    """Return what a model takes of clips, each of (samples,) int16: `input_values`, (n, longest) float32, each clip at
    mean 0 and deviation 1, zeros behind, and `attention_mask`, (n, longest) int64.

    A clip that is too short for one frame gets zeros up to one.
    """
    least = seen_samples(config)
    waves = torch.zeros(len(clips), max(least, *(len(clip) for clip in clips)))
    seen = torch.zeros(waves.shape, dtype=torch.int64)
    for place, clip in enumerate(clips):
        values = clip.astype(np.float64) / FULL  # from -1 to 1, as the extractor gets them
        scaled = (values - values.mean()) / np.sqrt(values.var() + _FLOOR) if len(values) else values
        waves[place, : len(values)] = torch.from_numpy(scaled.astype(np.float32))
        seen[place, : max(least, len(values))] = 1
    return {"input_values": send(waves, to), "attention_mask": send(seen, to)}


class AudioTrunk(nn.Module):
    """Waveforms to (n, frames, width) vectors, some of whose frames can be hidden."""

    def __init__(self, network: PreTrainedModel, rate: int) -> None:
        super().__init__()
        self.network: Any = network
        self.rate = rate

    @property
    def config(self) -> PreTrainedConfig:
        config: PreTrainedConfig = self.network.config
        return config

    def forward(
        self, input_values: torch.Tensor, frames: torch.Tensor, hidden: torch.Tensor, instead: torch.Tensor
    ) -> torch.Tensor:
        """Return (n, frames, width): what the model makes of clips with some frames hidden.

        Args:
            input_values: (n, samples), as `inputs` returns them.
            frames: (n,) int64, how many frames each clip has.
            hidden: (n, frames) bool.
            instead: (width,) what stands in place of a hidden frame.
        """
        network = self.network
        features = network.feature_extractor(input_values).transpose(1, 2)
        projected = network.feature_projection(features)
        if isinstance(projected, tuple):  # wav2vec 2.0 gives the features too
            projected = projected[0]
        shown = torch.where(hidden[..., None], instead.to(projected.dtype), projected)
        seen = torch.arange(shown.shape[1], device=shown.device) < frames[:, None]
        whole: torch.Tensor = network.encoder(shown, attention_mask=None if seen.all() else seen).last_hidden_state
        return whole

    def save(self, folder: Path) -> None:
        save_network(self.network, self.rate, folder)
