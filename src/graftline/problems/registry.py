"""The kinds of learning problem. A new one is a folder beside this file, and a line in `PROBLEMS`.

The folder `x_y/` holds parameters.py with `XYParams` (without torch) and problem.py with the `Problem` `XY`.
"""

from __future__ import annotations

from functools import reduce
from importlib import import_module
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from graftline.problems.scores import ProblemParams
from graftline.processes import importing

if TYPE_CHECKING:
    from graftline.dataset import Schema
    from graftline.problems.problem import Problem

PROBLEMS = (
    "image_classification",
    "sequence_classification",
    "token_classification",
    "text_generation",
    "image_regression",
    "text_regression",
    "multi_label",
    "pair_classification",
    "question_answering",
    "recognition",
    "recommendation",
    "sequence_to_sequence",
    "detection",
    "rating",
)
"""The first is what `finetune` learns if its parameters name none."""


def _find(name: str, module: str, suffix: str) -> Any:
    camel = "".join(word.capitalize() for word in name.split("_"))
    return getattr(import_module(f"graftline.problems.{name}.{module}"), camel + suffix)


PARAMETERS: dict[str, type[ProblemParams]] = {name: _find(name, "parameters", "Params") for name in PROBLEMS}
DEFAULT = PARAMETERS[PROBLEMS[0]].model_validate({})
if TYPE_CHECKING:
    AnyProblemParams = ProblemParams
else:
    AnyProblemParams = reduce(or_, PARAMETERS.values())


def parse_params(values: object) -> ProblemParams:
    """Return a problem's parameters from what a params.yaml or a head.json says. Raises ValidationError."""
    known: TypeAdapter[ProblemParams] = TypeAdapter(Annotated[AnyProblemParams, Field(discriminator="name")])
    return known.validate_python(values)


def make_problem(params: ProblemParams, schema: Schema) -> Problem[Any]:
    """Return the problem that `params` are of, on the data that the schema describes."""
    with importing():
        kind: type[Problem[Any]] = _find(params.name, "problem", "")
    return kind.on(schema)(params)
