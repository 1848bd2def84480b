"""What every family of trunks gives to `pretrain` and `plan`: trainings, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from graftline.learning.optimizers import build_optimizers
from graftline.learning.precision import arithmetic
from graftline.records.model import ROOTSTOCK, Dependency
from graftline.trunks.rootstock import CheckpointParams, Rootstock, resolve

if TYPE_CHECKING:
    from torch import nn, optim

    from graftline.component import Context
    from graftline.dataset import Schema
    from graftline.learning.loop import Run
    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams
    from graftline.values.column import StoredFeature


@dataclass(frozen=True)
class Training:
    """One trunk to train: modules, optimizers, loss and steps, and what is written of it."""

    run: Run
    batch: int | Callable[[int], int]
    """How many `unit`s a step has, or a function that counts those of a step (from 0)."""
    unit: str
    write: Callable[[Path], dict[str, float]]
    """Write the trunk into a folder, and return its figures."""
    name: str = ""
    """Which of the trainings; empty for the main one, which later components learn on."""


@dataclass(frozen=True)
class Planned:
    """A training on a sample of the data, and what the whole run makes of it."""

    training: Training
    examples: float
    """Images or documents a step, here."""
    tokens: float | None
    """Tokens a step, here; None for images."""
    steps: int
    """Of the whole run."""
    batch: float
    """Examples a step, in the whole run."""
    answered: float = 0
    """Examples that are only answered, without a step."""
    ahead: float = 0.0
    """Seconds of work before the first step on this machine, such as tokenising all of the data."""


def start_of(params: PretrainParams, context: Context | None = None) -> Rootstock | None:
    """Return the checkpoint that the trunk starts from, recorded in the context's draft; None for a new trunk.

    Raises:
        InputError: as `resolve` does.
    """
    if not isinstance(params.trunk, CheckpointParams):
        return None
    found = resolve(params.trunk, where="pretrain.trunk")
    if context is not None:
        context.draft.dependencies.append(Dependency(ROOTSTOCK, found.digest, annotations=found.annotations()))
    return found


def optimizers_of(objective: nn.Module, params: PretrainParams, embeddings: set[int]) -> list[optim.Optimizer]:
    """Return the optimizers of an objective's weights, as the parameters say; `embeddings` as `build_optimizers`."""
    return build_optimizers(
        objective.named_parameters(), name=params.optimizer, learning_rate=params.learning_rate,
        matrix_rate=params.matrix_rate, weight_decay=params.weight_decay, embeddings=embeddings,
    )  # fmt: skip


class Family(Protocol):
    """One family of trunks: a folder beside this file, with this as its module family.py."""

    plural: ClassVar[str]
    """What an example is."""

    sees: ClassVar[tuple[type[StoredFeature], ...]]
    """The kinds of columns that its trunks learn from."""

    narrow_on_cpu: ClassVar[bool] = False
    """Whether the arithmetic `auto` narrows on a CPU that can."""

    def check(self, schema: Schema, params: PretrainParams) -> None:
        """Raise InputError for what else stands in the way of learning such a trunk."""
        schema.expect(self.sees)

    def arithmetic(self, params: PretrainParams) -> str:
        """Return the arithmetic that the parameters ask for, here."""
        return arithmetic(params.precision, narrow_on_cpu=self.narrow_on_cpu)

    def environment(self, params: PretrainParams) -> dict[str, str]:
        """Return what of the determinism tuple the parameters decide, such as the arithmetic."""
        return {"dtype": self.arithmetic(params)}

    def prepare(self, context: Context, params: PretrainParams, schema: Schema) -> Iterator[Training]:
        """Yield the main trunk's training, then those to compare with it, each when the one before has ended."""

    def plan(self, sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
        """Yield the same trainings on a sample, and write the main trunk, untrained, into the folder `trunk`."""
