"""A set of classes a row, of an image or of a text: a yes or no a class, each by binary cross entropy."""

from __future__ import annotations

from typing import Any

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.problems.multi_label.images import OnImages
from graftline.problems.multi_label.side import SetProblem
from graftline.problems.multi_label.texts import OnText
from graftline.problems.problem import Problem
from graftline.values.image import ImageColumn
from graftline.values.text import TextColumn


class MultiLabel(SetProblem):
    """Learns which of some classes an image or a text is of: none, one, or several.

    Parameters alone do not say on what it learns; the dataset or the model at hand does.
    """

    @classmethod
    def on(cls, schema: Schema) -> type[Problem[Any]]:
        found = [feature.type for feature in schema.features]
        if found == [ImageColumn.type]:
            return OnImages
        if found == [TextColumn.type]:
            return OnText
        raise InputError(
            "schema.json",
            f"the feature is of type {' and '.join(found)}",
            expected="image or text",
            fix="choose a head for this type of data",
        )
