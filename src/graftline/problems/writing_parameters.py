"""Parameters of what a model may and must write; without torch, like all parameter models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from graftline.problems.scores import ProblemParams
from graftline.tasks.parameters import Sparing

Word = Annotated[str, Field(min_length=1, max_length=100)]


class WritingParams(Sparing, ProblemParams):
    """Parameters of the heads that write."""

    untold = ("banned", "required")

    banned: tuple[Word, ...] = Field(default=(), max_length=1000)
    """Words, or several in a row, that are never written, whatever their case. Where one is several tokens, a longer
    word that begins with all of them is not written either."""
    required: tuple[Word, ...] = Field(default=(), max_length=100)
    """Words that each text should hold: of the texts that are found, one that lacks fewest is taken, and `predict` says
    which are missing."""
