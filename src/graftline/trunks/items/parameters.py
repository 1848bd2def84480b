"""The parameters of trunks of histories and of what they learn from; without torch, like all parameter models."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from graftline.trunks.parameters import ObjectiveParams, RotaryLayersParams


class ItemsParams(RotaryLayersParams):
    """The shape of a trunk of histories: a ModernBERT (Warner et al., 2024, arXiv:2412.13663) over items."""

    family: ClassVar[str] = "items"

    name: Literal["items"] = "items"
    layers: int = Field(default=1, ge=1, le=48)
    """Transformer blocks."""
    width: int = Field(default=128, ge=8, le=4096)
    """Length of an item's vector; an even multiple of `heads`."""
    heads: int = Field(default=4, ge=1, le=256)
    """Attention heads."""
    hidden: int = Field(default=256, ge=8, le=65_536)
    """Width inside the gated feed-forward layer."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of activations dropped in training."""
    min_users: int = Field(default=2, ge=1)
    """Histories that an item must stand in to get a vector of its own. Rarer ones are known by their words, if the
    catalogue has any, else not at all."""
    words: bool = True
    """Whether an item's vector is the sum of its own and the mean of its words' in the catalogue: then items that no
    history holds can be recommended too."""


class MaskedItemsParams(ObjectiveParams):
    """Parameters of the objective `masked_items`."""

    family: ClassVar[str] = "items"
    loss_unit: ClassVar[str] = "nats a hidden item"
    needs: ClassVar[str] = "a trunk of items"

    name: Literal["masked_items"] = "masked_items"
    mask_ratio: float = Field(default=0.7, gt=0, lt=1)
    """Largest share of a history that is hidden; how much is drawn anew each time, from a tenth of a history on."""
    forget: float = Field(default=0.2, ge=0, lt=1)
    """Share of items whose own vectors are left out of a step, so that their words learn to stand for them (DropoutNet:
    Volkovs et al., 2017). Only with words."""
