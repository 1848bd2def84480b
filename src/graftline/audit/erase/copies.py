"""What was made from the rows, and where its files lie: outputs/ of the work tree, DVC's cache and its remote.

The row index knows the datasets that publish has seen. Of the others (runs that were refused or never published, rows
that went to the quarantine) their records say which raw files they were made from.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from graftline.audit.erase import dvc_content
from graftline.digests import BESIDE, RECORD, sha256_file
from graftline.rows.finding import indexed

if TYPE_CHECKING:
    from graftline.audit.erase.dvc_content import Place
    from graftline.audit.erase.plan import ErasurePlan
    from graftline.index.queries import Index
    from graftline.index.rows import IndexedRecord
    from graftline.rows.segments import Kind

DERIVED = (".png", ".html", "mistakes.json", "predictions.parquet", "sections.json")
"""Endings of files made from a dataset that may show its rows."""


def plan_lineage(plan: ErasurePlan, index: Index) -> list[IndexedRecord]:
    """Note datasets, trunks, models and releases; return the records of all whose files may show the rows."""
    in_index = {hit["dataset"] for hit in plan.hits}
    quarantined, unknown = _made_from_raw(plan, index, in_index)
    plan.datasets = sorted(in_index | {record.content for record in (*quarantined, *unknown)})
    trained = in_index | {record.content for record in unknown}
    of_datasets = [sha for content in sorted(trained) for sha in index.records_with_content(content)]
    reached = index.reached(of_datasets) if of_datasets else None
    records = index.records(index.descendants(of_datasets)) if of_datasets else []
    plan.models = sorted({record.content for record in records if record.name in ("trunk", "model")})
    plan.releases = [
        {"task": r.task, "version": r.version, "manifest": r.manifest, "aliases": list(r.aliases)}
        for r in (reached.releases if reached else [])
    ]
    known = {record.sha256 for record in records}
    return [*records, *(record for record in quarantined if record.sha256 not in known)]


def _made_from_raw(
    plan: ErasurePlan, index: Index, in_index: set[str]
) -> tuple[list[IndexedRecord], list[IndexedRecord]]:
    """Return other datasets made from touched raw files: those whose rows the row index has, and those it has not.

    The first can hold the rows in their quarantine only, so that no model was made with them.
    """
    kind: Kind = "rows" if plan.kind == "row" else "subjects"
    touched = {file["sha256"] for file in plan.raw}
    quarantined: list[IndexedRecord] = []
    unknown: list[IndexedRecord] = []
    for task in sorted({file["task"] for file in plan.raw}):
        covered = indexed(index.store, kind, task)
        for record in index.records(task=task, component="validate"):
            if record.name == "dataset" and record.content not in in_index and _is_of(record, touched):
                (quarantined if record.content in covered else unknown).append(record)
    return quarantined, unknown


def _is_of(record: IndexedRecord, touched: set[str]) -> bool:
    """Return whether a dataset was made from one of these raw files; one whose record lists none counts as if."""
    of = [source for source in record.inputs if source.name == "raw"]
    listed = {file.sha256 for source in of for file in source.files}
    return not listed or bool(listed & touched)


def plan_copies(plan: ErasurePlan, root: Path, records: list[IndexedRecord], found: list[Place]) -> None:
    """Note what lies in outputs/, in DVC's cache and in its remote of the datasets and of what shows their rows."""
    contents = {record.content for record in records}
    for path in sorted((root / "outputs").glob(f"*/*/{RECORD}")):
        try:
            content = json.loads(path.read_bytes())["subject"][0]["digest"]["sha256"]
        except (ValueError, KeyError, IndexError, TypeError):
            continue
        if content in contents:
            plan.outputs.append(path.parent.relative_to(root).as_posix())
    tasks = sorted({place["task"] for place in (*plan.hits, *plan.raw)})
    for task in tasks:
        folder = root / "outputs" / task
        left = [*folder.glob("report.html"), *sorted(folder.glob(".*.work"))]  # the latter of runs that were killed
        # Records of outputs that are gone; the others are deleted with theirs.
        kept = sorted(folder.glob(".*.records"))
        left += [path for path in kept if not (folder / path.name[1:].removesuffix(".records")).exists()]
        plan.outputs += [path.relative_to(root).as_posix() for path in left]
    plan.outputs = list(dict.fromkeys(plan.outputs))
    wanted = {file.sha256: file.size for record in records for file in record.files if _shows(record.name, file.path)}
    oids = [*dvc_content.find_content(found, wanted), *_locked(root, tasks, records, found)]
    plan.objects = list(dict.fromkeys([*plan.objects, *oids]))


def _shows(name: str, path: str) -> bool:
    """Return whether a file of an output may show rows."""
    return path not in BESIDE and (name == "dataset" or path.endswith(DERIVED))


def _locked(root: Path, tasks: list[str], records: list[IndexedRecord], found: list[Place]) -> list[str]:
    """Return the md5 of each such file of outputs that dvc.lock names, here or in git's history, and DVC holds.

    The cache here may have lost what was pushed to the remote: then no content can be compared, but the record that
    lies with an output says what it is.
    """
    names = {record.sha256: record.name for record in records}
    oids: list[str] = []
    for oid in dvc_content.locked_outputs(root, tasks):
        files = dvc_content.files_of(found, oid) or {}
        place = next((place for place in found if RECORD in files and place.has(files[RECORD])), None)
        if place is None:
            continue
        with TemporaryDirectory(prefix="graftline-erase-") as folder:
            place.read(files[RECORD], Path(folder) / RECORD)
            name = names.get(sha256_file(Path(folder) / RECORD))
        oids += [md5 for path, md5 in sorted(files.items()) if name and _shows(name, path)]
    return oids
