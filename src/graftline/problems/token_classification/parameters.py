"""Parameters of the problem `token_classification`."""

from __future__ import annotations

from typing import Literal

from graftline.problems.text_parameters import TextClassificationParams


class TokenClassificationParams(TextClassificationParams):
    """Parameters of the head `token_classification`."""

    name: Literal["token_classification"] = "token_classification"
