"""What sets of classes of images and of text share of asking and showing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftline.dataset import Schema, read_schema
from graftline.errors import InputError
from graftline.problems.multi_label.answers import SetAnswers, names
from graftline.problems.multi_label.parameters import MultiLabelParams
from graftline.problems.problem import Problem
from graftline.problems.reading import with_cut


class SetProblem(Problem[Any]):
    """Before a problem of one kind of data among the bases: its answers are sets of classes."""

    loss_unit = "binary cross entropy"
    header = ("labels", "next")
    amount = "examples"
    elsewhere: ClassVar[frozenset[str]]
    """The parameters that only other data heed."""

    asked: Callable[[Path, list[Any]], Any]
    """Returns the questions' values, as the model in the folder takes them, as examples without labels."""

    @abstractmethod
    def show_mistakes(self, answers: SetAnswers, examples: Any, worst: np.ndarray, dataset: Path, out: Path) -> None:
        """Write what a person is shown of the wrong sets at the positions `worst`."""

    def check(self, schema: Schema, where: str | Path) -> None:
        super().check(schema, where)
        if schema.label is None or len(schema.classes) < 2:
            raise InputError(where, "no classes", expected="a label column of type labels")
        usual = MultiLabelParams()
        for name in sorted(self.elsewhere):
            if getattr(self.params, name) != getattr(usual, name):
                raise InputError(
                    f"finetune.head.{name}", "given", expected=f"nothing: {self.plural} do not heed it",
                    fix="leave it out",
                )  # fmt: skip

    def present(self, answers: Any, examples: Any, dataset: Path, out: Path, mistakes: int) -> None:
        answers.write(read_schema(dataset), out)
        self.show_mistakes(answers, examples, answers.worst_mistakes(mistakes), dataset, out)

    def ask(self, folder: Path, model: Any, values: list[Any], schema: Schema) -> list[dict[str, Any]]:
        """Return the `labels` of each question, and `probabilities` by class name."""
        examples = self.asked(folder, values)
        answers = [
            {
                "labels": names(row >= model.thresholds, schema),
                "probabilities": {name: float(p) for name, p in zip(schema.classes, row, strict=True)},
            }
            for row in model.probabilities(examples)
        ]
        return with_cut(answers, examples)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        """Return the labels, the most probable first, and the most probable class that is none of them."""
        ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
        told = [(name, f"{name} ({p:.4f})") for name, p in ranked]
        chosen = [text for name, text in told if name in answer["labels"]]
        others = [text for name, text in told if name not in answer["labels"]]
        return ", ".join(chosen) or "none", others[0] if others else ""
