"""Raw data of the task `help`: LibreOffice's help in English and German, in Debian's packages of it.

A page of the help is an HTML file; its headings and paragraphs have ids, which are the same in every language:
`<p id="par_id3150868" class="paragraph" dir="auto">`. A paragraph that several pages show has one id on all of them.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from graftline.durable import write_atomic
from graftline.importers.packages import check_all, deb_folder, deb_of, encode_table, read_source

FOLDER = "usr/share/libreoffice/help"
LANGUAGES = {"en-US": "libreoffice-help-en-us", "de": "libreoffice-help-de"}
"""The packages by language, the source's first."""
DIGESTS = {
    "en-US": "411b905d2eee27102378ff50ddfdece30fd3fda1849efde251b2caa9636fd6dd",
    "de": "5532fd5c8d4e1abd7b89d0e465f6c66f250fc8adac744e4552495da7659f78ab",
}
"""sha256 of the canonical JSON of all pages' sha256 by path: they pin LibreOffice 7.4.7, not Debian's revision."""
PAIRS = "pairs.parquet"

_BLOCK = re.compile(r'<(p|h[1-6]) id="((?:par|hd)_id[^"]*)"[^>]*>(.*?)</\1>', re.DOTALL)
_TAG = re.compile("<[^>]*>")


class Pair(NamedTuple):
    """A heading or paragraph in both languages."""

    source: str
    target: str
    page: str
    """The first page that shows it: `shared/01/01010000`."""
    paragraph: str


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/pairs.parquet and return its path; equal bytes on every run with one pyarrow version.

    Columns: `english`, `german`, `page` and `paragraph`, all strings. `source` is a folder with both .deb files, or one
    into which they were unpacked; without it the packages are downloaded.

    Raises:
        InputError: `source` is missing or does not hold the expected pages.
        GraftlineError: a package could not be downloaded.
    """
    pages = {language: fetch(language, source) for language in LANGUAGES}
    path = out / PAIRS
    write_atomic(path, encode_table(as_table(list(pairs(*pages.values()))), ["page"], group_rows=10_000, level=19))
    return path


def fetch(language: str, source: Path | None) -> dict[str, str]:
    """Return the pages in one language by path, such as `shared/01/01010000`. Raises as `write` does."""
    folder, package = f"{FOLDER}/{language}/text", LANGUAGES[language]
    if source is not None and (source / folder).is_dir():
        found = {str(path.relative_to(source)): read_source(path, "a page") for path in _pages(source / folder)}
        where: object = source / folder
    else:
        where = source / f"{package}_*.deb" if source is not None else package
        wanted = f"a folder with the .deb files of {' and '.join(LANGUAGES.values())}, or with {FOLDER}"
        found = deb_folder(deb_of(package, source, wanted), where, folder, ".html")
    check_all(where, found, DIGESTS[language], what="pages", fix="take those of LibreOffice 7.4.7")
    return {path.removeprefix(f"{folder}/").removesuffix(".html"): data.decode() for path, data in found.items()}


def _pages(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.html") if path.is_file())


def pairs(english: Mapping[str, str], german: Mapping[str, str]) -> Iterator[Pair]:
    """Yield the headings and paragraphs that both languages have, by page: each pair of texts once.

    Those that are empty or equal in both, such as names of functions and untranslated ones, are left out.
    """
    seen = set()
    for page in sorted(english.keys() & german.keys()):
        others = dict(_blocks(german[page]))
        for (paragraph, number), text in _blocks(english[page]):
            other = others.get((paragraph, number), "")
            if text and other and text != other and (text, other) not in seen:
                seen.add((text, other))
                yield Pair(text, other, page, paragraph)


def _blocks(page: str) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield each heading's and paragraph's id, how often that stood before on the page, and its text."""
    before: Counter[str] = Counter()
    for found in _BLOCK.finditer(page):
        name = found[2]
        yield (name, before[name]), " ".join(html.unescape(_TAG.sub("", found[3])).split())
        before[name] += 1


def as_table(found: list[Pair]) -> pa.Table:
    """Return one row a pair."""
    names = {"english": "source", "german": "target", "page": "page", "paragraph": "paragraph"}
    return pa.table({name: pa.array([getattr(pair, of) for pair in found], pa.string()) for name, of in names.items()})
