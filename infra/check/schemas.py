"""Strict validation: a field that the schema does not name is an error, and so is a kind without a schema.

Kubernetes' own kinds are checked against the schemas of kubernetes-validate, once for each version; custom
resources against infra/schemas, which hold the fields that this repository uses and where each comes from.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils as kubernetes_schemas
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry, Resource

from check.pods import inner
from check.render import Document

VERSIONS = ("1.35", "1.36", "1.37")
"""The three minor versions that Kubernetes maintains: https://kubernetes.io/releases/version-skew-policy/"""

# The library reads 1.6 MB of definitions anew for every object.
kubernetes_schemas.schema_contents = functools.cache(kubernetes_schemas.schema_contents)


def validate(found: Iterable[Document], schemas: Path) -> dict[str, list[str]]:
    """Return what is wrong, by Kubernetes version; `custom` for custom resources and unknown kinds."""
    own = load(schemas)
    errors: dict[str, list[str]] = {version: [] for version in VERSIONS} | {"custom": []}
    for document in distinct(found):
        validator = own.get((document.value.get("apiVersion"), document.value.get("kind")))
        if validator is not None:
            errors["custom"] += [explain(document, error) for error in validator.iter_errors(document.value)]
        for part in inner(document) if validator else [document]:
            for version in VERSIONS:
                if since(part) <= number(version):
                    errors[version] += against_kubernetes(part, version)
    return errors


def load(schemas: Path) -> dict[tuple[Any, Any], Draft202012Validator]:
    """Return a validator for each custom resource of `schemas`, by (apiVersion, kind)."""
    contents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(schemas.glob("*.json"))}
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(schema)) for name, schema in contents.items()
    )
    kinds = [schema for schema in contents.values() if "kind" in schema["properties"]]
    return {
        (schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]): (
            Draft202012Validator(schema, registry=registry)
        )
        for schema in kinds
    }


def distinct(found: Iterable[Document]) -> list[Document]:
    """Return each different object once: overlays share most of theirs."""
    first: dict[str, Document] = {}
    for document in found:
        first.setdefault(json.dumps(document.value, sort_keys=True, default=str), document)
    return list(first.values())


def since(document: Document) -> tuple[int, ...]:
    """Return the first Kubernetes version that an object is meant for, by its annotation; (0,) if it has none."""
    annotations = (document.value.get("metadata") or {}).get("annotations") or {}
    return number(annotations.get("graftline.dev/since-kubernetes", "0"))


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def against_kubernetes(document: Document, version: str) -> list[str]:
    try:
        kubernetes_validate.validate(document.value, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        kind = f"{document.value.get('apiVersion')} {document.value.get('kind')}"
        return [f"{document.name}: no schema for {kind}; write infra/schemas/{document.value.get('kind')}.json"]
    except kubernetes_validate.ValidationError as error:
        return [explain(document, error)]
    except (KeyError, TypeError) as error:
        return [f"{document.name}: no Kubernetes object ({error!r})"]
    return []


def explain(document: Document, error: ValidationError) -> str:
    """Return one line: the object, the field, and what is wrong with it; of alternatives, the nearest."""
    deepest = best_match([error]) or error
    where = ".".join(str(step) for step in deepest.absolute_path)
    return f"{document.name}: {where or '(top)'}: {deepest.message[:300]}"
