"""The parameters' JSON Schema: committed, current, named by every params.yaml, and true of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import Field

from graftline.cli.schema import schema_text
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.tasks.documents import check_parameters, optional_models, parameter_models
from graftline.tasks.parameters import Params, load_document
from graftline.yamlfile import load_yaml

SHIPPED = sorted((ROOT / "data").glob("*/params.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "docs/schema/params.json").read_text())
    return document


def test_the_committed_schema_is_current() -> None:
    assert (ROOT / "docs/schema/params.json").read_text() == schema_text(), "run `graftline schema`"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_a_shipped_task_names_the_schema_and_satisfies_it(path: Path, schema: dict[str, Any]) -> None:
    first = path.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../../docs/schema/params.json"
    assert (path.parent / first.partition("$schema=")[2]).resolve() == ROOT / "docs/schema/params.json"
    jsonschema.validate(load_yaml(path), schema)
    document, where = load_document(path)
    check_parameters(document, where, path.parent.name)


def test_the_schema_refuses_an_unknown_key(schema: dict[str, Any]) -> None:
    for wrong in ({"task": "t", "finetun": {}}, {"task": "t", "finetune": {"no_such_key": 1}}, {}, {"task": "../t"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_every_field_says_what_it_means() -> None:
    """An editor shows a field's documentation; one without it would be a name to guess at."""
    schema = json.loads(schema_text())
    undocumented = [
        f"{model}.{name}"
        for model, definition in schema["$defs"].items()
        for name, field in definition.get("properties", {}).items()
        if not field.get("description") and name != "name"  # the tag of a choice is what it chooses
    ]
    assert not undocumented


class Base(Params):
    kept: int = 1
    """Of the base."""
    anew: int = 1
    """Of the base."""
    said: int = Field(1, description="Of the field.")
    """Below it."""


class Further(Base):
    anew: int = 2  # without a word
    more: int = 3
    """Two

    paragraphs."""


def test_a_field_is_described_by_the_class_that_declares_it_last() -> None:
    """As by pydantic's own `use_attribute_docstrings`, which reads the sources at every start."""

    class Own(Base, use_attribute_docstrings=True):
        anew: int = 2  # without a word
        more: int = 3
        """Two

        paragraphs."""

    def told(model: type[Base]) -> dict[str, str | None]:
        return {name: field.get("description") for name, field in model.model_json_schema()["properties"].items()}

    assert told(Further) == told(Own)
    assert told(Further) == {
        "kept": "Of the base.",
        "anew": None,
        "said": "Of the field.",
        "more": "Two\n\nparagraphs.",
    }


def test_every_component_has_its_section() -> None:
    schema = json.loads(schema_text())
    assert set(schema["properties"]) == {"task", *parameter_models(), *optional_models()}
    assert set(schema["required"]) == {"task", *parameter_models()}


def test_parameters_of_another_folder_are_refused() -> None:
    with pytest.raises(InputError, match="expected 'fashion', the name of the folder"):
        check_parameters({"task": "mnist"}, "params.yaml", "fashion")
