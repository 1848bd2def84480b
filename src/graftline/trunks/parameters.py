"""The shapes of trunks that are trained from scratch; without torch, like all parameter models."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from graftline.tasks.parameters import Params
from graftline.trunks.objective_parameters import ObjectiveParams

DECODERS = ("llama", "gpt2")

Channels = Annotated[int, Field(ge=1, le=4096)]


class TrunkParams(Params):
    """What the parameters of every family's trunks say."""

    name: str

    family: ClassVar[str]
    """The folder of the family."""
    trained: ClassVar[bool] = False
    """Whether it was trained elsewhere, so that it can be taken as it is."""

    def check(self, objective: ObjectiveParams, where: str) -> None:
        """Raise ValueError unless the objective can train such a trunk; `where` names the trunk."""
        if objective.family != self.family:
            raise ValueError(
                f"objective {objective.name} needs {objective.needs}, {where}.name is {self.name}"
            )

    @property
    def layer_weights(self) -> float:
        """The weights of its layers, about, if they are alike and their number can be chosen; else 0."""
        return 0.0

    @property
    def layer_count(self) -> int:
        """How many such layers there are."""
        return 0

    def with_layers(self, count: int) -> Self:
        """Return the same shape with so many layers, if their number can be chosen."""
        return self


class ConvParams(TrunkParams):
    """The shape of a convolutional trunk."""

    family: ClassVar[str] = "conv"

    name: Literal["conv"] = "conv"
    channels: tuple[Channels, Channels, Channels] = (16, 32, 64)
    """Channels after each of the three convolutions, 1 to 4,096; each halves the height and width."""
    width: int = Field(default=128, ge=8, le=4096)
    """Length of the embedding."""


class TextParams(TrunkParams):
    """The shape of a text trunk that is trained from scratch."""

    family: ClassVar[str] = "text"

    name: Literal["text"] = "text"
    architecture: Literal["modernbert", "bert", "llama", "gpt2"] = "modernbert"
    """Encoders, for masked_lm: modernbert (pre-norm, rotary positions, gated layers; Warner et al., 2024,
    arXiv:2412.13663) or bert (Devlin et al., 2019). Decoders, for causal_lm: llama (Touvron et al., 2023) or gpt2
    (Radford et al., 2019)."""
    layers: int = Field(default=2, ge=1, le=200)
    """Transformer blocks."""
    width: int = Field(default=128, ge=8, le=16_384)
    """Length of a token's vector; a multiple of `heads`."""
    heads: int = Field(default=2, ge=1, le=256)
    """Attention heads."""
    hidden: int = Field(default=256, ge=8, le=65_536)
    """Width inside the feed-forward layer; a gated one (modernbert, llama) has two such projections."""
    max_length: int = Field(default=128, ge=8, le=131_072)
    """Tokens of the longest document; longer ones are cut into pieces."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} is no even multiple of heads {self.heads}")
        return self

    @property
    def decodes(self) -> bool:
        """Whether a token sees only what is before it."""
        return self.architecture in DECODERS

    def check(self, objective: ObjectiveParams, where: str) -> None:
        super().check(objective, where)
        if self.decodes != objective.decodes:
            fits = "llama or gpt2" if objective.decodes else "modernbert or bert"
            raise ValueError(
                f"objective {objective.name} needs {fits}, {where}.architecture is {self.architecture}"
            )

    @property
    def layer_weights(self) -> float:
        """Attention's four matrices and a gated feed-forward layer's three."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.hidden)

    @property
    def layer_count(self) -> int:
        return self.layers

    def with_layers(self, count: int) -> Self:
        return self.model_copy(update={"layers": count})
