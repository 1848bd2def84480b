"""Croissant, judged by mlcroissant, without a network."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from made import SCHEMA

from graftline.exports.croissant import metadata
from graftline.exports.datasheet import Datasheet, read_datasheet
from graftline.exports.facts import Facts

SHEET = """# digits: seven digits

| | |
| --- | --- |
| Origin | made **by hand** |
| Licence | CC-BY-4.0, see [LICENSE](LICENSE) |
| Task | say which digit |
| Paper | A. Author, "Seven digits", 2026 |
"""


@pytest.fixture
def read(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    value: dict[str, Any] = json.loads(metadata(facts, Datasheet(SHEET, "a test")))
    return value


def test_mlcroissant_accepts_it_without_a_warning(read: dict[str, Any], facts: Facts) -> None:
    found = mlcroissant.Dataset(jsonld=read).metadata
    assert not found.ctx.issues.errors and not found.ctx.issues.warnings
    assert (found.name, found.license) == ("digits", ["CC-BY-4.0, see LICENSE"])
    assert facts.named["dataset"].record.content in found.description
    assert found.version.endswith(facts.named["dataset"].record.content)
    assert found.cite_as == 'A. Author, "Seven digits", 2026'


def test_every_file_column_split_and_class_is_described(read: dict[str, Any], facts: Facts) -> None:
    found = mlcroissant.Dataset(jsonld=read).metadata
    files = {file.id: file.sha256 for file in found.distribution}
    assert files == {file.path: file.sha256 for file in facts.named["dataset"].record.files}
    sets = {one.id: one for one in found.record_sets}
    assert list(sets) == ["classes", "test", "train", "unlabelled", "val"]
    assert sets["classes"].data == [{"classes/name": 0, "classes/rows": 4}, {"classes/name": 1, "classes/rows": 3}]
    assert [field.id for field in sets["train"].fields] == ["train/row", "train/image", "train/label"]
    assert [field.id for field in sets["unlabelled"].fields] == ["unlabelled/row", "unlabelled/image"]
    assert sets["train"].fields[1].array_shape == "784"
    assert sets["train"].description == "The rows of the split train: 3."
    assert [one["@id"] for one in read["prov:wasDerivedFrom"]] == [
        f"urn:sha256:{given.sha256}" for given in facts.named["dataset"].record.inputs
    ]


@pytest.mark.parametrize(
    ("feature", "classes"),
    [
        ({"type": "text", "name": "text"}, ["a", "b"]),
        ({"type": "tokens", "name": "words"}, ["NOUN"]),
        ({"type": "text", "name": "text"}, []),
    ],
)
def test_other_kinds_of_data_are_accepted_too(
    facts: Facts, feature: dict[str, str], classes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = {**SCHEMA, "feature": feature, "classes": classes, "label": "label" if classes else None}
    monkeypatch.setattr(Facts, "json", lambda self, path: schema if path == "schema.json" else {})
    found = mlcroissant.Dataset(jsonld=json.loads(metadata(facts, None))).metadata
    assert not found.ctx.issues.errors
    assert f"train/{feature['name']}" in {field.id for one in found.record_sets for field in one.fields}


def test_names_of_several_numbers_are_no_classes(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {**SCHEMA, "classes": ["ink", "slant"], "label_type": "numbers"}
    monkeypatch.setattr(Facts, "json", lambda self, path: schema if path == "schema.json" else {})
    found = mlcroissant.Dataset(jsonld=json.loads(metadata(facts, None))).metadata
    assert not found.ctx.issues.errors
    assert "classes" not in {one.id for one in found.record_sets}
    assert "train/label" in {field.id for one in found.record_sets for field in one.fields}


def test_the_data_sheet_is_that_of_the_recorded_commit_or_says_that_it_is_not(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_datasheet(facts, tmp_path) is None
    path = tmp_path / "data/digits/README.md"
    path.parent.mkdir(parents=True)
    path.write_text("# digits then\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "then"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    path.write_text("# digits now\n")
    sheet = read_datasheet(facts, tmp_path)
    assert sheet is not None and sheet.title == "digits now"
    assert "as it stood in the checkout" in sheet.source and "5" * 40 in sheet.source
    dataset = facts.named["dataset"]
    monkeypatch.setitem(facts.named, "dataset", replace(dataset, record=replace(dataset.record, commit=head)))
    sheet = read_datasheet(facts, tmp_path)
    assert sheet is not None and sheet.title == "digits then" and head in sheet.source
