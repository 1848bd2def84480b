"""The parameters of sequence classification."""

from __future__ import annotations

from typing import Literal

from graftline.problems.parameters import ONE_CLASS_A_ROW, TextClassificationParams


class SequenceClassificationParams(TextClassificationParams):
    """Parameters of the head `sequence_classification`."""

    scores = ONE_CLASS_A_ROW

    name: Literal["sequence_classification"] = "sequence_classification"
    pooling: Literal["mean", "cls"] = "mean"
    """How a ModernBERT document becomes one vector: the mean of its tokens, or the first one. BERT takes the
    first, a decoder the last, whatever this says: transformers' classes offer no choice."""
