"""A task's parameters as a whole: data/<task>/params.yaml, each section checked by its component's own model.

The models are found by the components' names: none of them is loaded before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from graftline.environment import ROOT
from graftline.errors import InputError, nearest
from graftline.tasks.parameters import COMPONENTS, OPTIONAL, TASK_NAME, Params, load_document, section, task_name
from graftline.yamlfile import load_yaml


def listed_tasks() -> list[str]:
    """Return the tasks of data/tasks.yaml, in the file's order. Raises InputError."""
    path = ROOT / "data/tasks.yaml"
    document = load_yaml(path)
    tasks = document.get("tasks") if isinstance(document, dict) else None
    if not isinstance(tasks, list) or not all(isinstance(name, str) for name in tasks):
        raise InputError(path, "no list `tasks`", expected="tasks: [NAME, ...]")
    return tasks


def task_parameters(task: str) -> Path:
    """Return the path of the task's params.yaml. Raises InputError if there is no such task in data/."""
    known = sorted(path.parent.name for path in (ROOT / "data").glob("*/params.yaml"))
    if not TASK_NAME.fullmatch(task) or task not in known:
        raise InputError(
            "data",
            f"no task '{task}'{nearest(task, known)}",
            expected="one of " + ", ".join(known),
            fix="to add one: `graftline new TASK PATH`, as README.md shows",
        )
    if task not in listed_tasks():
        where = ROOT / "data/tasks.yaml"
        raise InputError(where, f"the task '{task}' is not listed", fix=f"add `- {task}` under `tasks`")
    return ROOT / "data" / task / "params.yaml"


def task_document(task: str, changes: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    """Return the task's parameters as they are written, checked, and the name to use for them in errors.

    Args:
        task: the folder under data/.
        changes: values in place of the file's, by dotted key (`finetune.epochs`).

    Raises:
        InputError: the task does not exist, or its parameters or the changes are wrong.
    """
    document, where = load_document(task_parameters(task))
    assign(document, changes or {})
    check_parameters(document, where, task)
    return document, where


def assign(document: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set each dotted key in the document; sections on the way are made."""
    for key, value in values.items():
        *sections, name = key.split(".")
        place: Any = document
        for step in sections:
            if not isinstance(place.get(step), dict):
                place[step] = {}
            place = place[step]
        place[name] = value


def check_parameters(document: dict[str, Any], where: str, task: str) -> None:
    """Check every section of the document of data/<task>/, and that they agree with one another.

    Raises:
        InputError: the first fault.
    """
    if (named := task_name(document, where)) != task:
        raise InputError(f"{where}: task", f"'{named}'", expected=f"'{task}', the name of the folder")
    checked: dict[str, Any] = {}
    for name, model in parameter_models().items():
        if name not in document:  # DVC tracks the section by its name
            raise InputError(where, f"the section '{name}' is missing", fix=f"add `{name}: {{}}` for its defaults")
        checked[name] = section(document, where, name, model)
    given = {name: model for name, model in optional_models().items() if name in document}
    checked |= {name: section(document, where, name, model) for name, model in given.items()}
    for values in checked.values():
        values.check_with(checked, where)


def parameter_models() -> dict[str, type[Params]]:
    """Return each component's parameters, `<Name>Params` of `tasks/<name>.py`, by section."""
    return {name: _model(name) for name in COMPONENTS}


def optional_models() -> dict[str, type[Params]]:
    """Return the parameters of the sections that a task may leave out, by section."""
    return {name: _model(name) for name in OPTIONAL}


def _model(name: str) -> type[Params]:
    model: type[Params] = getattr(import_module(f"graftline.tasks.{name}"), f"{name.capitalize()}Params")
    return model
