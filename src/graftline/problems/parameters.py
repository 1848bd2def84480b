"""The parameters of each head; without torch, so that a pipeline is compiled and checked where there is none."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter

from graftline.learning.parameters import Augmentation, Precision
from graftline.problems.scores import (
    AUROC,
    ECE,
    MACRO_F1,
    MIN_CLASS_RECALL,
    PERPLEXITY,
    accuracy,
)
from graftline.score import Score
from graftline.tasks.parameters import Params


class ProblemParams(Params):
    """Parameters of every problem."""

    scores: ClassVar[tuple[Score, ...]]
    """What is measured on the test rows; the first is the primary one, which all comparisons are by."""


_ONE_CLASS_A_ROW = (accuracy(), MACRO_F1, MIN_CLASS_RECALL, AUROC, ECE)


class ImageClassificationParams(ProblemParams):
    """Parameters of the head `image_classification`."""

    scores = _ONE_CLASS_A_ROW

    name: Literal["image_classification"] = "image_classification"
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """Share of each target spread over all classes (Szegedy et al., 2016)."""
    augmentation: Augmentation = Augmentation()
    """How training images are warped."""


class Lora(Params):
    """Low-rank adapters instead of the trunk's weights (Hu et al., 2021, arXiv:2106.09685)."""

    rank: int = Field(default=8, ge=1, le=1024)
    """Rank of each adapter."""
    alpha: int = Field(default=16, ge=1, le=10_000)
    """The adapters' output is scaled by alpha / rank."""
    targets: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of the linear layers that get an adapter, such as `Wqkv`; null for all of the trunk's."""


class TextHeadParams(ProblemParams):
    """Parameters of every text head."""

    max_tokens: int = Field(default=256, ge=8, le=1_048_576)
    """Longest input in tokens; the rest of a longer one is cut off."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations dropped in training, in every place where the architecture has dropout."""
    precision: Precision = "auto"
    """Arithmetic of training and of the lift's answers; auto is bfloat16 where the processor computes in it. The
    weights stay float32, and so does what a released model answers."""
    lora: Lora | None = None
    """Train low-rank adapters and leave the trunk's weights; they are merged into the weights in the end."""


class TextClassificationParams(TextHeadParams):
    """Parameters of both."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target spread over all classes (Szegedy et al., 2016)."""


class SequenceClassificationParams(TextClassificationParams):
    """Parameters of the head `sequence_classification`."""

    scores = _ONE_CLASS_A_ROW

    name: Literal["sequence_classification"] = "sequence_classification"
    pooling: Literal["mean", "cls"] = "mean"
    """How a ModernBERT document becomes one vector: the mean of its tokens, or the first one. BERT takes the
    first, a decoder the last, whatever this says: transformers' classes offer no choice."""


class TokenClassificationParams(TextClassificationParams):
    """Parameters of the head `token_classification`."""

    scores = (accuracy("accuracy a word"), MACRO_F1, MIN_CLASS_RECALL, ECE)

    name: Literal["token_classification"] = "token_classification"


class TextGenerationParams(TextHeadParams):
    """Parameters of the head `text_generation`."""

    scores = (PERPLEXITY, accuracy("accuracy of the next token"), ECE)

    name: Literal["text_generation"] = "text_generation"
    prompts: tuple[str, ...] = Field(default=("",), min_length=1, max_length=100)
    """What the samples in the report go on from, in turn; an empty one starts from nothing."""
    samples: int = Field(default=8, ge=1, le=100)
    """How many samples the report shows."""
    sample_tokens: int = Field(default=40, ge=1, le=2048)
    """Tokens of each sample, at most."""
    temperature: float = Field(default=0.8, gt=0, le=10)
    """What the logits of samples are divided by; lower is more likely text and less various."""


HeadParams = (
    ImageClassificationParams
    | SequenceClassificationParams
    | TokenClassificationParams
    | TextGenerationParams
)


def parse_head(values: object) -> HeadParams:
    """Return a head's parameters from what a params.yaml or a head.json says. Raises ValidationError."""
    params: HeadParams = TypeAdapter(Annotated[HeadParams, Field(discriminator="name")]).validate_python(
        values
    )
    return params
