"""What the data report shows of a column: its first values in train, of each class where there are classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from markupsafe import Markup

from graftline.values.identity import TRAIN

if TYPE_CHECKING:
    import pyarrow as pa

UNSORTED = 12
"""How many values the report shows where no classes sort them."""
TEXT_SHOWN = 240
"""How many characters of a text."""


class Samples(ABC):
    """Takes some values out of the batches of good rows."""

    @abstractmethod
    def add(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        """Look at a batch: its columns, the label's id of each row, and the split of each row."""

    @abstractmethod
    def html(self) -> Markup:
        """Return the values for the report, every one escaped."""


@dataclass
class ByClass(Samples):
    """The first values of each class, or the first of all."""

    name: str
    classes: tuple[Any, ...]
    kept: dict[int, list[Any]] = field(default_factory=dict)

    each: ClassVar[int]
    """How many values of each class are shown."""
    most_classes: ClassVar[int]

    def add(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        values = columns[self.name]
        for number in range(min(self.most_classes, len(self.classes))) if self.classes else [-1]:
            kept = self.kept.setdefault(number, [])
            limit = self.each if number >= 0 else UNSORTED
            if len(kept) < limit:
                chosen = splits == TRAIN if number < 0 else (labels == number) & (splits == TRAIN)
                places = np.flatnonzero(chosen)[: limit - len(kept)]
                kept.extend(values[int(place)].as_py() for place in places)

    def figures(self, show: Callable[[str, list[Any]], Markup]) -> Markup:
        """Return each class's name beside what `show` makes of the name and the values."""
        line = Markup("<div>{}</div><div>{}</div>\n")
        rows = (line.format(name, show(name, kept)) for name, kept in self.rows())
        return Markup('<div class="samples">\n{}</div>').format(Markup("").join(rows))

    def rows(self) -> list[tuple[str, list[Any]]]:
        """Return each class's name (empty without classes) and its values."""
        return [("" if number < 0 else str(self.classes[number]), kept) for number, kept in self.kept.items() if kept]


def begin(text: str) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 3] + "..."
