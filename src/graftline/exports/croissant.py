"""Croissant 1.1 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html): the data set of a release.

It describes the files that `validate` made, by their digests; the files themselves are not in a release.
"""

from __future__ import annotations

import json
from typing import Any

from graftline.dataset import SCHEMA, UNLABELLED, Schema
from graftline.digests import FileDigest
from graftline.errors import InputError
from graftline.exports.datasheet import Datasheet
from graftline.exports.facts import Facts, StoredRecord

_SPLITS = ("train", "val", "test", "unlabelled")
_PARQUET = "application/x-parquet"
_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "arrayShape": "cr:arrayShape", "citeAs": "cr:citeAs",
    "column": "cr:column", "conformsTo": "dct:conformsTo", "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet",
    "format": "cr:format", "includes": "cr:includes", "isArray": "cr:isArray", "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField",
    "path": "cr:path", "prov": "http://www.w3.org/ns/prov#", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace",
    "samplingRate": "cr:samplingRate", "sc": "https://schema.org/", "separator": "cr:separator",
    "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
"""As the specification gives it."""


def metadata(facts: Facts, sheet: Datasheet | None) -> bytes:
    """Return the description of the data set that the release was made from.

    Raises:
        InputError: the release has no record of a data set.
    """
    dataset = facts.named.get("dataset")
    if dataset is None:
        raise InputError(facts.release.name, "no data set among its records", expected="a record named dataset")
    schema, profile = _schema(facts), facts.json("profile.json")
    splits = [file for file in dataset.record.files if file.path in {f"{name}.parquet" for name in _SPLITS}]
    value = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": facts.release.task,
        "description": _description(facts, dataset, sheet),
        "datePublished": facts.release.created[:10],
        "version": f"1.0.0+{dataset.record.content}",
        "license": (sheet.row("licence") if sheet else "") or "not stated in the data sheet",
        "url": f"https://graftline.dev/dataset/{dataset.record.content}",
        "citeAs": (sheet.row("paper") if sheet else "") or f"{facts.release.task}, sha256 {dataset.record.content}",
        "prov:wasDerivedFrom": [
            {"@id": f"urn:sha256:{given.sha256}", "name": given.name} for given in dataset.record.inputs
        ],
        "distribution": [_file(file) for file in dataset.record.files],
        "recordSet": [*_classes(schema, profile), *(_records(file, schema, dataset) for file in splits)],
    }
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _schema(facts: Facts) -> Schema:
    try:
        return Schema.from_dict(facts.json(SCHEMA))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{facts.release.name}: {SCHEMA}", f"not a schema ({error!r})") from None


def _description(facts: Facts, dataset: StoredRecord, sheet: Datasheet | None) -> str:
    parts = [f"{sheet.title}." if sheet and sheet.title else f"The data set of the task {facts.release.task}."]
    if sheet and (task := sheet.row("task")):
        parts.append(f"Task: {task}.")
    if sheet and (origin := sheet.row("origin")):
        parts.append(f"Origin: {origin}.")
    parts.append(f"sha256 of its content: {dataset.record.content}; of its record: {dataset.record.sha256}.")
    return " ".join(parts)


def _file(file: FileDigest) -> dict[str, Any]:
    suffix = file.path.rpartition(".")[2]
    formats = {"parquet": _PARQUET, "json": "application/json", "html": "text/html"}
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.size} B",
        "encodingFormat": formats.get(suffix, "application/octet-stream"),
        "sha256": file.sha256,
    }


def _classes(schema: Schema, profile: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the label set as an enumeration, with the rows of each class where the profile counts them."""
    label = schema.label_column
    if label is None or not label.classes or label.croissant()["dataType"] == "sc:Float":  # names of several numbers
        return []
    histogram = profile.get("histograms", {}).get(schema.label, {})
    counts = dict(zip(map(str, histogram.get("bins", [])), histogram.get("counts", []), strict=False))
    kind = "sc:Integer" if isinstance(schema.classes[0], int) else "sc:Text"
    fields = [("name", kind), ("rows", "sc:Integer")] if counts else [("name", kind)]
    row = [{"classes/name": c} | ({"classes/rows": counts.get(str(c), 0)} if counts else {}) for c in schema.classes]
    return [
        {
            "@type": "cr:RecordSet",
            "@id": "classes",
            "name": "classes",
            "dataType": "sc:Enumeration",
            "key": {"@id": "classes/name"},
            "data": row,
            "field": [
                {"@type": "cr:Field", "@id": f"classes/{name}", "name": f"classes/{name}", "dataType": of}
                for name, of in fields
            ],
        }
    ]


def _records(file: FileDigest, schema: Schema, dataset: StoredRecord) -> dict[str, Any]:
    """Return the columns of one split."""
    split = file.path.removesuffix(".parquet")
    columns: dict[str, dict[str, Any]] = {"row": {"dataType": "sc:Integer"}}
    columns |= {feature.name: feature.croissant() for feature in schema.features}
    if schema.label_column is not None and split != UNLABELLED:
        columns[schema.label_column.name] = schema.label_column.croissant()
    rows = dataset.record.metrics.get(f"rows_{split}")
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"The rows of the split {split}" + (f": {rows}." if rows is not None else "."),
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{split}/{name}",
                "name": f"{split}/{name}",
                **kind,
                "source": {"fileObject": {"@id": file.path}, "extract": {"column": name}},
            }
            for name, kind in columns.items()
        ],
    }
