"""Reading records: what is not one is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftline.canonical import canonical_json
from graftline.digests import RECORD
from graftline.errors import InputError
from graftline.records import Dependency, Draft, read_record, verify, write_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "content").write_text("content")
    write_record(
        tmp_path,
        Draft("pretrain", "digits", "trunk", dependencies=[Dependency("dataset", "0" * 64, "1" * 64)]),
    )
    return tmp_path


def test_a_record_that_was_written_reads_back(folder: Path) -> None:
    record = verify(folder)
    assert (record.component, record.task, record.name) == ("pretrain", "digits", "trunk")
    assert record.dependencies[0] == {
        "name": "dataset", "digest": {"sha256": "0" * 64}, "annotations": {"record": "1" * 64},
    }  # fmt: skip


@pytest.mark.parametrize(
    "dependencies",
    [["x"], [{}], [{"name": "a"}], [{"name": 1, "digest": {}}], [{"name": "a", "digest": "x"}],
     [{"name": "a", "digest": {"sha256": 1}}], [{"name": "a", "digest": {}, "annotations": []}], "x", None],
)  # fmt: skip
def test_malformed_dependencies_are_refused(folder: Path, dependencies: Any) -> None:
    statement = json.loads((folder / RECORD).read_bytes())
    statement["predicate"]["buildDefinition"]["resolvedDependencies"] = dependencies
    (folder / RECORD).write_bytes(canonical_json(statement))
    with pytest.raises(InputError, match="not a record"):
        read_record(folder)


def test_the_code_is_what_ran_when_the_draft_was_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_COMMIT", "a" * 40)
    draft = Draft("pretrain", "digits", "trunk")
    monkeypatch.setenv("GRAFTLINE_COMMIT", "b" * 40)  # somebody commits while it trains
    record = write_record(folder, draft)
    assert {"name": "code", "digest": {"gitCommit": "a" * 40}} in record.dependencies
