"""Sets of classes: any number of them a row, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from graftline.values.column import Balance, Role
from graftline.values.tags import ClassLists, StoredLists


class Labels(ClassLists):
    """A set of classes (in CSV: with spaces between), in any order; an empty set is a label, a missing one is not."""

    type: Literal["labels"] = "labels"

    role: Role = "label"
    """Sets of classes are the label."""

    classes: tuple[str, ...]
    """The only ones allowed, in the order of class indices."""

    balance: Balance = Balance()
    """Of all labels that rows have, not of rows."""

    label_type: ClassVar[str] = "labels"
    counted: ClassVar[str] = "labels"

    def cells(self, values: pa.Array) -> list[bytes]:
        return super().cells(_sets(values))

    def members(self, values: pa.Array, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return super().members(_sets(values), ids)


def _sets(values: pa.Array) -> pa.Array:
    """Return each row's classes in one order, each once: equal sets are equal lists."""
    return pa.array([names if names is None else sorted(set(names)) for names in values.to_pylist()], values.type)


@dataclass(frozen=True)
class LabelSets(StoredLists):
    """A set of classes a row."""

    type: ClassVar[str] = "labels"

    def values(self, column: pa.ChunkedArray) -> np.ndarray:
        """Return (n, classes) bool."""
        index = {name: number for number, name in enumerate(self.classes)}
        found = np.zeros((len(column), len(self.classes)), bool)
        for row, names in enumerate(column.to_pylist()):
            found[row, [index[name] for name in names]] = True
        return found

    def invented(self, features: pa.Array) -> pa.Array:
        classes = self.classes
        return pa.array([[classes[i % len(classes)], classes[0]] for i in range(len(features))])
