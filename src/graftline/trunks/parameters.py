"""What the parameters of every trunk and of every objective say; without torch, like all parameter models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from graftline.tasks.parameters import Params


class ObjectiveParams(Params):
    """What the parameters of every objective say."""

    name: str

    family: ClassVar[str]
    """The family of trunks that it trains."""
    also: ClassVar[tuple[str, ...]] = ()
    """Further families whose trunks it trains."""
    loss_unit: ClassVar[str]
    """What its loss is in, for people."""
    needs: ClassVar[str]
    """That family's trunks, for people."""
    decodes: ClassVar[bool] = False
    """Whether a token sees only what is before it."""
    tokens: ClassVar[Literal["wordpiece", "bpe", "bpe_mask"]] = "wordpiece"
    """The kind of tokenizer that has the special tokens which it needs."""


class TrunkParams(Params):
    """What the parameters of every trunk say."""

    name: str

    family: ClassVar[str]
    """The folder of the family."""
    trained: ClassVar[bool] = False
    """Whether it was trained elsewhere, so that it can be taken as it is."""

    def check(self, objective: ObjectiveParams, where: str) -> None:
        """Raise ValueError unless the objective can train such a trunk; `where` names the trunk."""
        if self.family not in (objective.family, *objective.also):
            raise ValueError(f"objective {objective.name} needs {objective.needs}, {where}.name is {self.name}")

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


class AlikeLayersParams(TrunkParams):
    """What the parameters of a trunk say whose layers are alike, and `layers` of them."""

    if TYPE_CHECKING:  # each has fields of its own: here they would come first in schemas and configs
        layers: int
        width: int
        heads: int
        hidden: int

    projections: ClassVar[int] = 2
    """Matrices of a feed-forward layer: a gated one has three."""

    @property
    def layer_weights(self) -> float:
        """Those of attention's four matrices and of the feed-forward layer's."""
        return self.layers * (4 * self.width**2 + self.projections * self.width * self.hidden)

    @property
    def layer_count(self) -> int:
        return self.layers

    def with_layers(self, count: int) -> Self:
        return self.model_copy(update={"layers": count})


class RotaryLayersParams(AlikeLayersParams):
    """Of such layers, gated, with rotary positions: each head has an even width."""

    projections: ClassVar[int] = 3

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} is no even multiple of heads {self.heads}")
        return self
