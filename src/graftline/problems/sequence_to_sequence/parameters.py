"""Parameters of the problem `sequence_to_sequence`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.problems.sequence_to_sequence.scores import BLEU, CHRF, KEPT
from graftline.problems.text_parameters import TextHeadParams
from graftline.problems.writing_parameters import WritingParams


class SequenceToSequenceParams(WritingParams, TextHeadParams):
    """Parameters of the head `sequence_to_sequence`; `max_tokens` is of the text read and of the text written alike."""

    scores = (CHRF, BLEU, KEPT)

    name: Literal["sequence_to_sequence"] = "sequence_to_sequence"
    beams: int = Field(default=4, ge=1, le=64)
    """How many beginnings of a text are gone on with at once; 1 takes the most probable token each time, as the lift's
    fits and early stopping always do."""
    length_penalty: float = Field(default=1.0, ge=-5, le=5)
    """A finished text's log probability is divided by its length to this power: more is longer."""
    no_repeat: int | None = Field(default=None, ge=1, le=64)
    """No run of so many tokens is written twice in a text; null for any."""
