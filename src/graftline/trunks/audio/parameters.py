"""The parameters of trunks of sound and of what they learn from; without torch, like all parameter models."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from graftline.trunks.parameters import AlikeLayersParams, ObjectiveParams
from graftline.trunks.rootstock import MODEL_FILES, CheckpointParams

PROCESSOR = "preprocessor_config.json"
_Size = Annotated[int, Field(ge=1, le=4096)]


class HubertParams(AlikeLayersParams):
    """The shape of a HuBERT (Hsu et al., 2021, arXiv:2106.07447): convolutions on the waveform, then a transformer."""

    family: ClassVar[str] = "audio"

    name: Literal["hubert"] = "hubert"
    layers: int = Field(default=3, ge=1, le=48)
    """Transformer blocks."""
    width: int = Field(default=128, ge=8, le=4096)
    """Length of a frame's vector; a multiple of `heads` and of 16."""
    heads: int = Field(default=4, ge=1, le=256)
    """Attention heads."""
    hidden: int = Field(default=512, ge=8, le=65_536)
    """Width inside the feed-forward layer."""
    channels: int = Field(default=64, ge=1, le=4096)
    """Channels of the convolutions."""
    kernels: tuple[_Size, ...] = Field(default=(256, 8), min_length=1, max_length=12)
    """How many samples, then steps of the layer before, each convolution sees; 256 samples are 32 ms at 8,000 a second.
    They begin as the filters of a spectrogram."""
    strides: tuple[_Size, ...] = Field(default=(40, 4), min_length=1, max_length=12)
    """By how many each moves on; their product is the samples of a frame: 160, at 8,000 a second 20 ms. For 16,000 take
    80 and 4, and kernels of 512 and 8."""
    neighbours: int = Field(default=32, ge=2, le=512)
    """Frames that the convolution sees which tells frames their places."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.width % self.heads or self.width % 16:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads} and of 16")
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"{len(self.kernels)} kernels for {len(self.strides)} strides")
        return self


class AudioRootstockParams(CheckpointParams):
    """A public model of speech that the trunk starts from: HuBERT or wav2vec 2.0."""

    family: ClassVar[str] = "audio"
    files: ClassVar[tuple[str, ...]] = (*MODEL_FILES, PROCESSOR)

    name: Literal["audio_rootstock"] = "audio_rootstock"


class MaskedUnitsParams(ObjectiveParams):
    """Parameters of the objective `masked_units`."""

    family: ClassVar[str] = "audio"
    loss_unit: ClassVar[str] = "nats a hidden frame"
    needs: ClassVar[str] = "a hubert trunk, or an audio_rootstock"

    name: Literal["masked_units"] = "masked_units"
    clusters: int = Field(default=100, ge=2, le=10_000)
    """Kinds of frames that are told apart: k-means over their log-mel spectra."""
    mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Share of a clip's frames that is hidden, about."""
    span: int = Field(default=10, ge=1, le=1000)
    """Frames that are hidden at a stretch."""
    crop_seconds: float = Field(default=10.0, gt=0, le=3600)
    """Longest piece of a clip that a step sees; of a longer clip it is drawn which."""
