"""The importer of Debian's index, on an index of the tests' own, and that the shipped data is what it makes.

That the index has the expected digest is not tested: the command says if it has not.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import debian, strengths

RAW = ROOT / "data" / "packages" / "raw"
GRADED = ROOT / "data" / "strengths" / "raw"
INDEX = """\
Package: app
Source: app-source (1.2)
Depends: libone1 (>= 2), libtwo:any | other, virtual,
 python3
Tag: role::program, uitoolkit::{gtk,qt}
Description: a text that people wrote

Package: libone1
Source: one
Pre-Depends: libtwo
Tag: role::shared-lib

Package: libtwo
Depends: libtwo-data

Package: libtwo-data
Source: libtwo

Package: python3
Source: python3-defaults

Package: provider
Provides: virtual (= 1), twice

Package: provider2
Provides: twice

Package: x
Depends: twice, absent
"""


def test_dependencies_are_of_sources_and_virtual_ones_of_their_only_provider() -> None:
    found = list(debian.paragraphs(INDEX, "index"))
    assert debian.dependencies(found) == {
        ("app-source", "one"),
        ("app-source", "libtwo"),
        ("app-source", "provider"),
        ("app-source", "python3-defaults"),
        ("one", "libtwo"),
    }


def test_of_several_relations_between_two_sources_the_strongest_counts() -> None:
    index = (
        INDEX.replace("Depends: libtwo-data", "Suggests: app, libone1, x\nRecommends: libone1") + "Suggests: provider\n"
    )
    found = list(debian.paragraphs(index, "index"))
    assert debian.strengths(found, strengths.GRADES) == {
        ("app-source", "one"): 3,
        ("app-source", "libtwo"): 3,
        ("app-source", "provider"): 3,
        ("app-source", "python3-defaults"): 3,
        ("one", "libtwo"): 4,
        ("libtwo", "app-source"): 1,
        ("libtwo", "one"): 2,
        ("libtwo", "x"): 1,
        ("x", "provider"): 1,
    }


def test_words_are_tags_and_the_parts_of_a_name() -> None:
    words = debian.words_of(list(debian.paragraphs(INDEX, "index")))
    assert words["app-source"] == ["role::program", "uitoolkit::gtk", "uitoolkit::qt", "app", "source"]
    assert words["python3-defaults"] == ["defaults", "python"]
    assert "people" not in str(words)


def test_users_and_items_have_enough_of_each_other() -> None:
    block = {(f"u{user}", f"i{item}") for user in range(5) for item in range(5)}
    more = {("v", f"i{item}") for item in range(4)} | {(f"u{user}", "rare") for user in range(4)}
    assert debian.core(block | more) == sorted(block)


def shipped_index() -> str:
    """Return an index out of which the importer must make the shipped interactions."""
    users: dict[str, list[str]] = {}
    for row in pq.read_table(RAW / debian.INTERACTIONS).to_pylist():
        users.setdefault(row["package"], []).append(row["dependency"])
    tags = {
        row["item"]: [word for word in row["words"] if "::" in word]
        for row in pq.read_table(RAW / debian.ITEMS).to_pylist()
    }
    blocks = []
    for name in sorted({*users, *tags}):
        lines = [
            f"Package: {name}",
            f"Depends: {', '.join(users.get(name, []))}",
            f"Tag: {', '.join(tags.get(name, []))}",
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def test_two_imports_give_the_bytes_of_the_shipped_raw_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not RAW.is_dir():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    (tmp_path / "Packages.gz").write_bytes(gzip.compress(shipped_index().encode()))
    first = debian.write(tmp_path / "first", tmp_path / "Packages.gz")
    assert "another one than that of the shipped data" in capsys.readouterr().err
    for name in (debian.INTERACTIONS, debian.ITEMS):
        assert (first.parent / name).read_bytes() == (RAW / name).read_bytes()


def test_two_imports_give_the_bytes_of_the_shipped_strengths(tmp_path: Path) -> None:
    if not GRADED.is_dir():
        pytest.fail(f"{GRADED} is missing: run `dvc pull`")
    fields = {grade: field for field, grade in strengths.GRADES.items()}
    relations: dict[str, dict[str, list[str]]] = {}
    for row in pq.read_table(GRADED / strengths.RATINGS).to_pylist():
        of = relations.setdefault(row["package"], {})
        of.setdefault(fields[row["strength"]], []).append(row["dependency"])
    for row in pq.read_table(GRADED / debian.ITEMS).to_pylist():
        relations.setdefault(row["item"], {})["Tag"] = [word for word in row["words"] if "::" in word]
    blocks = [
        "\n".join([f"Package: {name}", *(f"{field}: {', '.join(names)}" for field, names in of.items())])
        for name, of in sorted(relations.items())
    ]
    (tmp_path / "Packages").write_text("\n\n".join(blocks) + "\n")
    made = strengths.write(tmp_path / "made", tmp_path / "Packages")
    for name in (strengths.RATINGS, debian.ITEMS):
        assert (made.parent / name).read_bytes() == (GRADED / name).read_bytes()


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    for data, message in (
        (b"", "an empty file"),
        (b"Package: a\nno field\n", "line 2: 'no field'"),
        (b"\x1f\x8bxx", "damaged"),
        (gzip.compress(b"Package: a\n")[:10] + b"\xff" * 20, "damaged"),
        (b"Package: a\n\nSource: b\nDepends: a\n\n", "line 4: a paragraph of Source, Depends without Package"),
        (b"Source: b\n", "line 1: a paragraph of Source without Package"),
    ):
        (tmp_path / "Packages").write_bytes(data)
        with pytest.raises(InputError, match=message):
            debian.write(tmp_path / "out", tmp_path / "Packages")
    with pytest.raises(InputError, match="no such file"):
        debian.write(tmp_path / "out", tmp_path / "absent")
    assert not (tmp_path / "out").exists()
