"""What a problem is: how its examples are read, and how its model learns, answers, is asked, saved and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import nn

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.learning.distributed import World
from graftline.learning.randomness import batch_indices
from graftline.problems.answers import Answers
from graftline.problems.explained import Explained
from graftline.problems.groups import Groups
from graftline.problems.scores import ProblemParams, no_explanation
from graftline.values.column import Questions, Stored, StoredFeature
from graftline.values.questions import read_rows


class Lost(Protocol):
    """What a model does not see, or cannot learn, of examples."""

    @property
    def examples(self) -> int:
        """How many examples it is about; nothing is said where it is about none."""

    def told(self, plural: str) -> str:
        """Return it as a sentence; `plural` is what the examples are."""

    def metrics(self, split: str) -> dict[str, float]:
        """Return it as flat metrics; `split` begins their names."""


class Examples(ABC):
    """The examples of one split in memory. They are made of plain arrays, so that processes can share them."""

    rows: torch.Tensor
    """(n,) int64 row numbers in the raw data."""
    weights: torch.Tensor | None = None
    """(n,) float32: how much each example counts; None where all count alike."""

    def __len__(self) -> int:
        return len(self.rows)

    @abstractmethod
    def take(self, chosen: torch.Tensor) -> Self:
        """Return the examples at the (k,) positions `chosen`, in that order."""

    @property
    @abstractmethod
    def classes(self) -> torch.Tensor | None:
        """(n,) class indices; None where an example has no one class (a sentence with a tag a word)."""

    @property
    def unit_classes(self) -> torch.Tensor | None:
        """(units,) class indices of what answers are about, such as words; None where these are of no one class."""
        return self.classes

    def unit_weights(self) -> torch.Tensor | None:
        """Return (units,) float32: how much each of them counts; None where all count alike."""
        return self.weights

    def weighted(self, weights: torch.Tensor) -> Self:
        """Return the examples with weights, of which there are as many as examples or as units."""
        return replace(self, weights=weights)  # type: ignore[type-var]  # dataclasses, all of them

    @property
    def wholes(self) -> int:
        """How many there are of what is drawn and counted as one; fewer than examples where one is read in several."""
        return len(self)

    def take_wholes(self, chosen: torch.Tensor) -> Self:
        """Return all examples of the (k,) wholes `chosen`, in that order."""
        return self.take(chosen)

    def draw(self, seed: int, step: int, size: int) -> torch.Tensor:
        """Return the (size,) positions of a step's batch, a pure function of (seed, step)."""
        return batch_indices(seed, step, size, len(self))

    def alike_in_size(self) -> list[torch.Tensor]:
        """Return the positions in groups to compute apart, so that little of a batch is padding; all in one here."""
        return [torch.arange(len(self))]

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return all there is: `from_arrays(examples.arrays())` is equal to `examples`."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return the examples that `arrays` returned these of."""

    @abstractmethod
    def digest(self) -> str:
        """Return the sha256 of inputs and labels."""

    def inputs(self) -> list[bytes] | None:
        """Return what a model sees of each whole, equal bytes where it sees no difference; None if that is known."""
        return None

    def lost(self) -> Lost | None:
        """Return what a model cannot learn or get right of the examples, whatever it is; None if there is no such."""
        return None

    def units(self) -> dict[str, np.ndarray]:
        """Return columns that say what each answer is about: `row`, and what tells the units of a row apart."""
        return {"row": self.rows.numpy()}


LABEL = "label"
"""The role of what is learned to tell."""

E = TypeVar("E", bound=Examples)


class Model(nn.Module, ABC, Generic[E]):
    """A trunk with a head on it."""

    clip: ClassVar[float | None] = None
    """Largest norm of the gradient of all parameters together; None for any."""
    rows_apart: bool = True
    """Whether what it makes of a row in training is the same whatever rows are in a batch with it."""

    @abstractmethod
    def head_parameters(self) -> list[nn.Parameter]:
        """Return what starts untrained."""

    @abstractmethod
    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return what pretraining made, as far as it is trained."""

    @abstractmethod
    def freeze_trunk(self) -> None:
        """Leave the trunk as it is from here on, its batch statistics too."""

    def begin(self, train: E) -> None:
        """Take from the training examples what they decide together, such as a label's mean: before the first step.

        Nothing, unless a model says otherwise.
        """
        return None

    def go_on_from(self, other: Model[E]) -> None:
        """Take the weights of a model that was loaded, and what it took in `begin`, which is not called then."""
        self.load_state_dict(other.state_dict())

    def calibrate(self, val: E, groups: Groups | None = None) -> None:
        """Take from examples that were held out what these alone can tell, such as how far off answers are.

        After the last step; not called where no labels were held out. Nothing, unless a model says otherwise.

        Args:
            val: held out.
            groups: which of them come together, for what is promised of new rows; None where each stands by itself.
        """
        return None

    def probe(self, train: E) -> None:
        """Solve the head for these examples on the trunk as it is: only of heads whose parameters say `probes`."""
        raise NotImplementedError

    def compile_if_worth(self, steps: int) -> None:
        """Compile what a training of so many steps is worth it for: nothing, unless a model says otherwise."""
        return None

    @abstractmethod
    def loss(self, examples: E, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the loss of a batch, a scalar; what it draws is a pure function of (seed, step).

        With `part`, return this process's addend of it: the mean over its share of the batch, times that share.
        """

    @abstractmethod
    def answer(self, examples: E, *, fast: bool = False) -> Answers:
        """Return the answers on labelled examples; with `fast` in the arithmetic of training."""

    @abstractmethod
    def save(self, folder: Path) -> dict[str, Any]:
        """Write the weights, and return what `Problem.load` needs to know besides."""


class Joint(Protocol):
    """The pretraining objective beside the head's loss."""

    @property
    def module(self) -> nn.Module:
        """Return what it learns besides the trunk; it shares no parameter with the model."""

    def loss(self, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the objective's loss of a step, a scalar; with `part`, this process's addend of it."""


class Problem(ABC, Generic[E]):
    """One kind of learning problem: a folder beside this file."""

    roles: ClassVar[dict[str, type[Stored]]]
    """What it needs of a dataset: the kind of each column that its model sees, in the contract's order, by a name for
    people; and under `label` the form of the labels, if it looks at them."""
    examples: type[E]
    loss_unit: ClassVar[str] = "cross entropy"
    """What the loss is in."""
    header: ClassVar[tuple[str, ...]]
    """The columns of what `predict` prints about a question, after its name."""
    amount: ClassVar[str] = "labels a class"
    """What `labels_per_class` counts."""
    plural: ClassVar[str] = "images"
    """What an example is."""
    spoiled: ClassVar[tuple[int, ...] | None] = None
    """Which of the columns that a model sees may be spoiled while the label holds, by their places; None for all."""
    weighs: ClassVar[bool] = True
    """Whether the loss heeds the examples' weights; else a dataset with weights is refused."""

    @classmethod
    def on(cls, schema: Schema) -> type[Problem[Any]]:
        """Return the class of problem for the data that the schema describes: this one, unless it says otherwise."""
        return cls

    @abstractmethod
    def __init__(self, params: Any) -> None:
        """Take the parameters."""

    @property
    @abstractmethod
    def params(self) -> ProblemParams:
        """The problem's parameters."""

    def check(self, schema: Schema, where: str | Path) -> None:
        """Raise InputError unless the dataset's columns can play the roles."""
        schema.expect([kind for kind in self.roles.values() if issubclass(kind, StoredFeature)], where)
        label, wanted = schema.label_column, self.roles.get(LABEL)
        if wanted is not None and not isinstance(label, wanted):
            raise InputError(
                where,
                "no column is a label" if label is None else f"the label is of type {label.type}",
                expected=wanted.type,
                fix="choose a head for this type of label",
            )

    def environment(self, trunk: Path) -> dict[str, str]:
        """Return what of the determinism tuple this head decides on the trunk in a folder, such as its arithmetic."""
        return {}

    @abstractmethod
    def read(self, dataset: Path, split: str, folder: Path) -> E:
        """Return a split's examples as the trunk or model in `folder` takes them.

        Raises:
            InputError: the dataset holds no examples of this kind.
        """

    @abstractmethod
    def present(self, answers: Any, examples: E, dataset: Path, out: Path, mistakes: int) -> None:
        """Write into the folder `out` what a person is shown of the answers on the test rows.

        Args:
            answers: this problem's, on all test rows.
            examples: the test rows.
            dataset: that they are of.
            out: a folder, for pictures and tables.
            mistakes: how many of the most confident ones to show.
        """

    def samples(self, model: Model[E], seed: int) -> list[dict[str, str]]:
        """Return what the model writes: `prompt` and `text` of each sample; empty for one that does not write."""
        return []

    def questions(self, schema: Schema, paths: list[Path], texts: list[str]) -> Questions:
        """Return what a person asks a model about: in files and folders, or typed as text. Raises InputError.

        Where a model sees several columns, a question is a row of a file, and its value a tuple.
        """
        if not schema.more:
            return schema.feature.questions(paths, texts)
        if texts:
            raise InputError("--text", "a text", expected="files with a row a question", fix="write a .jsonl file")
        return Questions(read_rows(paths, schema.features))

    @abstractmethod
    def ask(self, folder: Path, model: Model[E], values: list[Any], schema: Schema) -> list[dict[str, Any]]:
        """Return what the model in `folder` says about each question's value, for programs."""

    def ask_for_sets(self, model: Model[E], coverage: float) -> None:
        """Have `ask` say of each question which classes are not ruled out, of a coverage from 0 to 1.

        Raises:
            InputError: the model has no sets of classes, or none of that coverage.
        """
        raise InputError(
            "--coverage", f"a release of the head {self.params.name}", expected="one that chooses one of some classes",
            fix="leave it out",
        )  # fmt: skip

    @abstractmethod
    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        """Return one of these for people, in the columns of `header`."""

    def draw(self, value: Any, answer: dict[str, Any], path: Path) -> None:
        """Write a PNG of a question's value with what `ask` said of it. Raises InputError where there is nothing to
        draw."""
        raise InputError("--draw", "nothing that can be drawn", expected="a release that finds objects in images")

    def explained(self, folder: Path, model: Model[E], values: list[Any], schema: Schema) -> Explained:
        """Return the answers of the model in `folder` to questions' values, and the parts of those, to be explained.

        Raises:
            InputError: answers of this kind have no explanation here: `ProblemParams.explains` says so, too.
        """
        raise no_explanation(self.params, folder)

    @abstractmethod
    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> Model[E]:
        """Return the head on the trunk in the folder `trunk`, or with `scratch` on an untrained one of its shape.

        Draws from torch's global generator only. At an equal seed both start with equal heads.
        """

    @abstractmethod
    def joint(self, trunk: Path, model: Model[E], unlabelled: E, batch: int, *, scratch: bool) -> Joint:
        """Return the objective that made the trunk, around the model's trunk, on batches of `unlabelled`."""

    @abstractmethod
    def load(self, folder: Path, facts: dict[str, Any]) -> Model[E]:
        """Return the model that was saved in `folder`; `facts` is its head.json.

        Raises:
            InputError: the weights do not fit.
            KeyError, TypeError, ValueError: the facts are not this problem's.
        """
