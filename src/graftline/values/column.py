"""What a kind of column says of itself, to `validate` and to whoever reads the dataset. One file a kind, beside this.

`Column` is the contract's word on a raw column: a parameter model whose methods read, judge, count and show its values.
`Stored` is the same column in a dataset. A kind that a model may see is a `Feature`, one that it may learn to tell a
`Label`; the other methods have defaults. registry.py finds them by the word `type`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.tasks.parameters import Params
from graftline.values import identity
from graftline.values.corruption import Corruption
from graftline.values.facts import ColumnBatch
from graftline.values.rules import Rule

if TYPE_CHECKING:
    import pyarrow as pa

    from graftline.raw.batches import RawBatch
    from graftline.raw.reader import Source
    from graftline.values.histograms import Histograms
    from graftline.values.leakage import Measure
    from graftline.values.samples import Samples

Role = Literal["feature", "label", "split", "group", "time", "weight", "metadata"]


class Balance(Params):
    """Bounds of each class's share of the labelled rows."""

    min_share: float = Field(default=0.0, ge=0, le=1)
    """Smallest share of a class, from 0 to 1."""

    max_share: float = Field(default=1.0, ge=0, le=1)
    """Largest share of a class, from 0 to 1."""


class Column(Params):
    """What a contract may say of any column."""

    type: str

    role: Role = "metadata"
    """feature: what a model sees, and what decides the split; label: to predict; split: the raw data's own
    split; group: its rows stay in one split; time: the latest rows are test; weight: how much a row counts; metadata:
    only kept."""

    name: str | None = None
    """Its name in the raw data, where that is another; `meta.language` is the field `language` of a struct `meta`."""

    nullable: bool = False
    """Whether a value may be missing."""

    max_null_share: float = Field(default=1.0, ge=0, le=1)
    """Largest share of missing values among all rows, from 0 to 1, where they may be missing."""

    unique: bool = False
    """Whether a value may stand once only; later rows with it go to the quarantine."""

    changes: ClassVar[Mapping[str, str]] = {}
    """What reading may do to a value, by its word, for people."""
    words: ClassVar[bool] = False
    """Whether `classes` are words, which YAML must not read as something else."""
    identifies: ClassVar[bool] = False
    """Whether a value may be a person's id, or name a group."""
    orders: ClassVar[bool] = False
    """Whether a value may be a time."""
    weighs: ClassVar[bool] = False
    """Whether a value may be a weight."""

    @property
    def bounded(self) -> bool:
        """Whether the contract says which values there are: of ids, that would tell of them."""
        return False

    @abstractmethod
    def arrow_type(self) -> pa.DataType:
        """Return the Arrow type of the column in the dataset."""

    @abstractmethod
    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        """Return a batch of the column. Raises InputError if its type cannot hold the contract's."""

    def read_beside(self, batch: RawBatch, name: str, columns: Mapping[str, Column]) -> ColumnBatch:
        """Return what `read` does; `columns` are the contract's, for values that depend on what another one says."""
        return self.read(batch, name)

    @abstractmethod
    def rules(self, name: str) -> list[Rule]:
        """Return the rules on the facts of each row, but that a value is given and that it is unique."""

    def facts_beside(self, name: str, columns: dict[str, ColumnBatch], features: Sequence[str]) -> dict[str, Any]:
        """Return facts of rows that need another column too, such as `tags.more_than_words`."""
        return {}

    def check(self, name: str, contract: Any) -> None:
        """Raise ValueError unless the other columns of the contract (`values.contract.Contract`) go with this one."""

    def cells(self, values: pa.Array) -> list[bytes]:
        """Return the bytes of each value that the digest of its row is over."""
        return identity.cell_bytes(values)

    def show(self, value: Any, cell: bytes) -> str:
        """Return a good value as the quarantine shows it, where it repeats one that is to be unique."""
        return str(value)

    def histograms(self, name: str) -> Histograms | None:
        """Return the empty histograms of the column, or None if it has no profile."""
        return None

    def times(self, values: pa.Array) -> np.ndarray:
        """Return (n,) int64 of values that are times: a later one is larger."""
        found: np.ndarray = values.to_numpy(zero_copy_only=False)
        return found

    def show_time(self, time: int) -> str:
        """Return one of these for people."""
        return str(time)


class Feature(Column):
    """A kind of column that a model may see."""

    role: Role = "feature"
    """A model sees it."""

    plural: ClassVar[str]
    """What its values are, such as `images`."""
    near: ClassVar[str]
    """The bound in the contract's `near_duplicates` that is for this kind."""
    near_together: ClassVar[bool] = False
    """Whether near-duplicates are found among rows of several such columns."""

    @property
    def decoded_bytes(self) -> int:
        """How much memory a value takes at most once it is decoded; 0 of what is as large as its raw form."""
        return 0

    @abstractmethod
    def stored(self, name: str) -> StoredFeature:
        """Return the column as the dataset's schema says it."""

    def same(self, values: pa.Array, cells: list[bytes]) -> list[bytes]:
        """Return the bytes of each value that its split goes by: equal ones are one value seen twice.

        `cells` are the values' own bytes.
        """
        return cells

    def loose(self, values: pa.Array) -> list[bytes] | None:
        """Return likewise what is left of values to models that do not see all; None if all models see them whole."""
        return None

    @abstractmethod
    def measure(self, names: Sequence[str], minimum: float) -> Measure:
        """Return how near-duplicates are found: from the likeness `minimum` on. `names` are all that a model sees."""

    @abstractmethod
    def near_text(self, minimum: float) -> str:
        """Return what no two splits hold, for people."""

    @abstractmethod
    def samples(self, name: str, label: str | None, classes: tuple[Any, ...]) -> Samples:
        """Return the collector of what the data report shows of the column.

        `classes` are those that samples are sorted by, empty for none; `label` is the label's column, if there is one.
        """

    def put_beside(self, name: str, raw: Path, source: Source, dataset: Path) -> list[str]:
        """Write into the dataset what its values need besides rows, such as a catalogue; return what to say of it.

        Nothing, unless a kind says otherwise. Raises InputError.
        """
        return []

    def from_file(self, path: Path) -> Any:
        """Return the value in a file that holds nothing else, as JSON would. Raises InputError."""
        raise InputError(path, f"a {path.suffix} file", expected=f"a row whose feature is of type {self.type}")


class Label(Column):
    """A kind of column that a model may learn to tell."""

    label_type: ClassVar[str]
    """The word of its form in the dataset (`StoredLabel`)."""
    one_class: ClassVar[bool] = True
    """Whether a labelled row is of exactly one of the classes."""
    counted: ClassVar[str] = "labelled rows"
    """What the counts of classes count."""
    everywhere: ClassVar[bool] = True
    """Whether each class must be in every split; else in train."""

    @property
    def label_classes(self) -> tuple[Any, ...]:
        """The label set, in the order of class indices; empty for a label without classes."""
        return ()

    @property
    def bounds(self) -> Balance:
        """The bounds of each class's share."""
        return Balance()

    def check_label(self, name: str) -> None:
        """Raise ValueError unless the column says what a label needs."""

    def ids(self, values: pa.Array) -> np.ndarray:
        """Return (n,) int32, equal for equal labels, -1 without one; of `one_class` labels the class indices."""
        digests = [int(sha256_bytes(cell)[:8], 16) >> 1 if cell != b"\0" else -1 for cell in self.cells(values)]
        return np.array(digests, np.int32)

    def members(self, values: pa.Array, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the class index of each occurrence of a class, (m,), and how many occurrences each row has, (n,)."""
        return ids, np.ones(len(ids), np.int64)

    def guesses(self) -> list[Any] | None:
        """Return every label that a row may have, or None where they cannot be listed."""
        return None


class OfClasses(Label):
    """Labels of classes, each of which a row may be of any number of times."""

    if TYPE_CHECKING:  # each has fields of its own: here they would come first in schemas
        classes: tuple[str, ...]
        balance: Balance

    words: ClassVar[bool] = True
    one_class: ClassVar[bool] = False
    everywhere: ClassVar[bool] = False

    @property
    def bounded(self) -> bool:
        return True

    @property
    def label_classes(self) -> tuple[str, ...]:
        return self.classes

    @property
    def bounds(self) -> Balance:
        return self.balance


@dataclass(frozen=True)
class Stored:
    """A column of a dataset."""

    name: str

    type: ClassVar[str]
    """The word for it in schema.json."""

    @abstractmethod
    def values(self, column: pa.ChunkedArray) -> Any:
        """Return the column in memory, as problems take it. Raises ValueError or KeyError for what it cannot hold."""

    @abstractmethod
    def croissant(self) -> dict[str, Any]:
        """Return what Croissant (https://docs.mlcommons.org/croissant) says of the column's type."""


@dataclass(frozen=True)
class Question:
    """Something to ask a release about, and its name in the answer."""

    name: str
    value: Any
    """In memory, as `Stored.values` has one."""


@dataclass(frozen=True)
class Questions:
    """What a person asks a release about."""

    asked: list[Question]
    notes: list[str] = field(default_factory=list)
    """What to tell the person beside the answers: what was changed on reading, and what was left out."""


class StoredFeature(Stored):
    """One that a model sees: `from_dict(feature.as_dict()) == feature`."""

    plural: ClassVar[str] = "text"
    """What its values are, for people."""
    label_type: ClassVar[str] = "category"
    """The usual form of a label beside it: a schema need not say it."""
    corruptions: ClassVar[tuple[str, ...]] = ()
    """How values may be spoiled so that the label still holds; empty of a kind that has no such ways."""
    asked_corruptions: ClassVar[tuple[str, ...]] = ()
    """Ways that only a person knows to apply, as of texts in one language: they have to be asked for by name."""

    def corrupted(
        self, column: pa.ChunkedArray, dataset: Path, rows: np.ndarray, by: Corruption
    ) -> tuple[StoredFeature, pa.Array]:
        """Return a column spoiled by one of `corruptions`, and how a dataset's schema says it then.

        Args:
            column: n values of this one.
            dataset: the folder that holds what lies in a file of its own.
            rows: (n,) the rows' numbers, which decide what is spoiled.
            by: how.
        """
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        return {"type": self.type, "name": self.name}

    def in_a_file(self) -> Self:
        """Return the column as one whose values lie in a file beside the Parquet files, which hold their places."""
        raise NotImplementedError

    def opened(self, column: pa.ChunkedArray, dataset: Path) -> Any:
        """Return the column as `values` does; the dataset's folder holds what lies in a file of its own."""
        return self.values(column)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StoredFeature:
        """Raises KeyError, TypeError or ValueError for what is no such column."""
        return cls(values["name"])

    def invented(self) -> pa.Array | None:
        """Return made-up values to time a step with, if they do as well as real ones; None if they do not."""
        return None

    @abstractmethod
    def question(self, where: str, value: Any) -> Any:
        """Return a value of JSON or Parquet in memory, as `values` has one. Raises InputError, begins with `where`."""

    @abstractmethod
    def questions(self, paths: list[Path], texts: list[str]) -> Questions:
        """Return what a person asks about: the values in files and folders, or typed as text. Raises InputError."""


@dataclass(frozen=True)
class StoredLabel(Stored):
    """One that a model learns to tell."""

    classes: tuple[Any, ...] = ()
    """In the order of class indices; empty for a label without classes."""
    one_class: ClassVar[bool] = False
    """Whether a row is of one class: labels are then asked for and counted class by class, else row by row."""

    @abstractmethod
    def invented(self, features: pa.Array) -> pa.Array:
        """Return made-up labels of rows, to time a step with; `features` are the rows' first feature."""
