"""A set of classes a row, of an image or of a text: a yes or no a class, each by binary cross entropy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftline.dataset import Schema, read_schema
from graftline.errors import InputError
from graftline.problems.multi_label.images import ImageSetModel, ImageSets, OnImages
from graftline.problems.multi_label.parameters import MultiLabelParams
from graftline.problems.multi_label.side import SetProblem
from graftline.problems.multi_label.texts import DocumentSets, OnText
from graftline.problems.problem import LABEL, Examples, Joint, Model, Problem
from graftline.trunks.images import is_image_trunk
from graftline.values.image import ImageColumn
from graftline.values.labels import LabelSets
from graftline.values.text import TextColumn


class Sets(Examples):
    """Images or documents; which of both, their arrays say."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Any:
        return (ImageSets if "pixels" in arrays else DocumentSets).from_arrays(arrays)


class MultiLabel(Problem[Any]):
    """Learns which of some classes an image or a text is of: none, one, or several.

    Parameters alone do not say on what it learns. The dataset or the model at hand does, so each call goes to
    `OnImages` or `OnText`.
    """

    roles: ClassVar = {LABEL: LabelSets}
    examples = Sets
    loss_unit = "binary cross entropy"
    header = SetProblem.header
    plural, amount = "examples", "examples"

    def __init__(self, params: MultiLabelParams) -> None:
        self._params = params
        self._sides: dict[str, SetProblem] = {
            ImageColumn.type: OnImages(params), TextColumn.type: OnText(params),
        }  # fmt: skip

    @property
    def params(self) -> MultiLabelParams:
        return self._params

    def _on(self, schema: Schema, where: str | Path = "schema.json") -> SetProblem:
        kinds = [feature.type for feature in schema.features]
        if len(kinds) != 1 or kinds[0] not in self._sides:
            raise InputError(
                where, f"the feature is of type {' and '.join(kinds)}", expected=" or ".join(self._sides),
                fix="choose a head for this type of data",
            )  # fmt: skip
        return self._sides[kinds[0]]

    def check(self, schema: Schema, where: str | Path) -> None:
        self._on(schema, where).check(schema, where)

    def environment(self, trunk: Path) -> dict[str, str]:
        side = ImageColumn.type if is_image_trunk(trunk) else TextColumn.type
        return self._sides[side].environment(trunk)

    def read(self, dataset: Path, split: str, folder: Path) -> Any:
        return self._on(read_schema(dataset), dataset).read(dataset, split, folder)

    def present(self, answers: Any, examples: Any, dataset: Path, out: Path, mistakes: int) -> None:
        self._on(read_schema(dataset)).present(answers, examples, dataset, out, mistakes)

    def ask(self, folder: Path, model: Model[Any], values: list[Any], schema: Schema) -> list[dict[str, Any]]:
        return self._on(schema).ask(folder, model, values, schema)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return self._sides[TextColumn.type].line(answer)

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> Model[Any]:
        return self._on(schema).build(trunk, schema, scratch=scratch)

    def joint(self, trunk: Path, model: Model[Any], unlabelled: Any, batch: int, *, scratch: bool) -> Joint:
        kind = ImageColumn if isinstance(model, ImageSetModel) else TextColumn
        return self._sides[kind.type].joint(trunk, model, unlabelled, batch, scratch=scratch)

    def load(self, folder: Path, facts: dict[str, Any]) -> Model[Any]:
        return self._on(Schema.from_dict(facts), folder).load(folder, facts)
