"""A CycloneDX 1.6 ML-BOM (ECMA-424): the model with its card, the data, trunk and packages that it was made of."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any

from graftline import __version__
from graftline.digests import FileDigest
from graftline.exports.facts import Facts, StoredRecord
from graftline.exports.values import intervals, package_url, parameters, uuid_of
from graftline.locks import pins
from graftline.records.model import CODE, EXPECTATIONS, IMAGE, LOCK, Dependency

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODELS = ("trunk", "model")


def bom(facts: Facts) -> bytes:
    """Return the BOM of one release as JSON; the same release gives the same bytes."""
    parts: dict[str, dict[str, Any]] = {}
    edges: dict[str, set[str]] = {}
    for step in facts.steps:
        parts[_ref(step)] = _step_component(step)
        edges[_ref(step)] = {_input(parts, given) for given in step.record.inputs} | _made_by(parts, step)
    packages = _packages(facts.lock())
    locks = {ref for ref in parts if parts[ref]["name"] == LOCK}
    for ref in locks:
        edges[ref] = {package["bom-ref"] for package in packages}
    root = _model(facts)
    edges[root["bom-ref"]] = {_ref(step) for step in facts.named.values()}
    value = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid_of('bom', facts.release.manifest)}",
        "version": 1,
        "metadata": {
            "timestamp": facts.release.created,
            "component": root,
            "tools": {"components": [{"type": "application", "name": "graftline", "version": __version__}]},
        },
        "components": [parts[ref] for ref in sorted(parts)] + packages,
        "dependencies": [{"ref": ref, "dependsOn": sorted(edges[ref])} for ref in sorted(edges)],
    }
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _model(facts: Facts) -> dict[str, Any]:
    release = facts.release
    component = {
        "type": "machine-learning-model", "bom-ref": f"release:{release.manifest}", "name": release.task,
        "version": str(release.version), "hashes": _hashes(release.digest), "modelCard": _card(facts),
        "properties": _properties({
            "manifest": release.manifest, "content": release.digest,
            **{f"record.{name}": step.record.sha256 for name, step in facts.named.items()},
        }),
        "components": _files(f"release:{release.manifest}", facts.files),
    }  # fmt: skip
    if licence := _front_matter(facts).get("license"):
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def _card(facts: Facts) -> dict[str, Any]:
    """Return the model card: how it was made, how good it is, what it is for."""
    model, schema = facts.named.get("model"), facts.json("schema.json")
    config = facts.json("config.json")
    labelled = schema.get("label") is not None
    inside: dict[str, Any] = {"approach": {"type": "supervised" if labelled else "self-supervised"}}
    if task := model and parameters(model).get("finetune.head.name"):
        inside["task"] = task
    if family := config.get("model_type"):
        inside["architectureFamily"] = str(family)
    if architectures := config.get("architectures"):
        inside["modelArchitecture"] = ", ".join(map(str, architectures))
    if dataset := facts.named.get("dataset"):
        inside["datasets"] = [{"ref": _ref(dataset)}]
    if isinstance(feature := schema.get("feature"), dict):
        inside["inputs"] = [{"format": str(feature.get("type"))}]
    if classes := schema.get("classes"):
        inside["outputs"] = [{"format": f"one of {len(classes)} classes"}]
    used = {name: value for step in facts.named.values() for name, value in parameters(step).items()}
    card = {
        "modelParameters": inside,
        "quantitativeAnalysis": {
            "performanceMetrics": [_metric(*measured) for measured in intervals(facts.manifest["metrics"])]
        },
        "properties": _properties({f"parameter.{name}": value for name, value in used.items()}),
    }
    if use := _front_matter(facts).get("use"):
        card["considerations"] = {"useCases": [use]}
    return card


def _metric(name: str, value: float, bounds: tuple[float, float] | None) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": name, "value": repr(value)}
    if bounds:
        metric["confidenceInterval"] = {"lowerBound": repr(bounds[0]), "upperBound": repr(bounds[1])}
    return metric


def _front_matter(facts: Facts) -> dict[str, str]:
    """Return licence and intended use, as publish wrote them into the release's README.md."""
    text = (facts.read("README.md") or b"").decode("utf-8", "replace")
    found = {}
    if licence := re.search(r'^license: (".*")$', text, re.MULTILINE):
        with contextlib.suppress(ValueError):
            found["license"] = str(json.loads(licence[1]))
    if use := re.search(r"^# [^\n]*\n\n(.*?)\n\nLicence: ", text, re.MULTILINE | re.DOTALL):
        found["use"] = use[1].strip()
    return found


def _ref(step: StoredRecord) -> str:
    return f"record:{step.record.sha256}"


def _step_component(step: StoredRecord) -> dict[str, Any]:
    record = step.record
    properties = {
        "record": record.sha256,
        "made-by": record.component,
        "signed": str(step.envelope is not None).lower(),
        **{f"metric.{name}": json.dumps(value) for name, value in record.metrics.items()},
        **{f"parameter.{name}": value for name, value in parameters(step).items()},
    }
    component = {
        "type": "machine-learning-model" if record.name in _MODELS else "data",
        "bom-ref": _ref(step),
        "name": f"{record.task}/{record.name}",
        "version": record.content,
        "hashes": _hashes(record.content),
        "properties": _properties(properties),
    }
    if component["type"] == "data":
        component["data"] = [{"type": "dataset", "name": record.name}]
    return component


def _input(parts: dict[str, dict[str, Any]], given: Dependency) -> str:
    """Add an input to the components unless a record's own is it; return its reference."""
    if given.record:
        return f"record:{given.record}"
    name, digest = given.name, given.sha256
    kind = "configuration" if name == EXPECTATIONS else "dataset"
    return _add(parts, f"content:{digest}", {
        "type": "data", "name": name, "version": digest, "hashes": _hashes(digest),
        "data": [{"type": kind, "name": name}],
        "components": _files(f"content:{digest}", given.files),
    })  # fmt: skip


def _files(within: str, files: Iterable[FileDigest]) -> list[dict[str, Any]]:
    return [
        {
            "type": "file", "bom-ref": f"{within}/{file.path}", "name": file.path,
            "hashes": _hashes(file.sha256), "properties": _properties({"bytes": str(file.size)}),
        }
        for file in files
    ]  # fmt: skip


def _made_by(parts: dict[str, dict[str, Any]], step: StoredRecord) -> set[str]:
    """Add code, image and lock; return their references."""
    kinds = {CODE: "application", IMAGE: "container", LOCK: "file"}
    return {
        _add(
            parts, f"{name}:{digest}", {"type": kinds[name], "name": name, "version": digest, "hashes": _hashes(digest)}
        )
        for name, digest in step.record.what_ran.items()
    }


def _add(parts: dict[str, dict[str, Any]], ref: str, component: dict[str, Any]) -> str:
    parts[ref] = {"bom-ref": ref, **{key: value for key, value in component.items() if value != []}}
    return ref


def _packages(lock: bytes | None) -> list[dict[str, Any]]:
    return [
        {
            "type": "library",
            "bom-ref": package_url(name, version),
            "name": name,
            "version": version,
            "purl": package_url(name, version),
        }
        for name, version in dict.fromkeys((pin.name, pin.version) for pin in pins(lock or b""))
    ]


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}] if _SHA256.fullmatch(digest) else []


def _properties(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": f"graftline:{name}", "value": value} for name, value in sorted(values.items())]
