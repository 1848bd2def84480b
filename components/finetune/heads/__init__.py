"""What `finetune` learns with labels: one file a head, with its parameters.

To add one: a file with a Params class (its `name` a literal) and a `Head` (see head.py), and a line in each of the
two places below.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from graftline.components.finetune.heads.head import Head
from graftline.components.finetune.heads.image_classification import (
    ImageClassification,
    ImageClassificationParams,
)
from graftline.components.finetune.heads.sequence_classification import (
    SequenceClassification,
    SequenceClassificationParams,
)
from graftline.components.finetune.heads.text_generation import TextGeneration, TextGenerationParams
from graftline.components.finetune.heads.token_classification import (
    TokenClassification,
    TokenClassificationParams,
)

HeadParams = (
    ImageClassificationParams
    | SequenceClassificationParams
    | TokenClassificationParams
    | TextGenerationParams
)


def make_head(params: HeadParams) -> Head[Any]:
    """Return the head that `params` names."""
    match params:
        case ImageClassificationParams():
            return ImageClassification(params)
        case SequenceClassificationParams():
            return SequenceClassification(params)
        case TokenClassificationParams():
            return TokenClassification(params)
        case TextGenerationParams():
            return TextGeneration(params)


def parse_head(values: object) -> HeadParams:
    """Return a head's parameters from what a params.yaml or a head.json says. Raises ValidationError."""
    params: HeadParams = TypeAdapter(Annotated[HeadParams, Field(discriminator="name")]).validate_python(
        values
    )
    return params
