"""Objects under any key, as they are listed."""

from __future__ import annotations

import re

import pytest

from graftline.errors import InputError
from graftline.store import objects


def listing(monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
    class Bucket:
        def __init__(self, bucket: str, prefix: str) -> None:
            pass

        def objects(self, prefix: str) -> list[tuple[str, int, str]]:
            return [(key, 1, "e") for key in keys if key.startswith(prefix)]

    monkeypatch.setattr(objects, "_Bucket", Bucket)


def test_two_objects_that_would_be_one_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    listing(monkeypatch, "data", "data/a.csv", "data/data")
    both = re.escape("s3://b/data and s3://b/data/data are both 'data'")
    with pytest.raises(InputError, match=f"PATH: {both}"):
        objects.list_objects("s3://b/data", "PATH")
    listing(monkeypatch, "data", "data/a.csv")
    assert [one.name for one in objects.list_objects("s3://b/data", "PATH")] == ["a.csv", "data"]
