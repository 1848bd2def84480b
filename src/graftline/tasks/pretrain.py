"""Parameters of the component `pretrain`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from graftline.learning.parameters import Precision
from graftline.tasks.parameters import Params
from graftline.text.tokenizer import TokenizerParams
from graftline.trunks.registry import (
    DEFAULT_OBJECTIVE,
    DEFAULT_SIZE,
    DEFAULT_TRUNK,
    AnyObjectiveParams,
    AnyTrunkParams,
    SizedTrunkParams,
)

SizeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}$")]


class CorpusParams(Params):
    """A large corpus outside of the task's own data."""

    url: str = Field(min_length=1, max_length=1000)
    """A folder or file of Parquet or JSON Lines shards, relative to the repository, or `s3://bucket/prefix`."""
    column: str = Field(default="text", min_length=1, max_length=200)
    """The column, or the key of each line, that holds the document."""


class SizeParams(Params):
    """One more trunk, trained on the same documents for comparison: what does a smaller budget buy?"""

    trunk: SizedTrunkParams = DEFAULT_SIZE
    """Its shape; the tokenizer and the longest document are the main trunk's."""
    epochs: float = Field(default=1, gt=0, le=100_000)
    """Passes over the documents."""


class PretrainParams(Params):
    """The section `pretrain` of a task's parameters."""

    objective: AnyObjectiveParams = Field(default=DEFAULT_OBJECTIVE, discriminator="name")
    """What is learned from unlabelled data."""
    trunk: AnyTrunkParams = Field(default=DEFAULT_TRUNK, discriminator="name")
    """The shape of the trunk (conv for images, text for text, items for histories, hubert for clips), or the public
    checkpoint that it starts from (rootstock)."""
    epochs: float = Field(default=90, ge=0, le=100_000)
    """Passes over the unlabelled data; 0 takes a rootstock as it is."""
    batch: int = Field(default=128, ge=2, le=65_536)
    """Images a step."""
    batch_tokens: int = Field(default=4096, ge=64, le=16_777_216)
    """Tokens a step, about, of histories items, of clips frames: batches are whole documents."""
    tokenizer: TokenizerParams | None = None
    """The tokenizer to train on the documents; null for wordpiece with masked_lm, bpe with causal_lm, bpe_mask with
    denoising, and for a rootstock its own."""
    corpus: CorpusParams | None = None
    """Documents to learn from instead of the dataset's; null for the dataset's."""
    held_out: int = Field(default=1000, ge=1, le=1_000_000)
    """Documents that are not trained on, to measure the loss on (at most a tenth of all)."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for all weights, or muon for the matrices of a text trunk's layers and adamw for the rest."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    """Peak learning rate of AdamW."""
    matrix_rate: float = Field(default=0.02, gt=0, le=1)
    """Peak learning rate of Muon."""
    weight_decay: float = Field(default=0.05, ge=0, le=1)
    """Decoupled weight decay of AdamW (Loshchilov and Hutter, 2019); in text trunks, of matrices only."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps of linear warm-up."""
    spike_factor: float | None = Field(default=20.0, gt=0)
    """Stop if the loss stays this many robust standard deviations above the last ones for 10 steps; null for never.
    Text only."""
    precision: Precision = "auto"
    """Number format of matrix products; auto is bfloat16 where the processor computes in it, for the trunk conv,
    clips, items and denoising on a GPU only, for other trunks of images on a GPU or a CPU with AMX."""
    sizes: dict[SizeName, SizeParams] = Field(default={}, max_length=8)
    """More text trunks to train for comparison, by name: the report shows quality against budget."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Decides initial weights, batches, warps and masks."""

    @model_validator(mode="before")
    @classmethod
    def _default_unless_named(cls, values: Any) -> Any:
        trunk = values.get("trunk") if isinstance(values, dict) else None
        return {**values, "trunk": {"name": DEFAULT_TRUNK.name, **trunk}} if isinstance(trunk, dict) else values

    @model_validator(mode="after")
    def _objective_fits_trunk(self) -> Self:
        self.trunk.check(self.objective, "trunk")
        for name, size in self.sizes.items():
            size.trunk.check(self.objective, f"sizes.{name}.trunk")
        if self.epochs == 0 and not self.trunk.trained:
            raise ValueError("epochs 0 leaves a trunk untrained: only a rootstock can be taken as it is")
        return self
