"""The contract of a task's raw data, `data/<task>/expectations.yaml`: what its columns must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from graftline.dataset import Feature, ImageColumn, Schema, TextColumn, TokensColumn
from graftline.errors import InputError, nearest
from graftline.rows.blocklist import Blocklist
from graftline.tasks.parameters import Params, parse
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


class _Column(Params):
    role: Literal["feature", "label", "split", "metadata"] = "metadata"
    """feature: what a model sees, and what decides the split; label: to predict; split: the raw data's own
    split; metadata: only kept."""

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


class Text(_Column):
    """Documents, one a row. Control characters are bad, but for tab, line feed and carriage return."""

    type: Literal["text"] = "text"

    role: Literal["feature", "label", "split", "metadata"] = "feature"
    """Text is what the model sees."""

    min_length: int = Field(default=1, ge=1)
    """Smallest length in characters, without white space at the ends."""

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in characters, likewise."""


class Tokens(_Column):
    """Sentences, one a row: a list of words (in CSV: words with spaces between). None holds a control character."""

    type: Literal["tokens"] = "tokens"

    role: Literal["feature", "label", "split", "metadata"] = "feature"
    """The words are what the model sees."""

    min_length: int = Field(default=1, ge=1)
    """Smallest length in words."""

    max_length: int | None = Field(default=None, ge=1)
    """Largest length in words."""


class Tags(_Column):
    """The label of a sentence: a list of tags (in CSV: with spaces between), as many as it has words."""

    type: Literal["tags"] = "tags"

    role: Literal["feature", "label", "split", "metadata"] = "label"
    """Tags are the label."""

    classes: tuple[str, ...]
    """The only tags allowed, in the order of class indices."""

    balance: Balance = Balance()
    """Of all tags, not of sentences."""


Column = Annotated[Image | Integer | Float | String | Text | Tokens | Tags, Field(discriminator="type")]
COLUMN_TYPES: dict[str, type[Image | Integer | Float | String | Text | Tokens | Tags]] = {
    "image": Image, "integer": Integer, "float": Float, "string": String,
    "text": Text, "tokens": Tokens, "tags": Tags,
}  # fmt: skip
FEATURES = (Image, Text, Tokens)
LABELS = (Integer, String, Tags)
SPLITS = ("train", "val", "test")


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
        feature: Feature
        if isinstance(column, Image):
            feature = ImageColumn(name, column.shape, column.max)
        else:
            feature = TextColumn(name) if isinstance(column, Text) else TokensColumn(name)
        return Schema(feature, None if self.label is None else self.label[0], self.classes)

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
        wanted, other = (
            ("min_cosine", "min_jaccard")
            if isinstance(self.feature[1], Image)
            else ("min_jaccard", "min_cosine")
        )
        if getattr(near, wanted) is None or getattr(near, other) is not None:
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
        _check_words(values.get("classes"), kind, where)
        columns[name] = parse(values, COLUMN_TYPES[kind], where=where)
    return parse({**document, "columns": columns}, Contract, where=str(path))


def _check_words(classes: object, kind: str, where: str) -> None:
    """Refuse classes that YAML did not read as the words that stand there: yes, no, on, off, null, 007, 1e5, a date."""
    if kind not in ("string", "tags") or not isinstance(classes, list):
        return
    found = [f"{value!r} ({type(value).__name__})" for value in classes if not isinstance(value, str)]
    if found:
        raise InputError(
            f"{where}.classes", f"YAML reads a word here as {', '.join(found[:5])}", expected="words",
            fix='put it in quotes: "yes", "no", "on", "off", "null", "007"; numbers want type: integer',
        )  # fmt: skip
