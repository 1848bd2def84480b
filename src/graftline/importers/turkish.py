"""Raw data of the task `turkish`: the Turkish Web Treebank, in the PyPI package turkish-treebanks 1.0.0.

The package holds data/web.conllu and data/wiki.conllu in CoNLL-U (https://universaldependencies.org/format):
a token a line, ten columns, an empty line after each sentence. Column 2 is the word, column 4 its coarse
part of speech. Words are split at derivational suffixes: `olmanın` is `ol` (VERB) and `manın` (NOUN).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.importers.packages import download_wheel, encode_table, read_source, wheel_members

PACKAGE = "turkish-treebanks==1.0.0"
MEMBERS = {
    "data/web.conllu": "d6f92b12b74f367a36e30dd3d644d7a0bb01a991584602e6e69f1191664f86bf",
    "data/wiki.conllu": "58f049fae8d0653ba0940a58168c17c7cebbc50f88cad2985d12d34ac1b9acde",
}
"""Each file's sha256."""
SENTENCES = "sentences.parquet"


class Sentence(NamedTuple):
    """Words and their parts of speech, equally many."""

    identifier: str
    """`tr-forum:00000211:S018` of a web page, the page's address and a number of Wikipedia."""
    words: list[str]
    tags: list[str]


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/sentences.parquet and return its path; equal bytes on every run with one pyarrow version.

    Columns: `words` and `tags`, lists of strings, and `sentence`, a string. `source` is the already fetched
    wheel; without it the package is downloaded.

    Raises:
        InputError: `source` is missing or does not hold the expected files.
        GraftlineError: the package could not be downloaded.
    """
    wanted = f"the wheel of {PACKAGE}"
    wheel = download_wheel(PACKAGE, wanted) if source is None else read_source(source, wanted)
    files = wheel_members(wheel, source or PACKAGE, MEMBERS)
    found = [sentence for name in MEMBERS for sentence in sentences(name, files[name].decode())]
    path = out / SENTENCES
    write_atomic(path, encode_table(as_table(found), ["tags.list.element"], group_rows=10_000))
    return path


def sentences(name: str, text: str) -> Iterator[Sentence]:
    """Yield the sentences of a CoNLL-U file. Raises InputError if a line is not as the format says."""
    identifier = ""
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            identifier = value.strip() if key.strip() == "sent_id" else identifier
        elif line:
            columns = line.split("\t")
            if len(columns) != 10 or not columns[0].isdigit():
                raise InputError(f"{name}: line {number}", repr(line[:40]), expected="ten columns, a number first")
            words.append(columns[1])
            tags.append(columns[3])
        elif words:
            yield Sentence(identifier, words, tags)
            words, tags = [], []


def as_table(found: list[Sentence]) -> pa.Table:
    """Return one row a sentence."""
    lists = pa.list_(pa.string())
    return pa.table(
        {
            "words": pa.array([sentence.words for sentence in found], lists),
            "tags": pa.array([sentence.tags for sentence in found], lists),
            "sentence": pa.array([sentence.identifier for sentence in found], pa.string()),
        }
    )
