"""The contract of a task's raw data, `data/<task>/expectations.yaml`: what its columns must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from graftline.dataset import Schema
from graftline.errors import InputError, nearest
from graftline.rows.blocklist import Blocklist
from graftline.tasks.parameters import Params, parse
from graftline.values.category import String
from graftline.values.image import Image
from graftline.values.number import Float, Integer
from graftline.values.tags import Tags
from graftline.values.text import Text
from graftline.values.words import Tokens
from graftline.yamlfile import load_yaml

RESERVED = ("row", "split", "digest")
"""Names that the output adds."""


class NearDuplicates(Params):
    """When rows in two splits count as one row seen twice."""

    min_cosine: float | None = Field(default=None, gt=0.9, le=1)
    """Of images: cosine of their pixels, each image's mean taken off, from which on they do: 0.9 to 1.

    The search finds a pair at 0.99 with probability 0.87, at 0.995 with 0.97, at 0.999 with 0.9997.
    """

    min_jaccard: float | None = Field(default=None, ge=0.8, le=1)
    """Of text: share of their runs of 5 characters that both have, from which on they do: 0.8 to 1.

    The search finds a pair at 0.8 with probability 0.95, at 0.85 with 0.99, at 0.9 with 0.9999.
    """


Hex16 = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Erased(Params):
    """Rows that must not come back; `graftline erase` fills it in."""

    rows: tuple[Hex64, ...] = ()
    """Digests of rows, as in rows.parquet."""

    subjects: tuple[Hex32, ...] = ()
    """Keyed hashes of persons' ids, as in rows.parquet."""

    key: Hex16 | None = None
    """The check value of the subjects' key: with another key nobody would be recognized."""

    def as_blocklist(self) -> Blocklist:
        return Blocklist(self.rows, self.subjects, self.key)


Column = Annotated[Image | Integer | Float | String | Text | Tokens | Tags, Field(discriminator="type")]
COLUMN_TYPES: dict[str, type[Image | Integer | Float | String | Text | Tokens | Tags]] = {
    "image": Image, "integer": Integer, "float": Float, "string": String,
    "text": Text, "tokens": Tokens, "tags": Tags,
}  # fmt: skip
FEATURES = (Image, Text, Tokens)
LABELS = (Integer, String, Tags)


class Contract(Params):
    """The columns, and what holds across rows. Columns that are not named here are refused."""

    columns: dict[str, Column]
    """Each column by name: one feature (image, text or tokens), one label, and any others.

    Text and tokens may be without a label: for learning from the text alone.
    """

    min_rows: int = Field(default=1, ge=1)
    """Smallest number of rows."""

    near_duplicates: NearDuplicates | None = None
    """Without it, near-duplicates across splits are not searched for."""

    subject: str | None = None
    """The column with the id of the person that a row is about. It is stored as a keyed hash and never in clear."""

    erased: Erased = Erased()
    """Rows that go to the quarantine without their values, whatever the raw data brings."""

    @property
    def feature(self) -> tuple[str, Image | Text | Tokens]:
        """The name of the one column that a model sees, and its rules."""
        return next((name, column) for name, column in self.columns.items() if isinstance(column, FEATURES))

    @property
    def label(self) -> tuple[str, Integer | String | Tags] | None:
        """The name of the label column and its rules; None for a task without labels."""
        name = next((name for name, column in self.columns.items() if column.role == "label"), None)
        if name is None:
            return None
        column = self.columns[name]
        assert isinstance(column, LABELS)
        return name, column

    @property
    def split(self) -> str | None:
        """The name of the column with the raw data's own split, if it brings one."""
        return next((name for name, column in self.columns.items() if column.role == "split"), None)

    @property
    def classes(self) -> tuple[int, ...] | tuple[str, ...]:
        """The label set, in the order of class indices; empty for a task without labels."""
        if self.label is None:
            return ()
        classes = self.label[1].classes
        assert classes is not None
        return classes

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that a model sees: rows that are equal in them must not stand in two splits."""
        return (self.feature[0],)

    def schema_of_dataset(self) -> Schema:
        """Return what later components need to know about the columns."""
        name, column = self.feature
        return Schema(column.as_feature(name), None if self.label is None else self.label[0], self.classes)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.columns:
            if name in RESERVED and self.columns[name].role != "split":
                raise ValueError(f"column '{name}' has a name that the output uses: rename it")
        self._check_feature()
        self._check_label()
        splits = [column for column in self.columns.values() if column.role == "split"]
        if len(splits) > 1 or any(column.type != "string" or column.nullable for column in splits):
            raise ValueError("at most one column has 'role: split'; it is a string and not nullable")
        self._check_near_duplicates()
        self._check_subject()
        return self

    def _check_feature(self) -> None:
        features = [name for name, column in self.columns.items() if isinstance(column, FEATURES)]
        if len(features) != 1:
            raise ValueError(
                f"exactly one column of type image, text or tokens is needed, found {len(features)}"
            )
        for name, column in self.columns.items():
            if column.role == "feature" and name != features[0]:
                raise ValueError(
                    f"columns.{name}: only '{features[0]}' is a feature; give it the role metadata"
                )
        name, column = self.feature
        if column.role != "feature" or column.nullable:
            raise ValueError(f"columns.{name}: it has the role feature and is not nullable")

    def _check_label(self) -> None:
        labels = [name for name, column in self.columns.items() if column.role == "label"]
        if len(labels) > 1 or (not labels and isinstance(self.feature[1], Image)):
            raise ValueError(f"exactly one column with 'role: label' is needed, found {len(labels)}")
        for name, column in self.columns.items():
            if isinstance(column, Tags) and (
                column.role != "label" or not isinstance(self.feature[1], Tokens)
            ):
                raise ValueError(f"columns.{name}: tags are the label of a column of type tokens")
        if not labels:
            return
        label = self.columns[labels[0]]
        if not isinstance(label, LABELS) or label.classes is None or len(label.classes) < 2:
            raise ValueError(
                f"columns.{labels[0]}: a label is an integer, string or tags with at least two classes"
            )
        if len(set(label.classes)) != len(label.classes):
            raise ValueError(f"columns.{labels[0]}.classes: a class stands twice")
        if isinstance(self.feature[1], Tokens) and not isinstance(label, Tags):
            raise ValueError(f"columns.{labels[0]}: the label of a column of type tokens is of type tags")

    def _check_near_duplicates(self) -> None:
        near = self.near_duplicates
        if near is None:
            return
        wanted = self.feature[1].nearness
        if set(near.model_dump(exclude_none=True)) != {wanted}:
            raise ValueError(f"near_duplicates: give {wanted} for a column of type {self.feature[1].type}")

    def _check_subject(self) -> None:
        if self.subject is None:
            return
        column = self.columns.get(self.subject)
        if column is None:
            raise ValueError(
                f"subject: there is no column '{self.subject}'{nearest(self.subject, list(self.columns))}"
            )
        if not isinstance(column, String | Integer) or column.role != "metadata":
            raise ValueError(
                f"subject: '{self.subject}' is a column of type string or integer with the role metadata"
            )
        bounded = isinstance(column, Integer) and (column.min, column.max) != (None, None)
        if column.classes is not None or bounded:
            raise ValueError(
                f"columns.{self.subject}: a subject has no classes and no bounds: they would tell of ids"
            )


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
        if COLUMN_TYPES[kind].classes_are_words:
            _check_words(values.get("classes"), where)
        columns[name] = parse(values, COLUMN_TYPES[kind], where=where)
    return parse({**document, "columns": columns}, Contract, where=str(path))


def _check_words(classes: object, where: str) -> None:
    """Refuse classes that YAML did not read as the words that stand there: yes, no, on, off, null, 007, 1e5, a date."""
    if not isinstance(classes, list):
        return
    found = [f"{value!r} ({type(value).__name__})" for value in classes if not isinstance(value, str)]
    if found:
        raise InputError(
            f"{where}.classes", f"YAML reads a word here as {', '.join(found[:5])}", expected="words",
            fix='put it in quotes: "yes", "no", "on", "off", "null", "007"; numbers want type: integer',
        )  # fmt: skip
