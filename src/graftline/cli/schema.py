"""`graftline schema`: the JSON Schema of params.yaml, for editors."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from pydantic.json_schema import models_json_schema

from graftline.durable import write_atomic
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.tasks.documents import optional_models, parameter_models
from graftline.tasks.parameters import TASK_NAME, Params


def schema(
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; fail if the committed file is out of date")
    ] = False,
) -> None:
    """Write docs/schema/params.json, which each params.yaml names on its first line, for editors."""
    path = ROOT / "docs/schema/params.json"
    text = schema_text()
    current = path.read_text(encoding="utf-8") if path.is_file() else ""
    if check and current != text:
        raise InputError(path, "out of date", fix="run `graftline schema`")
    if current != text:
        write_atomic(path, text.encode())
    typer.echo(f"{path.relative_to(ROOT)} is up to date" if current == text else f"wrote {path.relative_to(ROOT)}")


def schema_text() -> str:
    """Return the JSON Schema (draft 2020-12) of a whole params.yaml, the same bytes on every call."""
    required = parameter_models()
    models = required | optional_models()
    references, generated = models_json_schema([(model, "validation") for model in models.values()])
    sections = {
        name: references[(model, "validation")] | {"description": _summary(model)} for name, model in models.items()
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
        "required": ["task", *required],
        "additionalProperties": False,
        "$defs": generated["$defs"],
    }
    return json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _summary(model: type[Params]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
