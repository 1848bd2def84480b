"""The parameters of every problem; without torch, so that a pipeline is compiled and checked where there is none."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.problems.token_classification.parameters import TokenClassificationParams

HeadParams = (
    ImageClassificationParams
    | SequenceClassificationParams
    | TokenClassificationParams
    | TextGenerationParams
)


def parse_head(values: object) -> HeadParams:
    """Return a head's parameters from what a params.yaml or a head.json says. Raises ValidationError."""
    params: HeadParams = TypeAdapter(Annotated[HeadParams, Field(discriminator="name")]).validate_python(
        values
    )
    return params
