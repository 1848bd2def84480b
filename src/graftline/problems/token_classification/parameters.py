"""Parameters of the problem `token_classification`."""

from __future__ import annotations

from typing import Literal

from graftline.problems.scores import ECE, MACRO_F1, MIN_CLASS_RECALL, accuracy
from graftline.problems.text_parameters import TextClassificationParams


class TokenClassificationParams(TextClassificationParams):
    """Parameters of the head `token_classification`."""

    scores = (accuracy("accuracy a word"), MACRO_F1, MIN_CLASS_RECALL, ECE)

    name: Literal["token_classification"] = "token_classification"
