"""Parameters of the problem `multi_label`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.learning.parameters import Augmentation, Precision
from graftline.problems.image_parameters import ImageHeadParams
from graftline.problems.multi_label.scores import SCORES
from graftline.problems.text_parameters import Lora, PooledParams, TextClassificationParams


class MultiLabelParams(TextClassificationParams, PooledParams, ImageHeadParams):
    """Parameters of the head `multi_label`, on images and on text."""

    scores = SCORES
    explains = True

    name: Literal["multi_label"] = "multi_label"
    threshold: float | None = Field(default=0.5, gt=0, lt=1)
    """Probability from which on a class is in the set; null: the one of the largest F1 on val, class by class. Null is
    0.5 of a class that val lacks, and where nothing is held out: with `labels_per_class`, and in the lift but at all
    labels."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """By how much each target is moved from 0 or 1 towards a half, as a share of the way."""
    precision: Precision = "auto"
    """Arithmetic of training and of the lift's answers; auto is bfloat16 on a GPU that computes in it, and on images on
    trunks other than conv on a CPU with AMX. The weights stay float32, and so does what a released model answers."""
    augmentation: Augmentation = Augmentation()
    """Of images: how training images are warped."""
    max_tokens: int = Field(default=256, ge=8, le=1_048_576)
    """Of text: longest input in tokens; the rest of a longer one is cut off."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of text: share of activations dropped in training, in every place where the architecture has dropout."""
    lora: Lora | None = None
    """Of text: train low-rank adapters and leave the trunk's weights; they are merged into the weights in the end."""
    pooling: Literal["mean", "cls"] = "mean"
    """Of text: how a ModernBERT document becomes one vector, the mean of its tokens or the first one. BERT takes the
    first, a decoder the last, whatever this says."""


OF_IMAGES = frozenset({"augmentation"})
OF_TEXT = frozenset({"max_tokens", "dropout", "lora", "pooling"})
"""The parameters that are heeded on one kind of data only."""
