"""From parameters to the head that they name."""

from __future__ import annotations

from typing import Any

from graftline.components.finetune.heads.head import Head
from graftline.components.finetune.heads.image_classification import ImageClassification
from graftline.components.finetune.heads.params import (
    HeadParams,
    ImageClassificationParams,
    SequenceClassificationParams,
    TextGenerationParams,
    TokenClassificationParams,
)
from graftline.components.finetune.heads.sequence_classification import SequenceClassification
from graftline.components.finetune.heads.text_generation import TextGeneration
from graftline.components.finetune.heads.token_classification import TokenClassification


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
