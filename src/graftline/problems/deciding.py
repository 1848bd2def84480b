"""What the problems that choose one of some classes share: a rule of choice, which val calibrates after training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from graftline.dataset import Schema
from graftline.problems.answers import LABEL_HEADER, label_line
from graftline.problems.classes import ClassAnswers
from graftline.problems.deciding_parameters import DecidingParams, cost_matrix
from graftline.problems.decisions import Decided, Decision
from graftline.problems.groups import Groups
from graftline.problems.problem import Examples, Model, Problem
from graftline.problems.reading import with_cut
from graftline.score import Score

E = TypeVar("E", bound=Examples)


class Decider(Model[E]):
    """Among a model's bases, before one that gives logits: it chooses a class of each unit."""

    decision: Decision = Decision()
    deciding: DecidingParams
    asked: float | None = None
    """The coverage of the sets that a person asks for; None for labels alone."""
    answers: ClassVar[type[ClassAnswers]] = ClassAnswers

    @abstractmethod
    def logits(self, examples: Any, *, fast: bool = False) -> torch.Tensor:
        """Return (units, classes) float32 on the CPU."""

    targets: Callable[[Any], torch.Tensor]
    """Returns the (units,) class indices of labelled examples."""

    def decide(self, examples: E) -> Decided:
        """Return what the model says of examples, with or without labels."""
        return self.decision.decide(self.logits(examples))

    def chosen(self, examples: E, schema: Schema) -> tuple[torch.Tensor, list[str]]:
        """Return the (units,) class indices that the model chooses, and their names."""
        found = torch.from_numpy(self.decide(examples).chosen)
        return found, [str(schema.classes[number]) for number in found.tolist()]

    def answer(self, examples: E, *, fast: bool = False) -> ClassAnswers:
        decided = self.decision.decide(self.logits(examples, fast=fast))
        scores: tuple[Score, ...] = self.deciding.scores
        return self.answers.of(scores, examples.units()["row"], self.targets(examples), decided)

    def calibrate(self, val: E, groups: Groups | None = None) -> None:
        if self.deciding.calibration is None:
            return
        targets, weights = self.targets(val), val.unit_weights()
        known = np.ones(len(targets)) if weights is None else weights.numpy().astype(np.float64)
        rows = val.units()["row"]
        self.decision = self.decision.fitted(self.deciding, self.logits(val), targets.numpy(), known, rows, groups)

    def save(self, folder: Path) -> dict[str, Any]:
        facts: dict[str, Any] = super().save(folder)  # type: ignore[safe-super]  # of the base behind
        return facts | self.decision.facts()


class DecidingProblem(Problem[E]):
    """Among a problem's bases, before one that builds and loads models: these are `Decider`s."""

    header: ClassVar[tuple[str, ...]] = LABEL_HEADER

    asked: Callable[[Path, list[Any]], E]
    """Returns the questions' values, as the model in the folder takes them, as examples without labels."""

    @property
    def _rule(self) -> DecidingParams:
        params = self.params
        assert isinstance(params, DecidingParams)
        return params

    def check(self, schema: Schema, where: str | Path) -> None:
        super().check(schema, where)
        cost_matrix(self._rule.costs, schema.classes)

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> Any:
        return self._with_decision(super().build(trunk, schema, scratch=scratch), schema.classes)  # type: ignore[safe-super]

    def load(self, folder: Path, facts: dict[str, Any]) -> Any:
        model = self._with_decision(super().load(folder, facts), facts["classes"])  # type: ignore[safe-super]
        model.decision = model.decision.restored(self._rule, facts)
        return model

    def _with_decision(self, model: Any, classes: Any) -> Any:
        model.deciding, model.decision = self._rule, Decision.of(self._rule, classes)
        return model

    def ask_for_sets(self, model: Model[E], coverage: float) -> None:
        assert isinstance(model, Decider)
        model.decision, model.asked = model.decision.asked_for(coverage), coverage

    def ask(self, folder: Path, model: Model[E], values: list[Any], schema: Schema) -> list[dict[str, Any]]:
        assert isinstance(model, Decider)
        examples = self.asked(folder, values)
        return with_cut(model.decide(examples).told(schema.classes, model.asked), examples)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return label_line(answer)
