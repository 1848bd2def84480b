"""Parameters that problems on images share; without torch, like all parameter models."""

from __future__ import annotations

from graftline.learning.parameters import Augmentation, Precision
from graftline.problems.scores import ProblemParams


class ImageHeadParams(ProblemParams):
    """Parameters of every image head."""

    augmentation: Augmentation = Augmentation()
    """How training images are warped."""
    precision: Precision = "auto"
    """Arithmetic of training and of the lift's answers; auto is bfloat16 on a GPU that computes in it, and for trunks
    other than conv on a CPU with AMX. The weights stay float32, and so does what a released model answers."""
