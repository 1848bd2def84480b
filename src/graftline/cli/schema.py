"""`graftline schema`: the JSON Schema of params.yaml, for editors; and the check of a whole document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graftline.tasks.parameters import Params


def schema(
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; fail if the committed file is out of date")
    ] = False,
) -> None:
    """Write docs/schema/params.json, which each params.yaml names on its first line, for editors."""
    from graftline.durable import write_atomic
    from graftline.environment import ROOT
    from graftline.errors import InputError

    path = ROOT / "docs/schema/params.json"
    text = schema_text()
    current = path.read_text() if path.is_file() else ""
    if check and current != text:
        raise InputError(path, "out of date", fix="run `graftline schema`")
    if current != text:
        write_atomic(path, text.encode())
    typer.echo(
        f"{path.relative_to(ROOT)} is up to date" if current == text else f"wrote {path.relative_to(ROOT)}"
    )


def parameter_models() -> dict[str, type[Params]]:
    """Return each component's parameters, `<Name>Params` of `tasks/<name>.py`, by section."""
    from graftline.tasks.parameters import COMPONENTS

    return {name: _model(name) for name in COMPONENTS}


def _model(name: str) -> type[Params]:
    from importlib import import_module

    model: type[Params] = getattr(import_module(f"graftline.tasks.{name}"), f"{name.capitalize()}Params")
    return model


def check_parameters(document: dict[str, Any], where: str, task: str) -> None:
    """Check every section of the document of data/<task>/, and that they agree with one another.

    Raises:
        InputError: the first fault.
    """
    from graftline.errors import InputError
    from graftline.tasks.parameters import section, task_name

    if (named := task_name(document, where)) != task:
        raise InputError(f"{where}: task", f"'{named}'", expected=f"'{task}', the name of the folder")
    checked: dict[str, Any] = {}
    for name, model in parameter_models().items():
        if name not in document:  # DVC tracks the section by its name
            raise InputError(
                where, f"the section '{name}' is missing", fix=f"add `{name}: {{}}` for its defaults"
            )
        checked[name] = section(document, where, name, model)
    for values in checked.values():
        values.check_with(checked, where)


def schema_text() -> str:
    """Return the JSON Schema (draft 2020-12) of a whole params.yaml, the same bytes on every call."""
    import json

    from pydantic.json_schema import models_json_schema

    from graftline.tasks.parameters import TASK_NAME

    models = parameter_models()
    references, generated = models_json_schema([(model, "validation") for model in models.values()])
    sections = {
        name: references[(model, "validation")] | {"description": _summary(model)}
        for name, model in models.items()
    }
    name = {
        "type": "string",
        "description": "The task's name: that of its folder under data/.",
        "pattern": f"^{TASK_NAME.pattern}$",
    }
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Parameters of a Graftline task",
        "type": "object",
        "properties": {"task": name} | sections,
        "required": ["task", *sections],
        "additionalProperties": False,
        "$defs": generated["$defs"],
    }
    return json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _summary(model: type[Params]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
