"""Parameters of the problem `token_classification`."""

from __future__ import annotations

from typing import Literal

from graftline.problems.deciding_parameters import DecidingParams
from graftline.problems.scores import DECIDING, ECE, MACRO_F1, MIN_CLASS_RECALL, accuracy
from graftline.problems.text_parameters import TextClassificationParams


class TokenClassificationParams(DecidingParams, TextClassificationParams):
    """Parameters of the head `token_classification`."""

    scores = (accuracy("accuracy a word"), MACRO_F1, MIN_CLASS_RECALL, ECE, *DECIDING)

    name: Literal["token_classification"] = "token_classification"
