"""From parameters to the head that they name."""

from __future__ import annotations

from typing import Any

from graftline.problems.head import Head
from graftline.problems.image_classification.head import ImageClassification
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.parameters import HeadParams
from graftline.problems.sequence_classification.head import SequenceClassification
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.text_generation.head import TextGeneration
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.problems.token_classification.head import TokenClassification
from graftline.problems.token_classification.parameters import TokenClassificationParams


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
