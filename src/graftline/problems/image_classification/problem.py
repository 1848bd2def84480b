"""Image classification: one linear layer on the trunk's embedding."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema
from graftline.problems import pictures
from graftline.problems.classes import ClassAnswers
from graftline.problems.deciding import Decider, DecidingProblem
from graftline.problems.explained_images import ExplainedImages
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.images import ImageModel, ImageProblem, LabelledImages
from graftline.problems.linear_probe import solve
from graftline.problems.problem import LABEL, Model
from graftline.problems.weighing import cross_entropy
from graftline.values.category import ClassLabel
from graftline.values.image import ImageColumn
from graftline.values.pixels import Pixels


class ImageClassifier(Decider[LabelledImages], ImageModel[LabelledImages, ImageClassificationParams]):
    """Images to (n, classes) logits."""

    def criterion(self, outputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        return cross_entropy(outputs, labels, weights, self._params.label_smoothing)

    @torch.no_grad()
    def probe(self, train: LabelledImages) -> None:
        assert train.labels is not None
        weight, bias = solve(self.features(train.pixels), train.labels, self.output.out_features, train.weights)
        self.output.weight.copy_(weight)
        self.output.bias.copy_(bias)

    def logits(self, examples: LabelledImages, *, fast: bool = False) -> torch.Tensor:
        return self.outputs(examples.pixels, fast=fast)

    def probabilities(self, pixels: Pixels, *, fast: bool = False) -> np.ndarray:
        """Return (n, classes) float32 probabilities of n images."""
        return self.decision.decide(self.outputs(pixels, fast=fast)).probabilities

    @staticmethod
    def targets(examples: LabelledImages) -> torch.Tensor:
        assert examples.labels is not None
        return examples.labels


class ImageClassification(DecidingProblem[LabelledImages], ImageProblem[LabelledImages, ImageClassificationParams]):
    """Learns one class an image."""

    roles: ClassVar = {"image": ImageColumn, LABEL: ClassLabel}
    examples, model = LabelledImages, ImageClassifier
    problem_type = "single_label_classification"

    def present(self, answers: ClassAnswers, examples: LabelledImages, dataset: Path, out: Path, mistakes: int) -> None:
        schema = read_schema(dataset)
        answers.write_classes(schema, out)
        worst, names = answers.worst_mistakes(mistakes), [str(name) for name in schema.classes]
        pictures.plot_mistakes(examples.pixels[worst], answers, worst, names, out / "mistakes.png")

    def explained(
        self, folder: Path, model: Model[LabelledImages], values: list[np.ndarray], schema: Schema
    ) -> ExplainedImages:
        assert isinstance(model, ImageClassifier)
        return ExplainedImages.of(model, np.stack(values), *model.chosen(self.asked(folder, values), schema))
