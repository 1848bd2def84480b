"""The ML-BOM, judged by CycloneDX's own schema in its strict form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from made import COMMIT, IMAGE, LOCK_DIGEST, RAW
from packageurl import PackageURL

from graftline.exports.facts import Facts
from graftline.exports.mlbom import bom
from graftline.exports.values import package_url


@pytest.fixture(scope="module")
def made(facts: Facts) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(bom(facts))
    return value


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {p["name"].removeprefix("graftline:"): p["value"] for p in component["properties"]}


def test_the_schema_accepts_it(facts: Facts) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom(facts).decode()) is None
    assert bom(facts) == bom(facts)


def test_the_model_has_a_card_with_metrics_intervals_parameters_and_use(made: dict[str, Any], facts: Facts) -> None:
    model = made["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "digits", "1")
    assert model["hashes"] == [{"alg": "SHA-256", "content": facts.release.digest}]
    assert model["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    assert properties(model)["record.model"] == facts.named["model"].record.sha256
    card = model["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"][0] == {
        "type": "accuracy",
        "value": "0.97",
        "confidenceInterval": {"lowerBound": "0.95", "upperBound": "0.98"},
    }
    assert properties(card)["parameter.finetune.learning_rate"] == "0.003"
    assert card["considerations"]["useCases"] == ["Reads digits, and nothing else."]
    assert card["modelParameters"]["task"] == "image_classification"
    assert card["modelParameters"]["architectureFamily"] == "conv"
    weights = next(file for file in model["components"] if file["name"] == "model.safetensors")
    listed = next(file for file in facts.files if file.path == "model.safetensors")
    assert weights["hashes"] == [{"alg": "SHA-256", "content": listed.sha256}]


def test_data_trunk_code_image_and_packages_are_components_with_edges(made: dict[str, Any], facts: Facts) -> None:
    by_ref = {component["bom-ref"]: component for component in made["components"]}
    edges = {one["ref"]: set(one["dependsOn"]) for one in made["dependencies"]}
    of = {name: f"record:{step.record.sha256}" for name, step in facts.named.items()}
    assert by_ref[of["dataset"]]["type"] == "data"
    assert by_ref[of["trunk"]]["type"] == "machine-learning-model"
    assert edges[of["trunk"]] >= {of["dataset"], f"code:{COMMIT}", f"image:{IMAGE}"}
    assert edges[of["model"]] >= {of["dataset"], of["trunk"]}
    assert edges[f"release:{facts.release.manifest}"] == set(of.values())
    raw = next(component for component in made["components"] if component["name"] == "raw")
    assert raw["bom-ref"] in edges[of["dataset"]]
    assert [file["hashes"][0]["content"] for file in raw["components"]] == [file.sha256 for file in RAW]
    packages = edges[f"requirements.lock:{LOCK_DIGEST}"]
    assert packages == {"pkg:pypi/numpy@2.1.0", "pkg:pypi/torch@2.13.0%2Bcpu", "pkg:pypi/typing-extensions@4.12.2"}
    assert packages <= by_ref.keys()
    assert properties(by_ref[of["trunk"]])["metric.loss"] == "0.25"
    assert properties(by_ref[of["trunk"]])["parameter.pretrain.objective.name"] == "masked_autoencoder"


@pytest.mark.parametrize(("name", "version"), [("torch", "2.13.0+cpu"), ("Typing_Extensions", "4"), ("a.b", "1!2.0")])
def test_a_package_url_is_as_the_library_of_the_standard_writes_it(name: str, version: str) -> None:
    theirs = PackageURL.from_string(package_url(name, version))
    assert (theirs.type, theirs.version) == ("pypi", version)
    assert theirs.to_string() == PackageURL("pypi", None, name, version).to_string()
