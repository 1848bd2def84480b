"""Parameters of the component `pretrain`."""

from __future__ import annotations

from pydantic import Field

from graftline.components.pretrain.objectives import ObjectiveParams
from graftline.components.pretrain.objectives.masked_autoencoder import MaskedAutoencoderParams
from graftline.params import Params
from graftline.trunks.conv import ConvParams


class PretrainParams(Params):
    """The section `pretrain` of a task's parameters."""

    objective: ObjectiveParams = Field(default=MaskedAutoencoderParams(), discriminator="name")
    """What is learned from unlabelled data."""
    trunk: ConvParams = ConvParams()
    """The shape of the trunk."""
    epochs: int = Field(default=90, ge=1, le=100_000)
    """Passes over the unlabelled data."""
    batch: int = Field(default=128, ge=2, le=65_536)
    """Images a step."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=0.05, ge=0, le=1)
    """Decoupled weight decay of AdamW (Loshchilov and Hutter, 2019)."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps of linear warm-up."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Decides initial weights, batches, warps and masks."""
