"""The contract of a task's raw data, `data/<task>/expectations.yaml`: what its columns must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from graftline.dataset import ImageColumn as DatasetImage
from graftline.dataset import Schema
from graftline.errors import InputError, nearest
from graftline.params import Params, parse
from graftline.yamlfile import load_yaml

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
RESERVED = ("row", "split", "digest")
"""Names that the output adds."""


class Balance(Params):
    """Bounds of each class's share of the labelled rows."""

    min_share: float = Field(default=0.0, ge=0, le=1)
    """Smallest share of a class, from 0 to 1."""

    max_share: float = Field(default=1.0, ge=0, le=1)
    """Largest share of a class, from 0 to 1."""


class NearDuplicates(Params):
    """When images in two splits count as one image seen twice."""

    min_cosine: float = Field(gt=0.9, le=1)
    """Cosine of the two images' pixels, each image's mean taken off, from which on they do: 0.9 to 1.

    The search finds a pair at 0.99 with probability 0.87, at 0.995 with 0.97, at 0.999 with 0.9997.
    """


class _Column(Params):
    role: Literal["feature", "label", "split", "metadata"] = "metadata"
    """feature: what a model sees, and what decides the split: the image; label: to predict; split: the raw
    data's own split; metadata: only kept."""

    nullable: bool = False
    """Whether a value may be missing."""

    max_null_share: float = Field(default=1.0, ge=0, le=1)
    """Largest share of missing values among all rows, from 0 to 1, where they may be missing."""

    unique: bool = False
    """Whether a value may stand once only; later rows with it go to the quarantine."""


class Image(_Column):
    """Grey images of one size: a list of pixels, row by row (in CSV: numbers with spaces between)."""

    type: Literal["image"] = "image"

    role: Literal["feature", "label", "split", "metadata"] = "feature"
    """An image is what the model sees."""

    shape: tuple[int, int]
    """Height and width in pixels, each from 1 to 4096."""

    min: Literal[0] = 0
    """Smallest pixel value: black is 0."""

    max: float = 255.0
    """Largest pixel value: full brightness."""

    dtype: Literal["uint8", "float32"] = "uint8"
    """How pixels are stored: uint8 takes whole numbers from 0 to 255."""

    @property
    def pixels(self) -> int:
        return self.shape[0] * self.shape[1]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(1 <= side <= 4096 for side in self.shape):
            raise ValueError("height and width must lie between 1 and 4096")
        if self.max <= 0:
            raise ValueError("max must be above 0")
        if self.dtype == "uint8" and self.max > 255:
            raise ValueError("uint8 pixels lie between 0 and 255: change max, or the dtype to float32")
        return self


class Integer(_Column):
    """Whole numbers of 64 bits."""

    type: Literal["integer"] = "integer"

    min: int | None = None
    """Smallest value."""

    max: int | None = None
    """Largest value."""

    classes: tuple[Int64, ...] | None = None
    """The only values allowed; of a label, in the order of class indices."""

    balance: Balance = Balance()
    """Of a label."""


class Float(_Column):
    """Finite numbers of 64 bits."""

    type: Literal["float"] = "float"

    min: float | None = None
    """Smallest value."""

    max: float | None = None
    """Largest value."""


class String(_Column):
    """Text."""

    type: Literal["string"] = "string"

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in characters."""

    classes: tuple[str, ...] | None = None
    """The only values allowed; of a label, in the order of class indices."""

    balance: Balance = Balance()
    """Of a label."""


Column = Annotated[Image | Integer | Float | String, Field(discriminator="type")]
COLUMN_TYPES: dict[str, type[Image | Integer | Float | String]] = {
    "image": Image, "integer": Integer, "float": Float, "string": String,
}  # fmt: skip
SPLITS = ("train", "val", "test")


class Contract(Params):
    """The columns, and what holds across rows. Columns that are not named here are refused."""

    columns: dict[str, Column]
    """Each column by name: one image, one label, and any others."""

    min_rows: int = Field(default=1, ge=1)
    """Smallest number of rows."""

    near_duplicates: NearDuplicates | None = None
    """Without it, near-duplicate images across splits are not searched for."""

    @property
    def image(self) -> tuple[str, Image]:
        return next((name, column) for name, column in self.columns.items() if isinstance(column, Image))

    @property
    def label(self) -> tuple[str, Integer | String]:
        name, column = next((name, column) for name, column in self.columns.items() if column.role == "label")
        assert isinstance(column, Integer | String)
        return name, column

    @property
    def split(self) -> str | None:
        """The name of the column with the raw data's own split, if it brings one."""
        return next((name for name, column in self.columns.items() if column.role == "split"), None)

    @property
    def classes(self) -> tuple[int, ...] | tuple[str, ...]:
        classes = self.label[1].classes
        assert classes is not None
        return classes

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that a model sees: rows that are equal in them must not stand in two splits."""
        return (self.image[0],)

    def schema_of_dataset(self) -> Schema:
        """Return what later components need to know about the columns."""
        name, image = self.image
        return Schema(DatasetImage(name, image.shape, image.max), self.label[0], self.classes)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.columns:
            if name in RESERVED and self.columns[name].role != "split":
                raise ValueError(f"column '{name}' has a name that the output uses: rename it")
        if [column.type for column in self.columns.values()].count("image") != 1:
            raise ValueError("exactly one column of type image is needed")
        for name, column in self.columns.items():
            if column.role == "feature" and column.type != "image":
                raise ValueError(f"columns.{name}: only the image is a feature; give it the role metadata")
        if self.image[1].role != "feature" or self.image[1].nullable:
            raise ValueError(f"columns.{self.image[0]}: an image has the role feature and is not nullable")
        labels = [name for name, column in self.columns.items() if column.role == "label"]
        if len(labels) != 1:
            raise ValueError(f"exactly one column with 'role: label' is needed, found {len(labels)}")
        self._check_label(labels[0])
        splits = [column for column in self.columns.values() if column.role == "split"]
        if len(splits) > 1 or any(column.type != "string" or column.nullable for column in splits):
            raise ValueError("at most one column has 'role: split'; it is a string and not nullable")
        return self

    def _check_label(self, name: str) -> None:
        label = self.columns[name]
        if not isinstance(label, Integer | String) or label.classes is None or len(label.classes) < 2:
            raise ValueError(f"columns.{name}: a label is an integer or string with at least two classes")
        if len(set(label.classes)) != len(label.classes):
            raise ValueError(f"columns.{name}.classes: a class stands twice")


def load_contract(path: Path) -> Contract:
    """Return the contract in the YAML file `path`. Raises InputError."""
    document = load_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("columns"), dict):
        raise InputError(
            path, "no mapping 'columns'", expected="each column's type and rules under 'columns'"
        )
    columns = {}
    for name, values in document["columns"].items():
        where = f"{path}: columns.{name}"
        if not isinstance(name, str) or not isinstance(values, dict):
            raise InputError(
                where, repr(values)[:80], expected="a name, and a mapping with its type and rules"
            )
        kind = str(values.get("type"))
        if kind not in COLUMN_TYPES:
            found = (
                f"unknown type '{kind}'{nearest(kind, list(COLUMN_TYPES))}" if "type" in values else "no type"
            )
            raise InputError(where, found, expected="one of " + ", ".join(COLUMN_TYPES))
        columns[name] = parse(values, COLUMN_TYPES[kind], where=where)
    return parse({**document, "columns": columns}, Contract, where=str(path))
