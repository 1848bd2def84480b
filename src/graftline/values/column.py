"""What all kinds of columns have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from graftline.tables import RawBatch
from graftline.tasks.parameters import Params
from graftline.values.facts import ColumnBatch
from graftline.values.rules import Rule

if TYPE_CHECKING:
    import pyarrow as pa
Nearness = Literal["min_cosine", "min_jaccard"]
"""Which key of the contract's near_duplicates fits a feature."""


class Balance(Params):
    """Bounds of each class's share of the labelled rows."""

    min_share: float = Field(default=0.0, ge=0, le=1)
    """Smallest share of a class, from 0 to 1."""

    max_share: float = Field(default=1.0, ge=0, le=1)
    """Largest share of a class, from 0 to 1."""


class Column(Params):
    """What the contract may say of every column, and what each kind of column must know about itself."""

    role: Literal["feature", "label", "split", "metadata"] = "metadata"
    """feature: what a model sees, and what decides the split; label: to predict; split: the raw data's own
    split; metadata: only kept."""

    nullable: bool = False
    """Whether a value may be missing."""

    max_null_share: float = Field(default=1.0, ge=0, le=1)
    """Largest share of missing values among all rows, from 0 to 1, where they may be missing."""

    unique: bool = False
    """Whether a value may stand once only; later rows with it go to the quarantine."""

    classes_are_words: ClassVar[bool] = False
    """Whether YAML must read the classes as text."""

    @abstractmethod
    def output_type(self) -> pa.DataType:
        """Return the Arrow type of the column in the dataset."""

    @abstractmethod
    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        """Return the column `name` of a batch. Raises InputError if its type cannot hold such values."""

    @abstractmethod
    def rules(self, name: str) -> list[Rule]:
        """Return the rules on the facts of each value."""
