"""Image regression: a linear layer on the trunk's embedding tells one number or several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema
from graftline.problems import pictures
from graftline.problems.image_regression.parameters import ImageRegressionParams
from graftline.problems.images import ImageModel, ImageProblem, LabelledImages
from graftline.problems.problem import LABEL, Model
from graftline.problems.regression import (
    HEADER,
    NumberAnswers,
    Regressor,
    check_numbers,
    names_of,
    number_line,
    width_of,
)
from graftline.problems.sections import Section, write_sections
from graftline.trunks.image_trunk import ImageTrunk
from graftline.values.image import ImageColumn
from graftline.values.number import NumberLabel
from graftline.values.pixels import Pixels


@dataclass(frozen=True)
class MeasuredImages(LabelledImages):
    """Images with numbers as labels: float64, (n,) or (n, numbers)."""

    @property
    def classes(self) -> None:
        return None


class ImageRegressor(Regressor[MeasuredImages], ImageModel[MeasuredImages, ImageRegressionParams]):
    """Images to (n, numbers) outputs."""

    def __init__(self, trunk: ImageTrunk, width: int, params: ImageRegressionParams, **given: Any) -> None:
        super().__init__(trunk, width, params, **given)
        self.regression = params

    def scaled(self, examples: MeasuredImages, *, fast: bool = False) -> torch.Tensor:
        return self.outputs(examples.pixels, fast=fast)

    def save(self, folder: Path) -> dict[str, Any]:
        return {**super().save(folder), **self.facts()}


class ImageRegression(ImageProblem[MeasuredImages, ImageRegressionParams]):
    """Learns one number an image, or several."""

    roles: ClassVar = {"image": ImageColumn, LABEL: NumberLabel}
    examples, model = MeasuredImages, ImageRegressor
    problem_type = "regression"
    header = HEADER
    amount, loss_unit = "images", "squared error, in variances"
    width, names = staticmethod(width_of), staticmethod(names_of)

    def read(self, dataset: Path, split: str, folder: Path) -> MeasuredImages:
        found = super().read(dataset, split, folder)
        check_numbers(found.labels, dataset / f"{split}.parquet")
        return found

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

    def ask(
        self, folder: Path, model: Model[MeasuredImages], values: list[np.ndarray], schema: Schema
    ) -> list[dict[str, Any]]:
        assert isinstance(model, ImageRegressor)
        pixels = Pixels.of_numbers(np.stack(values))
        return model.tell(MeasuredImages(pixels, None, torch.arange(len(values))), schema)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return number_line(answer)

    def load(self, folder: Path, facts: dict[str, Any]) -> ImageRegressor:
        model = super().load(folder, facts)
        assert isinstance(model, ImageRegressor)
        return model.restore(facts)
