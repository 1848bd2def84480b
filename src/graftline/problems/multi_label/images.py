"""Sets of classes of images: a linear layer on the trunk's embedding, a yes or no a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema
from graftline.problems.images import ImageModel, ImageProblem, LabelledImages
from graftline.problems.multi_label.answers import SetAnswers
from graftline.problems.multi_label.explained import ExplainedImageSets
from graftline.problems.multi_label.model import SetModel, with_thresholds
from graftline.problems.multi_label.parameters import OF_TEXT, MultiLabelParams
from graftline.problems.multi_label.side import SetProblem
from graftline.problems.problem import LABEL
from graftline.values.image import ImageColumn
from graftline.values.labels import LabelSets


class ImageSets(LabelledImages):
    """Images with (n, classes) bool labels."""

    @property
    def classes(self) -> None:
        return None


class ImageSetModel(SetModel, ImageModel[ImageSets, MultiLabelParams]):
    """(n, channels, height, width) pixels to (n, classes) logits."""

    def logits(self, examples: ImageSets, *, fast: bool = False) -> torch.Tensor:
        return self.outputs(examples.pixels, fast=fast)


class OnImages(SetProblem, ImageProblem[ImageSets, MultiLabelParams]):
    """A set of classes an image."""

    roles: ClassVar = {"image": ImageColumn, LABEL: LabelSets}
    examples, model = ImageSets, ImageSetModel
    problem_type = "multi_label_classification"
    elsewhere = OF_TEXT

    def load(self, folder: Path, facts: dict[str, Any]) -> ImageModel[ImageSets, MultiLabelParams]:
        return with_thresholds(super().load(folder, facts), facts)

    def explained(self, folder: Path, model: Any, values: list[Any], schema: Schema) -> ExplainedImageSets:
        return ExplainedImageSets.of(model, np.stack(values), *model.chosen(self.asked(folder, values), schema))

    def show_mistakes(self, answers: SetAnswers, examples: Any, worst: np.ndarray, dataset: Path, out: Path) -> None:
        answers.plot_mistakes(examples.pixels, worst, read_schema(dataset), out / "mistakes.png")
