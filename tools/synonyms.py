"""English words of one meaning, out of WordNet 3.0: src/graftline/values/corruptions/synonyms.txt.

    python tools/synonyms.py [wordnet-base_3.0-37_all.deb]

A word counts in its usual sense alone: its only one, or one in which WordNet's texts have it more often than in all its
others together. Words whose usual sense is one synset are a line. Left out: lines of which no word is in those texts,
and words of other signs than small letters. Formats: wndb(5WN) and cntlist(5WN).
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from graftline.durable import write_atomic
from graftline.environment import ROOT
from graftline.importers.glosses import FOLDER, PACKAGE
from graftline.importers.packages import deb_members, download_deb, read_source

FILES = {
    "index.noun": "a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04",
    "index.verb": "e2ac24816c3a8289dcb72aaa9cf8db81fdf25ec34d792bfc96ac5b7a20c8b4ae",
    "index.adj": "c9865d7b4d1f805bdef82ccdcea5282436e23083e6f6f1b33e716327c4eda810",
    "index.adv": "6f5465ed5758fe9c8a2f7ec17b1300f3aa875756c70ff7cba162f7e71bcf88ea",
    "cntlist.rev": "a198580b8f705fa02797bba8b13e5cbe4a9f9f40cb1697e774c7fc6a5865b035",
}
TYPES = {"1": "index.noun", "2": "index.verb", "3": "index.adj", "4": "index.adv", "5": "index.adj"}
"""Where the words of a sense key's type stand, senseidx(5WN); 5 is an adjective satellite."""
OUT = ROOT / "src/graftline/values/corruptions/synonyms.txt"
NOTICE = ROOT / "data/glosses/LICENSE"
"""WordNet asks that it stands on all copies."""
WORD = re.compile("[a-z]{3,}")


def main(package: Path | None) -> None:
    wanted = f"the .deb file of {PACKAGE}"
    deb = download_deb(PACKAGE, wanted) if package is None else read_source(package, wanted)
    members = {f"{FOLDER}/{name}": digest for name, digest in FILES.items()}
    found = {Path(path).name: data.decode() for path, data in deb_members(deb, package or PACKAGE, members).items()}
    lines = [" ".join(words) for words in of_one_meaning(found)]
    said = [
        "Words of one meaning, by tools/synonyms.py out of WordNet 3.0.",
        "",
        *NOTICE.read_text(encoding="utf-8").splitlines(),
    ]
    write_atomic(OUT, "\n".join([*(f"# {line}".rstrip() for line in said), *lines, ""]).encode())
    print(f"{OUT}: {len(lines)} lines")


def of_one_meaning(files: Mapping[str, str]) -> list[list[str]]:
    """Return sets of two words or more, sorted; no word is in two."""
    counts = _counts(files["cntlist.rev"].splitlines())
    senses: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in sorted(set(TYPES.values())):
        for word, synsets in _indexed(files[name].splitlines()):
            senses[word] += [(counts.get((name, word, n), 0), f"{name} {at}") for n, at in enumerate(synsets, 1)]
    usual, seen = defaultdict(list), set()
    for word, found in senses.items():
        count, synset = max(found)
        total = sum(count for count, _ in found)
        if len(found) == 1 or 2 * count > total:
            usual[synset].append(word)
        if total:
            seen.add(word)
    return sorted(sorted(words) for words in usual.values() if len(words) > 1 and seen.intersection(words))


def _counts(lines: Iterable[str]) -> dict[tuple[str, str, int], int]:
    """Return how often words stand in the tagged texts, by file, word and number of the sense."""
    found = {}
    for line in lines:
        key, number, count = line.split()
        word, _, rest = key.partition("%")
        found[TYPES[rest[0]], word, int(number)] = int(count)
    return found


def _indexed(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the words of an index file and the offsets of their synsets, the most frequent sense first."""
    for line in lines:
        fields = line.split()
        if not line.startswith("  ") and WORD.fullmatch(fields[0]):
            yield fields[0], fields[-int(fields[2]) :]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
