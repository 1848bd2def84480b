"""Parameters of the problem `recognition`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.problems.recognition.scores import CER, WER
from graftline.problems.text_parameters import TransformerParams


class RecognitionParams(TransformerParams):
    """Parameters of the head `recognition`."""

    scores = (CER, WER)

    name: Literal["recognition"] = "recognition"
    case: Literal["lower", "upper", "keep"] = "lower"
    """What transcripts become before they are learned and compared: all letters small, all capital, or as they are."""
    punctuation: Literal["drop", "keep"] = "drop"
    """drop: of a transcript letters, digits and the apostrophes between letters are left; keep: all of it, but for `|`,
    which a vocabulary of characters has for the space."""
    mask_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of a clip's frames that is hidden in training, about (SpecAugment: Park et al., 2019, arXiv:1904.08779)."""
    span: int = Field(default=10, ge=1, le=1000)
    """Frames that are hidden at a stretch."""
