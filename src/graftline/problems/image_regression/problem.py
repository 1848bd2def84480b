"""Image regression: a linear layer on the trunk's embedding tells one number or several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from graftline.dataset import read_schema
from graftline.problems import pictures
from graftline.problems.image_regression.parameters import ImageRegressionParams
from graftline.problems.images import ImageModel, ImageProblem, LabelledImages
from graftline.problems.problem import LABEL
from graftline.problems.regression import NumberAnswers, RegressionProblem, Regressor, names_of, width_of
from graftline.problems.sections import Section, write_sections
from graftline.values.image import ImageColumn
from graftline.values.number import NumberLabel


@dataclass(frozen=True)
class MeasuredImages(LabelledImages):
    """Images with numbers as labels: float64, (n,) or (n, numbers)."""

    @property
    def classes(self) -> None:
        return None


class ImageRegressor(Regressor[MeasuredImages], ImageModel[MeasuredImages, ImageRegressionParams]):
    """Images to (n, numbers) outputs."""

    def scaled(self, examples: MeasuredImages, *, fast: bool = False) -> torch.Tensor:
        return self.outputs(examples.pixels, fast=fast)


class ImageRegression(RegressionProblem[MeasuredImages], ImageProblem[MeasuredImages, ImageRegressionParams]):
    """Learns one number an image, or several."""

    roles: ClassVar = {"image": ImageColumn, LABEL: NumberLabel}
    examples, model = MeasuredImages, ImageRegressor
    problem_type = "regression"
    amount = "images"
    width, names = staticmethod(width_of), staticmethod(names_of)

    def present(
        self, answers: NumberAnswers, examples: MeasuredImages, dataset: Path, out: Path, mistakes: int
    ) -> None:
        schema, worst = read_schema(dataset), answers.worst(mistakes)
        captions = [answers.told(place, names_of(schema)) for place in worst]
        title = f"The {len(worst)} largest of {len(answers)} errors: actual above, predicted below"
        pictures.plot_images(examples.pixels[worst], captions, title, out / "errors.png")
        largest = Section(
            "Largest errors", "Test rows that are furthest off.", "errors.png", "Images that are furthest off"
        )
        write_sections([answers.write(schema, out), largest], out)
