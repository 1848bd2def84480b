"""Raw data of the task `packages`: on which packages a package depends, in the index of Debian 12 (bookworm), main.

The index (`Packages`: https://wiki.debian.org/DebianRepository/Format) has a paragraph a binary package. Taken of it
are names alone (Package, Source, Provides, Depends, Pre-Depends) and debtags (Tag: https://wiki.debian.org/Debtags);
the descriptions are left out.

A user is a source package, an item a source package that a binary package of it needs: every alternative of Depends
and Pre-Depends counts, a virtual package where one source alone provides it, and no source for itself. Users with fewer
than five items and items with fewer than five users go until none is left.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import shutil
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from graftline.digests import sha256_bytes
from graftline.durable import write_atomic
from graftline.errors import GraftlineError, InputError
from graftline.importers.packages import encode_table, read_source

INTERACTIONS, ITEMS = "dependencies.parquet", "items.parquet"
SHIPPED = "515e692f2c4121c6fcec444ef100cc18f79a991910615f3a88c8b7becfc94d2f"
"""sha256 of the index, unpacked, that the shipped data is of: Debian 12.15 for amd64."""
LEAST = 5
"""Items a user and users an item, at least."""
_WANTED = "the file Packages of bookworm/main/binary-amd64, unpacked or as .gz or .xz"
_TARGETS = ("apt-get", "indextargets", "--format", "$(FILENAME)")
_WHICH = ("Created-By: Packages", "Codename: bookworm", "Component: main", "Architecture: amd64")
_HELPER = "/usr/lib/apt/apt-helper"
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_PARTS = re.compile(r"[a-z]{2,}")

Paragraph = dict[str, str]


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/dependencies.parquet and `out`/items.parquet; return the first. Equal bytes of an equal index.

    Columns: `package` and `dependency`, strings; of items `item`, a string, and `words`, a list of strings: debtags of
    its binary packages, and the parts of its name. `source` is the index; without it it is that of this machine's apt.

    Raises:
        InputError: `source` cannot be read, or is no index.
        GraftlineError: there is no apt here, or it has no such index.
    """
    found = read_index(source)
    pairs = core(dependencies(found))
    path = out / INTERACTIONS
    table = pa.table({"package": [user for user, _ in pairs], "dependency": [item for _, item in pairs]})
    write_atomic(out / ITEMS, catalogue({item for _, item in pairs}, found))
    write_atomic(path, encode_table(table, ["package", "dependency"], group_rows=200_000))
    return path


def read_index(source: Path | None) -> list[Paragraph]:
    """Return the index's packages; say if it is another index than that of the shipped data. Raises as `write` does."""
    index = _of_apt() if source is None else _unpacked(read_source(source, _WANTED), source)
    if (digest := sha256_bytes(index)) != SHIPPED:
        print(f"import: the index is another one than that of the shipped data (sha256 {digest})", file=sys.stderr)
    return list(paragraphs(index.decode("utf-8", "replace"), source or "apt"))


def catalogue(items: set[str], found: list[Paragraph]) -> bytes:
    """Return the Parquet file with the items, in order, and their words."""
    words, named = words_of(found), sorted(items)
    about = pa.table({"item": named, "words": pa.array([words[item] for item in named], pa.list_(pa.string()))})
    return encode_table(about, ["words.list.element"], group_rows=10_000)


def _of_apt() -> bytes:
    """Return the index among the lists of this machine's apt."""
    if shutil.which(_TARGETS[0]) is None:
        raise GraftlineError(f"no apt-get here; fetch it elsewhere and give {_WANTED} by --from")
    listed = subprocess.run([*_TARGETS, *_WHICH], capture_output=True, encoding="utf-8", check=False)
    files = listed.stdout.split()
    read = subprocess.run([_HELPER, "cat-file", files[0]], capture_output=True, check=False) if files else None
    if read is None or read.returncode != 0:
        raise GraftlineError(
            f"apt-get indextargets: no index of bookworm here; run `apt-get update` on Debian 12, or give {_WANTED} "
            "by --from"
        )
    return read.stdout


def _unpacked(data: bytes, path: Path) -> bytes:
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        return lzma.decompress(data) if data.startswith(b"\xfd7zXZ") else data
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(path, f"damaged ({error})", expected=_WANTED, fix="fetch it again") from None


def paragraphs(index: str, name: object) -> Iterator[Paragraph]:
    """Yield the fields of each binary package. Raises InputError if a line is not as the format says."""
    fields: Paragraph = {}
    field, number = "", 0
    for number, line in enumerate(io.StringIO(index), start=1):
        line = line.rstrip("\n")
        if not line:
            if fields:
                yield _named(fields, f"{name}: line {number - 1}")
            fields, field = {}, ""
        elif line[0] in " \t" and field:
            fields[field] += line
        else:
            field, colon, value = line.partition(":")
            if not colon:
                raise InputError(f"{name}: line {number}", repr(line[:40]), expected="`Field: value`")
            fields[field] = value.strip()
    if fields:
        yield _named(fields, f"{name}: line {number}")
    if not number:
        raise InputError(name, "an empty file", expected=_WANTED)


def _named(fields: Paragraph, where: str) -> Paragraph:
    if "Package" not in fields:
        raise InputError(where, f"a paragraph of {', '.join(fields)[:60]} without Package", expected=_WANTED)
    return fields


def source_of(package: Paragraph) -> str:
    """Return the name of the source that a binary package is made of."""
    return package.get("Source", package["Package"]).split(" ")[0]


def dependencies(found: list[Paragraph]) -> set[tuple[str, str]]:
    """Return which source needs which other one."""
    return set(strengths(found, {"Depends": 1, "Pre-Depends": 1}))


def strengths(found: list[Paragraph], of_field: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Return how strongly a source relates to another: the most of `of_field` among their binary packages' fields."""
    by_name = {package["Package"]: {source_of(package)} for package in found}
    providers: dict[str, set[str]] = defaultdict(set)
    for package in found:
        for name in _names(package.get("Provides", "")):
            providers[name].add(source_of(package))
    pairs: dict[tuple[str, str], int] = {}
    for package in found:
        user = source_of(package)
        for field, strength in of_field.items():
            for name in _names(package.get(field, "")):
                sources = by_name.get(name) or providers.get(name, set())
                if len(sources) == 1 and sources != {user}:
                    pair = user, next(iter(sources))
                    pairs[pair] = max(strength, pairs.get(pair, strength))
    return pairs


def _names(relations: str) -> Iterator[str]:
    """Yield the names in a field such as `libc6 (>= 2.34), python3:any | python`."""
    for one in re.split("[,|]", relations):
        if match := _NAME.match(one.strip()):
            yield match[0]


def core(pairs: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs, in order, of users and items that have LEAST of the other kind among those that are left."""
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        left = {(user, item) for user, item in pairs if users[user] >= LEAST and items[item] >= LEAST}
        if len(left) == len(pairs):
            return sorted(left)
        pairs = left


def words_of(found: list[Paragraph]) -> dict[str, list[str]]:
    """Return what is known of each source: its debtags, and the parts of its name, each in order."""
    tags: dict[str, set[str]] = defaultdict(set)
    for package in found:
        tags[source_of(package)] |= set(_tags(package.get("Tag", "")))
    return {name: [*sorted(of), *sorted(set(_PARTS.findall(name)))] for name, of in tags.items()}


def _tags(field: str) -> Iterator[str]:
    """Yield debtags; `role::{program,shared-lib}` stands for two."""
    for before, several, plain in re.findall(r"([a-z0-9:+-]*)\{([^}]*)\}|([^,\s{}]+)", field):
        yield from (f"{before}{one.strip()}" for one in several.split(",")) if several else (plain,)
