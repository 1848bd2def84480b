"""Parameters: the base of every component's model, and reading them from a file or from one JSON string.

A task's `params.yaml` has one section a component. An entry point takes the whole document or any part of it
that holds its own section, as a file or as JSON text, and checks its own section only: a component's image need
not hold the other components' libraries.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from graftline.canonical import canonical_json
from graftline.errors import InputError, nearest
from graftline.yamlfile import load_yaml, parse_json

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

COMPONENTS = ("validate", "pretrain", "finetune", "evaluate", "publish")
OPTIONAL = ("federated",)
"""Sections that a task may leave out: of what is no stage of its graph."""
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Params(BaseModel):
    """Base of all parameter models: unknown keys are refused, values are frozen, NaN and infinity are refused.

    Kubeflow's STRUCT turns 10 into 10.0; pydantic's lax mode takes integral floats as integers and refuses 10.5.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Have the schema say of each field what stands below it.

        pydantic's own `use_attribute_docstrings` reads the source of every model when it is defined: 0.2 s of each
        process's start, for what a schema alone asks for.
        """
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in _told_below_fields(cls).items():
            if name in properties:
                properties[name].setdefault("description", text)
        return schema

    def check_with(self, sections: Mapping[str, Any], where: str) -> None:
        """Return if this section agrees with the task's others. Raises InputError; by default none is looked at."""


def _told_below_fields(model: type[Params]) -> dict[str, str]:
    """Return the text below each field, of the class that declared it last."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, Params):
            declared = vars(each).get("__annotations__", {})
            found = {name: text for name, text in found.items() if name not in declared} | _strings_below(each)
    return found


def _strings_below(model: type[Params]) -> dict[str, str]:
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(text, str):
                found[field.target.id] = inspect.cleandoc(text)
    return found


class Sparing(Params):
    """Base of models that do not tell some parameters while these are off.

    What is made without such a parameter keeps its bytes (head.json, records, compiled pipelines) when one is added.
    """

    untold: ClassVar[tuple[str, ...]]
    """The parameters that are told only where they differ from their default."""

    @model_serializer(mode="wrap")
    def _tell(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        off = [name for name in self.untold if getattr(self, name) == fields[name].default]
        return {name: value for name, value in handler(self).items() if name not in off}


Model = TypeVar("Model", bound=Params)


def load_document(source: str | Path) -> tuple[dict[str, Any], str]:
    """Return a parameter document and the name to use for it in errors.

    `source` is a path, or the document itself as JSON text (it then starts with `{`).
    """
    text = str(source)
    where = "--params" if text.lstrip().startswith("{") else text
    document = parse_json(argument_text(text), where=where) if where == "--params" else load_yaml(Path(text))
    if not isinstance(document, dict):
        raise InputError(where, f"a {type(document).__name__}", expected="a mapping with one section a component")
    for key in document:
        if key not in (known := ("task", *COMPONENTS, *OPTIONAL)):
            raise InputError(where, f"unknown key '{key}'{nearest(str(key), [*known])}", expected=", ".join(known))
    return document, where


def argument_text(argument: str) -> str:
    """Return a command-line argument read as UTF-8: Python has decoded it in the locale's encoding."""
    try:
        return os.fsencode(argument).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it did not come from a command line
        return argument


def task_name(document: dict[str, Any], where: str) -> str:
    """Return the document's task name. Raises InputError if it is missing or cannot be a folder's name."""
    name = document.get("task")
    if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
        raise InputError(
            f"{where}: task",
            f"{name!r}",
            expected="a name of lower-case letters, digits, '-' and '_'",
            fix="name the task as its folder under data/ is named",
        )
    return name


def section(document: dict[str, Any], where: str, component: str, model: type[Model]) -> Model:
    """Return `component`'s parameters from a document, with defaults filled in. Raises InputError."""
    where = f"{where}: {component}"
    given = document.get(component)
    values = parse({} if given is None else _in_order(given), model, where=where)
    try:
        canonical_json(values.model_dump(mode="json"))
    except ValueError as error:  # such as an integer beyond 2**53
        raise InputError(where, f"a value that no record can hold ({error})", fix="give a smaller number") from None
    return values


def _in_order(value: Any) -> Any:
    """Return the value with the keys of its mappings sorted, as the record will hold it.

    Else what a component makes could depend on the order in a file, which no record tells: made again from the record,
    it would be something else.
    """
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value, key=str)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


def parse(values: object, model: type[Model], *, where: str) -> Model:
    """Return `values` as `model`. Raises InputError naming the first wrong field and the nearest known name."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _input_error(error, model, where) from None


def _input_error(error: ValidationError, model: type[BaseModel], where: str) -> InputError:
    first = error.errors(include_url=False)[0]
    place = "".join(f".{part}" for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        known = sorted(_field_names(model, first["loc"][:-1]))
        return InputError(
            f"{where}{place}", f"unknown key{nearest(name, known)}{more}", expected="one of " + ", ".join(known)
        )
    if first["type"] == "value_error":  # our own validator: it says what was found
        error_text = str(first["ctx"]["error"])
        return InputError(f"{where}{place}", f"{error_text}{more}", fix="see the component's README for the range")
    found = repr(first["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    message = first["msg"][0].lower() + first["msg"][1:]
    return InputError(f"{where}{place}", f"{found}: {message}{more}", fix="see the component's README for the range")


def _field_names(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the (nested) model at `path`; a union's tag in the path selects its member."""

    def members(annotation: Any) -> list[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [member for argument in get_args(annotation) for member in members(argument)]

    current = [model]
    for part in path:
        tagged = [m for m in current if "name" in m.model_fields and m.model_fields["name"].default == part]
        fields = [m.model_fields[part].annotation for m in current if isinstance(part, str) and part in m.model_fields]
        current = tagged or [member for annotation in fields for member in members(annotation)] or current
    return sorted({name for member in current for name in member.model_fields})
