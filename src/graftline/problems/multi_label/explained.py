"""Sets of classes, explained by the one that is most probable: a yes by itself, whatever the other classes are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graftline.problems.explained_images import ExplainedImages
from graftline.problems.explained_texts import ExplainedTexts


def log_of_yes(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return (k,): of (k, classes) logits the log-probability that the target is in the set."""
    return torch.nn.functional.logsigmoid(outputs.gather(1, targets[:, None])[:, 0])


@dataclass(frozen=True, eq=False)
class ExplainedImageSets(ExplainedImages):
    told_of = staticmethod(log_of_yes)


@dataclass(frozen=True, eq=False)
class ExplainedTextSets(ExplainedTexts):
    told_of = staticmethod(log_of_yes)
