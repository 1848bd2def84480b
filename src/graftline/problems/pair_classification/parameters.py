"""Parameters of the problem `pair_classification`."""

from __future__ import annotations

from typing import Literal

from graftline.problems.deciding_parameters import DecidingParams
from graftline.problems.pair_classification.scores import AVERAGE_PRECISION
from graftline.problems.scores import ONE_CLASS_A_ROW
from graftline.problems.text_parameters import PooledParams, TextClassificationParams


class PairClassificationParams(DecidingParams, TextClassificationParams, PooledParams):
    """Parameters of the head `pair_classification`; `max_tokens` is of both texts and the marks around them."""

    scores = (*ONE_CLASS_A_ROW, AVERAGE_PRECISION)
    explains = True
    odds = True

    name: Literal["pair_classification"] = "pair_classification"
    pooling: Literal["mean", "cls"] = "cls"
    """How a pair in ModernBERT becomes one vector: the first token's, or the mean of all. BERT takes the first, a
    decoder the last, whatever this says: transformers' classes offer no choice."""
