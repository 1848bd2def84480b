"""The parameters of vision trunks and of what they learn from; without torch, like all parameter models."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from graftline.learning.parameters import Augmentation
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.parameters import AlikeLayersParams, ObjectiveParams, TrunkParams
from graftline.trunks.rootstock import MODEL_FILES, CheckpointParams

Blocks = Annotated[int, Field(ge=1, le=200)]
Channels = Annotated[int, Field(ge=4, le=8192)]
Side = Annotated[int, Field(ge=1, le=64)]


class VisionParams(TrunkParams):
    """A shape that is trained from scratch."""

    family: ClassVar[str] = "vision"

    def settings(self) -> dict[str, Any]:
        """Return the fields of transformers' config that say this shape."""
        raise NotImplementedError


class VitParams(VisionParams, AlikeLayersParams):
    """A vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929)."""

    name: Literal["vit"] = "vit"
    patch: Side = 4
    """Height and width of a patch, in pixels; both sides of the images are multiples of it."""
    layers: Blocks = 4
    """Transformer blocks."""
    width: int = Field(default=128, ge=8, le=16_384)
    """Length of a patch's vector; a multiple of `heads`."""
    heads: int = Field(default=4, ge=1, le=256)
    """Attention heads."""
    hidden: int = Field(default=512, ge=8, le=65_536)
    """Width inside the feed-forward layer."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self

    def settings(self) -> dict[str, Any]:
        return {
            "patch_size": self.patch, "num_hidden_layers": self.layers, "hidden_size": self.width,
            "num_attention_heads": self.heads, "intermediate_size": self.hidden,
        }  # fmt: skip


class _Staged(VisionParams):
    """Stages of convolutions, each at half the height and width of the one before."""

    depths: tuple[Blocks, ...] = Field(default=(2, 2, 2), min_length=1, max_length=6)
    """Blocks of each stage."""
    channels: tuple[Channels, ...] = Field(default=(32, 64, 128), min_length=1, max_length=6)
    """Channels of each stage; the last are the length of the embedding."""

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.depths) != len(self.channels):
            raise ValueError(f"{len(self.depths)} depths for {len(self.channels)} channels")
        return self


class ConvNextV2Params(_Staged):
    """ConvNeXt V2 (Woo et al., 2023, arXiv:2301.00808)."""

    name: Literal["convnextv2"] = "convnextv2"
    patch: Side = 2
    """Height and width of the squares that the first stage sees, in pixels."""

    def settings(self) -> dict[str, Any]:
        return {
            "patch_size": self.patch, "num_stages": len(self.depths), "depths": list(self.depths),
            "hidden_sizes": list(self.channels),
        }  # fmt: skip


class ResNetParams(_Staged):
    """A residual network (He et al., 2015, arXiv:1512.03385); its first layers keep a quarter of each side."""

    name: Literal["resnet"] = "resnet"
    stem: Channels = 32
    """Channels of the first convolution."""
    block: Literal["basic", "bottleneck"] = "basic"
    """basic as in ResNet-18 and 34, bottleneck as in ResNet-50 and above."""

    def settings(self) -> dict[str, Any]:
        return {
            "embedding_size": self.stem, "layer_type": self.block, "depths": list(self.depths),
            "hidden_sizes": list(self.channels),
        }  # fmt: skip


class ImageRootstockParams(CheckpointParams):
    """A public image model that the trunk starts from."""

    family: ClassVar[str] = "vision"
    files: ClassVar[tuple[str, ...]] = (*MODEL_FILES, "preprocessor_config.json")

    name: Literal["image_rootstock"] = "image_rootstock"


class MaskedImageParams(ObjectiveParams):
    """Parameters of the objective `masked_image`."""

    family: ClassVar[str] = "vision"
    loss_unit: ClassVar[str] = "error a hidden pixel"
    needs: ClassVar[str] = "a vit, convnextv2 or resnet trunk, or an image_rootstock"

    name: Literal["masked_image"] = "masked_image"
    mask_ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of patches that are hidden (0.6: Xie et al., 2022, arXiv:2111.09886)."""
    patch: Side = 8
    """Height and width of a hidden patch, in pixels; for a vit a multiple of its own."""
    augmentation: Augmentation = Augmentation()
    """How images are warped before a part of them is hidden."""


class DenseContrastiveParams(ObjectiveParams):
    """Parameters of the objective `dense_contrastive`."""

    family: ClassVar[str] = "vision"
    loss_unit: ClassVar[str] = "nats a spot"
    needs: ClassVar[str] = "a vit, convnextv2 or resnet trunk, or an image_rootstock"

    name: Literal["dense_contrastive"] = "dense_contrastive"
    temperature: float = Field(default=0.2, gt=0, le=10)
    """Divides the similarities: the lower, the more the nearest wrong spots count."""
    projection: int = Field(default=128, ge=8, le=4096)
    """Length of the vectors that are compared."""
    spots: int = Field(default=16, ge=1, le=1024)
    """Spots of each image that are compared in a step."""
    apart: float = Field(default=10.0, ge=0, le=1024)
    """Pixels: nearer spots of an image are not told apart; about half an object."""
    augmentation: Augmentation = Augmentation(
        shift=8, rotation=20, scale=0.25, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=20, grey=0.1,
        edge="repeat",
    )  # fmt: skip
    """How the two views of an image are made of it: what they have in common is learned, what they differ in is not."""


class OrientedGradientsParams(ObjectiveParams):
    """Parameters of the objective `oriented_gradients`."""

    family: ClassVar[str] = "vision"
    loss_unit: ClassVar[str] = "of the variance"
    needs: ClassVar[str] = "a vit, convnextv2 or resnet trunk, or an image_rootstock"

    name: Literal["oriented_gradients"] = "oriented_gradients"
    cell: int = Field(default=4, ge=2, le=64)
    """Height and width of a cell, of which a histogram of the edges' directions is told, in pixels."""
    cells: int = Field(default=5, ge=1, le=8)
    """Cells around a spot, in each row and column; together about as large as an object."""
    spots: int = Field(default=24, ge=1, le=1024)
    """Spots of each image that are told of in a step."""
    hidden: int = Field(default=256, ge=8, le=4096)
    """Width of the layer between the trunk and what is told."""
    augmentation: Augmentation = Augmentation(
        shift=8, rotation=20, scale=0.25, brightness=0.4, contrast=0.4, saturation=0.4, hue=20, grey=0.1, edge="repeat"
    )
    """How the image that the trunk sees is made of the one that is told of; not mirrored, since nothing says so."""

    @model_validator(mode="after")
    def _not_mirrored(self) -> Self:
        if self.augmentation.flip:
            raise ValueError(f"augmentation.flip is {self.augmentation.flip}: no spot says that its image was mirrored")
        return self


VisionObjectiveParams = MaskedImageParams | ContrastiveParams | DenseContrastiveParams | OrientedGradientsParams
