"""Parameters of the problem `question_answering`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from graftline.problems.question_answering.scores import ANSWERED_F1, EXACT_MATCH, F1, NO_ANSWER
from graftline.problems.text_parameters import TextHeadParams


class QuestionAnsweringParams(TextHeadParams):
    """Parameters of the head `question_answering`."""

    scores = (F1, EXACT_MATCH, ANSWERED_F1, NO_ANSWER)
    explains = True

    name: Literal["question_answering"] = "question_answering"
    max_tokens: int = Field(default=256, ge=16, le=1_048_576)
    """Tokens of a window: the question, the marks, and as much of the text as there is room for. A longer text is read
    in several windows."""
    stride: int = Field(default=64, ge=0, le=1_048_576)
    """Tokens of the text that a window shares with the one before: an answer of so many is whole in one of them."""
    max_question_tokens: int = Field(default=64, ge=1, le=1_048_576)
    """Longest question; the rest of a longer one is cut off."""
    max_answer_tokens: int = Field(default=30, ge=1, le=4096)
    """Longest answer that is given."""

    @model_validator(mode="after")
    def _windows_move_on(self) -> Self:
        if self.max_question_tokens + self.stride + 8 > self.max_tokens:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room beside max_question_tokens {self.max_question_tokens}, "
                f"stride {self.stride} and 8 more"
            )
        return self
