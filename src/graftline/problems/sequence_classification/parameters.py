"""Parameters of the problem `sequence_classification`."""

from __future__ import annotations

from typing import Literal

from graftline.problems.deciding_parameters import DecidingParams
from graftline.problems.scores import ONE_CLASS_A_ROW
from graftline.problems.text_parameters import PooledParams, TextClassificationParams


class SequenceClassificationParams(DecidingParams, TextClassificationParams, PooledParams):
    """Parameters of the head `sequence_classification`."""

    scores = ONE_CLASS_A_ROW
    explains = True
    odds = True
    private = True

    name: Literal["sequence_classification"] = "sequence_classification"
