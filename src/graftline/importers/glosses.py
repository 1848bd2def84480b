"""Raw data of the task `glosses`: the glosses of WordNet 3.0, in the Debian package wordnet-base.

A line of data.noun and its like is one synset, wndb(5WN): its offset in the file, the number of its
lexicographer file (lexnames(5WN)), its type (n, v, a, s, r), words, pointers, and after a `|` its gloss: a
definition, and in 28% of them examples in quotes. Lines that begin with two spaces are the licence.
Miller, "WordNet: a lexical database for English", Communications of the ACM 38(11), 1995.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.importers.packages import check_members, deb_members, download_deb, encode_table, read_source

PACKAGE = "wordnet-base"
FOLDER = "usr/share/wordnet"
FILES = {
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "data.verb": "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
    "data.adj": "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
    "data.adv": "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
}
"""Each file's sha256: they pin WordNet 3.0, whatever the package's version."""
NOUN_FILES = {
    3: "noun.Tops", 4: "noun.act", 5: "noun.animal", 6: "noun.artifact", 7: "noun.attribute", 8: "noun.body",
    9: "noun.cognition", 10: "noun.communication", 11: "noun.event", 12: "noun.feeling", 13: "noun.food",
    14: "noun.group", 15: "noun.location", 16: "noun.motive", 17: "noun.object", 18: "noun.person",
    19: "noun.phenomenon", 20: "noun.plant", 21: "noun.possession", 22: "noun.process", 23: "noun.quantity",
    24: "noun.relation", 25: "noun.shape", 26: "noun.state", 27: "noun.substance", 28: "noun.time",
}  # fmt: skip
"""lexnames(5WN), the lexicographer files of nouns."""
MIN_MEMBERS = 300
"""A class has more members than this."""
GLOSSES = "glosses.parquet"


class Synset(NamedTuple):
    """One line of a data file."""

    identifier: str
    """Offset and type: `00001740-n`."""
    file: int
    """Number of the lexicographer file."""
    gloss: str


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/glosses.parquet and return its path; equal bytes on every run with one pyarrow version.

    Columns: `text`, `label` (a class of nouns, or null) and `synset`, all strings. `source` is an already
    fetched .deb file, or a folder with the data files; without it the package is downloaded.

    Raises:
        InputError: `source` is missing or does not hold the expected files.
        GraftlineError: the package could not be downloaded.
    """
    path = out / GLOSSES
    write_atomic(path, encode_table(as_table(list(synsets(fetch(source)))), ["label"], group_rows=20_000))
    return path


def fetch(source: Path | None) -> dict[str, bytes]:
    """Return the data files by name, each with its expected digest. Raises as `write` does."""
    if source is not None and source.is_dir():
        expected = f"{', '.join(FILES)} in {source}"
        found = {name: read_source(source / name, expected) for name in FILES}
        check_members(source, found, FILES)
        return found
    wanted = f"the .deb file of {PACKAGE}, or the folder {FOLDER}"
    deb = download_deb(PACKAGE, wanted) if source is None else read_source(source, wanted)
    members = {f"{FOLDER}/{name}": digest for name, digest in FILES.items()}
    return {Path(path).name: data for path, data in deb_members(deb, source or PACKAGE, members).items()}


def synsets(files: dict[str, bytes]) -> Iterator[Synset]:
    """Yield the synsets of the data files: nouns, verbs, adjectives, adverbs, each in the file's order.

    Raises:
        InputError: a line is not as wndb(5WN) says.
    """
    for name in FILES:
        for number, line in enumerate(files[name].decode("ascii").splitlines(), start=1):
            if line.startswith("  "):
                continue
            fields, bar, gloss = line.partition("|")
            head = fields.split(" ", 3)
            if not bar or len(head) < 4 or not head[1].isdigit():
                raise InputError(f"{name}: line {number}", repr(line[:40]), expected="a synset with a gloss")
            yield Synset(f"{head[0]}-{head[2]}", int(head[1]), gloss.strip())


def as_table(found: list[Synset]) -> pa.Table:
    """Return one row a synset."""
    members = Counter(synset.file for synset in found)
    classes = {file: name for file, name in NOUN_FILES.items() if members[file] > MIN_MEMBERS}
    return pa.table(
        {
            "text": pa.array([synset.gloss for synset in found], pa.string()),
            "label": pa.array([classes.get(synset.file) for synset in found], pa.string()),
            "synset": pa.array([synset.identifier for synset in found], pa.string()),
        }
    )
