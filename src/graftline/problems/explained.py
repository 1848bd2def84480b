"""What explanations need of a problem: its answers, the parts of what was asked, and the answer without some of them.

A problem that has it returns an `Explained` from `Problem.explained`, and says so in its parameters (`explains`). What
is made of it stands in graftline/explain: methods that give each part a number, and how far these can be believed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Sets = NDArray[np.bool_]


@dataclass(frozen=True)
class Line:
    """The straight line from some examples with all parts hidden to the examples as they are."""

    places: Places
    """(k,) of the examples."""
    start: torch.Tensor
    """(k, ...) what the model computes with, where all parts are hidden."""
    end: torch.Tensor
    """(k, ...) the same of the examples themselves."""
    output: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(m, ...) points and the (m,) numbers of their examples among the k, to (m,) log-probabilities of the answers."""
    by_part: Callable[[torch.Tensor], Floats]
    """(k, ...) numbers of the line's dimensions to (k, most) sums, one a part."""


@dataclass(frozen=True)
class Attention:
    """How a trunk with attention mixed some examples."""

    places: Places
    """(k,) of the examples."""
    layers: Sequence[torch.Tensor]
    """Of each layer (k, tokens, tokens), the mean of its heads: row i is what token i is mixed of."""
    readers: torch.Tensor
    """(k, tokens): the share of each token in what the head reads, 1 in all."""
    by_part: Callable[[torch.Tensor], Floats]
    """(k, tokens) to (k, most): what each part has of it."""


@dataclass(frozen=True, eq=False)
class Explained(ABC):
    """A model's answers on n examples, and the parts of each.

    Arrays over parts are (n, most), where `most` is the largest number of parts; what stands behind those of an example
    with fewer means nothing.
    """

    model: Any
    parts: Places
    """(n,) how many parts each example has, at least 1."""
    answers: list[str]
    """What the model answers; explained is the probability of that."""

    part: ClassVar[str]
    """What a part is, for people: `word`."""
    hidden: str
    """What stands in place of a hidden part, for people."""

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def most(self) -> int:
        return int(self.parts.max())

    @property
    def there(self) -> Sets:
        """(n, most): where an example has a part."""
        found: Sets = np.arange(self.most) < self.parts[:, None]
        return found

    def by(self, model: Any) -> Self:
        """Return the same answers and parts, with another model that says how probable these answers are."""
        return replace(self, model=model)

    @abstractmethod
    def log_probabilities(self, places: Places, kept: Sets) -> Floats:
        """Return (k,): of the examples at the (k,) places, the answers' log-probabilities, all but the parts in the
        (k, most) `kept` hidden."""

    @abstractmethod
    def windows(self, place: int) -> Sets:
        """Return the (w, most) sets of parts that occlusion hides together; each part of the example is in some."""

    @abstractmethod
    def lines(self) -> Iterator[Line]:
        """Yield the lines of all examples, some at a time; torch may ask them for gradients."""

    @abstractmethod
    def attention(self) -> Iterator[Attention] | str:
        """Return the attention on all examples, some at a time; or why there is none."""

    @abstractmethod
    def vectors(self) -> NDArray[np.float32]:
        """Return (n, width): what the trunk makes of each example."""

    @abstractmethod
    def told(self, place: int, found: Floats, count: int) -> str:
        """Return the parts of an example that have the largest of its (most,) numbers, at most `count`, for people."""

    @abstractmethod
    def values(self, place: int, found: Floats) -> Any:
        """Return an example's parts with their (most,) numbers, for programs."""

    @abstractmethod
    def marked(self, place: int, found: Floats) -> Markup:
        """Return an example as HTML, its parts coloured by their (most,) numbers."""

    @abstractmethod
    def shown(self, place: int) -> Markup:
        """Return an example as HTML."""

    def draw(self, places: Sequence[int], found: dict[str, Floats], path: Path) -> bool:
        """Draw some examples and, by the method's title, what each method found (n, most); False if words tell it."""
        return False


def log_of_target(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return (k,): the log-probability of each target, of (k, classes) logits that a model returns."""
    found: torch.Tensor = outputs.log_softmax(dim=1).gather(1, targets[:, None])[:, 0]
    return found


def shades(found: Floats) -> Floats:
    """Return numbers of one example scaled so that the largest, whatever its sign, is 1 or -1."""
    most = float(np.abs(found).max(initial=0))
    scaled: Floats = found / most if most else found
    return scaled
