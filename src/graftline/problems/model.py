"""A fine-tuned model as a folder: head.json and the weights, in a model output or a release."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graftline.canonical import read_json
from graftline.dataset import Schema, read_schema
from graftline.errors import InputError
from graftline.problems.problem import Model, Problem
from graftline.problems.registry import make_problem, parse_params

FACTS = "head.json"


def save_model(problem: Problem[Any], model: Model[Any], schema: Schema, folder: Path) -> None:
    """Write the model's weights into `folder`, and what a reader needs to use it."""
    asked = replace(schema, group=None)  # which rows come together is of the data, not of what a model is asked
    values = {"head": problem.params.model_dump(mode="json"), **asked.as_dict(), **model.save(folder)}
    (folder / FACTS).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what the head.json in `folder` says: `head`, `feature`, `label`, `classes` and the problem's own.

    Raises:
        InputError: there is none, or it is not one.
    """
    values = read_json(folder / FACTS)
    try:
        Schema.from_dict(values)
        parse_params(values["head"])
    except (KeyError, TypeError, ValueError) as error:
        found = f"not a model's {FACTS} ({_short(error)})"
        raise InputError(folder / FACTS, found, fix="run finetune again") from None
    return dict(values)


def what_is_asked(facts: dict[str, Any]) -> dict[str, object]:
    """Return what of a head.json, or of a dataset's schema, says what is asked; columns may have other names."""
    features = (facts["feature"], *facts.get("more", ()))
    columns = {
        f"{column['type']} {fact} is" if len(features) == 1 else f"{fact} of column {number} is": value
        for number, column in enumerate(features, 1)
        for fact, value in column.items()
        if fact not in ("type", "name")
    }
    return {"features are": [column["type"] for column in features], "classes are": facts["classes"], **columns}


def check_dataset(facts: dict[str, Any], dataset: Path, who: str) -> None:
    """Return if the rows of a dataset are questions to the model of a head.json, called `who`. Raises InputError."""
    its, ours = what_is_asked(facts), what_is_asked(read_schema(dataset).as_dict())
    for what in its | ours:
        if its.get(what) != ours.get(what):
            raise InputError(
                dataset,
                f"not a dataset of {who}: its {what} {ours.get(what)}, the model's {its.get(what)}",
                fix="give the output of validate of the same task",
            )


def _short(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return repr(error)
    first = error.errors(include_url=False)[0]
    return f"head{''.join(f'.{part}' for part in first['loc'])}: {first['msg']}"


def read_problem(folder: Path) -> Problem[Any]:
    """Return the problem of the model in `folder`. Raises InputError."""
    return _problem(read_facts(folder))


def _problem(facts: dict[str, Any]) -> Problem[Any]:
    return make_problem(parse_params(facts["head"]), Schema.from_dict(facts))


def load_model(folder: Path) -> Model[Any]:
    """Return the model in `folder`, ready to answer.

    Raises:
        InputError: head.json is not one or names an unknown problem, or the weights do not fit it.
    """
    facts = read_facts(folder)
    try:
        return _problem(facts).load(folder, facts)
    except (KeyError, TypeError, ValueError) as error:
        found = f"not a model's {FACTS} ({error!r})"
        raise InputError(folder / FACTS, found, fix="run finetune again") from None
