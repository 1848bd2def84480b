"""The importer of LibreOffice's help on real packages made of its pages' form, and on the shipped data.

The download is not tested, nor that Debian's pages have the expected digests: the command checks that.
"""

from __future__ import annotations

import html
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from debs import deb

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import help_pages

RAW = ROOT / "data" / "help" / "raw" / "pairs.parquet"
BLOCK = '<p id="{}" class="paragraph" dir="auto"><span class="emph">{}</span></p>\n'


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[str]]:
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    columns: dict[str, list[str]] = pq.read_table(RAW).to_pydict()
    return columns


@pytest.fixture
def pages(shipped: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, bytes]]:
    """Pages in both languages with the shipped texts, and more that are not to be in the data."""
    made: dict[str, dict[str, str]] = {language: defaultdict(str) for language in help_pages.LANGUAGES}
    for row in zip(*(shipped[name] for name in ("page", "paragraph", "english", "german")), strict=True):
        for language, text in zip(made, row[2:], strict=True):
            made[language][row[0]] += BLOCK.format(row[1], html.escape(text))
    untranslated = '<h2 id="hd_id1" dir="auto">MsgBox</h2><p id="par_id2" class="x"> </p><p id="other">no</p>'
    found = {
        language: {
            f"{help_pages.FOLDER}/{language}/text/{page}.html": (untranslated + text + untranslated).encode()
            for page, text in of.items()
        }
        for language, of in made.items()
    }
    found["en-US"][f"{help_pages.FOLDER}/en-US/text/only.html"] = b'<p id="par_id3">Only here</p>'
    digests = {
        language: sha256_bytes(canonical_json({path: sha256_bytes(data) for path, data in of.items()}))
        for language, of in found.items()
    }
    monkeypatch.setattr(help_pages, "DIGESTS", digests)
    return found


def test_packages_and_folders_give_the_bytes_of_the_shipped_raw_data(
    pages: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    for language, package in help_pages.LANGUAGES.items():
        (tmp_path / f"{package}_7.4.7_all.deb").write_bytes(deb({**pages[language], "usr/share/doc/x": b"?"}))
    assert help_pages.write(tmp_path / "out", tmp_path).read_bytes() == RAW.read_bytes()
    for of in pages.values():
        for name, data in of.items():
            path = tmp_path / "unpacked" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    assert help_pages.fetch("de", tmp_path / "unpacked") == help_pages.fetch("de", tmp_path)


def test_the_shipped_rows_are_those_that_the_datasheet_counts(shipped: dict[str, list[str]]) -> None:
    rows = list(zip(shipped["english"], shipped["german"], strict=True))
    assert len(rows) == len(set(rows)) == 35_276 and len(set(shipped["page"])) == 2_359
    assert all(english and german and english != german for english, german in rows)
    assert sum(len(text.split()) for text in shipped["english"]) == 482_038
    assert "Mozilla Public License Version 2.0" in (RAW.parents[1] / "LICENSE").read_text()


def test_what_is_not_the_expected_help_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 files libreoffice-help-en-us_\*\.deb; expected a folder with the \.deb"):
        help_pages.write(tmp_path / "out", tmp_path)
    for package in help_pages.LANGUAGES.values():
        (tmp_path / f"{package}_1.deb").write_bytes(deb({f"{help_pages.FOLDER}/en-US/text/a.html": b"x"}))
    with pytest.raises(InputError, match=r"1 pages of sha256 .*; expected 411b905d.*LibreOffice 7\.4\.7"):
        help_pages.write(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
