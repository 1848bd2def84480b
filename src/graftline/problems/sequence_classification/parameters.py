"""Parameters of the problem `sequence_classification`."""

from __future__ import annotations

from typing import Literal

from graftline.problems.scores import ONE_CLASS_A_ROW
from graftline.problems.text_parameters import TextClassificationParams


class SequenceClassificationParams(TextClassificationParams):
    """Parameters of the head `sequence_classification`."""

    scores = ONE_CLASS_A_ROW

    name: Literal["sequence_classification"] = "sequence_classification"
    pooling: Literal["mean", "cls"] = "mean"
    """How a ModernBERT document becomes one vector: the mean of its tokens, or the first one. BERT takes the
    first, a decoder the last, whatever this says: transformers' classes offer no choice."""
