"""The importer on the shipped pictures, without a network: the packages are written from the Parquet file itself.

The download is not tested, nor that the packages have the expected digests: the command checks that.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import emoji

RAW = ROOT / "data" / "emoji" / "raw" / "emoji.parquet"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    return pq.read_table(RAW).to_pylist()


def write_packages(folder: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the three tarballs that hold these pictures, and let the importer expect them."""
    places = {"noto": "package/img/google/64/", "twemoji": "package/img/twitter/64/", "fluent": "package/assets/"}
    files: dict[str, dict[str, bytes]] = {designer: {} for designer in places}
    facts: dict[str, dict[str, Any]] = {}
    for row in rows:
        code, name = row["emoji"], row["emoji"].lower()
        files[row["designer"]][
            f"{places[row['designer']]}{name}.{'webp' if row['designer'] == 'fluent' else 'png'}"
        ] = row["image"]["bytes"]
        about = {"unified": code, "image": f"{name}.png", "category": row["group"], "subcategory": row["subgroup"]}
        facts.setdefault(code, about | {"sort_order": len(facts)})
    files["noto"]["package/emoji.json"] = json.dumps(list(facts.values())[::-1]).encode()
    packages = {}
    for designer, members in files.items():
        package = emoji.PACKAGES[designer][0]
        path = folder / emoji.tarball_name(package)
        with tarfile.open(path, "w:gz") as archive:
            for name, data in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        packages[designer] = (package, sha256_bytes(path.read_bytes()))
    monkeypatch.setattr(emoji, "PACKAGES", packages)


def test_an_import_gives_the_bytes_of_the_shipped_raw_data(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_packages(tmp_path, rows, monkeypatch)
    assert emoji.write(tmp_path / "raw", tmp_path).read_bytes() == RAW.read_bytes()


def test_other_packages_are_refused(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = emoji.PACKAGES
    write_packages(tmp_path, rows[:9], monkeypatch)
    monkeypatch.setattr(emoji, "PACKAGES", expected)
    with pytest.raises(InputError, match=r"emoji-datasource-google-16\.0\.0\.tgz: sha256 .*; expected fb5fd131"):
        emoji.write(tmp_path / "out", tmp_path)
    with pytest.raises(InputError, match=r"expected a folder with emoji-datasource-google-16\.0\.0\.tgz"):
        emoji.write(tmp_path / "out", tmp_path / "elsewhere")
    assert not (tmp_path / "out").exists()


def test_transparent_pictures_are_put_on_white_and_made_small() -> None:
    drawn = Picture.new("RGBA", (64, 64))
    drawn.paste((255, 0, 0, 255), (0, 0, 32, 64))
    file = io.BytesIO()
    drawn.save(file, "PNG")
    with Picture.open(io.BytesIO(emoji.small(file.getvalue()))) as small:
        assert (small.mode, small.size, small.format) == ("RGB", (32, 32), "PNG")
        assert small.getpixel((4, 16)) == (255, 0, 0)
        assert small.getpixel((28, 16)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("codes", "base"),
    [
        (("1F9D1-200D-2695-FE0F", "1F468-200D-2695-FE0F", "1F469-200D-2695-FE0F"), "1F9D1-2695"),
        (("1F3C3", "1F3C3-200D-2640-FE0F", "1F3C3-200D-2642-FE0F-200D-27A1-FE0F"), "1F3C3"),
        (("2764-FE0F",), "2764"),
    ],
)
def test_genders_and_directions_share_a_base(codes: tuple[str, ...], base: str) -> None:
    assert {emoji.base(code) for code in codes} == {base}


def test_no_base_stands_in_two_groups_and_no_designer_has_flags_that_are_not_its_own(
    rows: list[dict[str, Any]],
) -> None:
    groups: dict[str, set[str]] = {}
    for row in rows:
        groups.setdefault(row["base"], set()).add(row["group"])
    assert len(rows) >= 5000
    assert all(len(found) == 1 for found in groups.values())
    assert not [row for row in rows if (row["designer"], row["subgroup"]) == ("fluent", "country-flag")]
