"""Parameters of the problem `text_generation`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.problems.scores import ECE, PERPLEXITY, accuracy
from graftline.problems.text_parameters import TextHeadParams
from graftline.problems.writing_parameters import WritingParams


class TextGenerationParams(WritingParams, TextHeadParams):
    """Parameters of the head `text_generation`."""

    scores = (PERPLEXITY, accuracy("accuracy of the next token"), ECE)

    name: Literal["text_generation"] = "text_generation"
    prompts: tuple[str, ...] = Field(default=("",), min_length=1, max_length=100)
    """What the samples in the report go on from, in turn; an empty one starts from nothing."""
    samples: int = Field(default=8, ge=1, le=100)
    """How many samples the report shows."""
    sample_tokens: int = Field(default=40, ge=1, le=2048)
    """Tokens of each sample, at most."""
    temperature: float = Field(default=0.8, gt=0, le=10)
    """What the logits of samples are divided by; lower is more likely text and less various."""
