"""Raw data of the task `questions`: questions that WordNet 3.0's own pointers answer, each about a page of its glosses.

Nobody asked them: they are composed. A page holds a line of contents, the headwords, and four entries, `headword:
definition`, of one lexicographer file, both in random order. A pointer of one of them, wninput(5WN), to a synset whose
word stands in the entry's own definition makes a question of which that word is the answer: of `light cream: cream that
has at least 18% butterfat` and its hypernym `cream`, "what kind of thing is light cream?". Years of life make two more
kinds. A fifth of the questions have no answer: their headword is not on the page, or its entry does not say it.

An entry stands on one page only. Its split is drawn by its definition, before pages are made; a page is of one split,
and so no entry of a test page is in what a trunk is pretrained on. Test questions are worded as no other ones are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.importers.glosses import FILES, fetch
from graftline.importers.packages import encode_table

QUESTIONS = "questions.parquet"
WORDINGS = {
    "kind": ("what kind of thing is {}?", "{} is a kind of what?", "what is {} a kind of?"),
    "identity": ("who or what is {}?", "{} is who or what?", "{}: who or what is it?"),
    "part": ("what is {} part of?", "{} is part of what?", "of what is {} part?"),
    "member": ("what is {} a member of?", "{} is a member of what?", "of what is {} a member?"),
    "field": ("which field does {} belong to?", "{} belongs to which field?", "to which field does {} belong?"),
    "born": ("when was {} born?", "in what year was {} born?", "{} was born in what year?"),
    "died": ("when did {} die?", "in what year did {} die?", "what year did {} die in?"),
    "doing": ("to {} is a way to do what?", "what do you do if you {}?", "what is to {} a way to do?"),
}
"""Each kind of question: two wordings of train and val, and the test's."""
POINTERS = {"@i": "identity", "#p": "part", "#m": "member", ";c": "field", "@": "kind"}
"""Of nouns, wninput(5WN); of verbs `@` is `doing`."""
ENTRIES = 4
"""Entries on a page."""
ASKED = 2
"""Questions about a page, at most."""
KEPT = 0.5
"""Share of the questions of the most frequent kind that is kept."""
NO_ANSWER = 5
"""One question in so many has no answer."""
MOST_WORDS = 10
"""Words of a definition, at most: pages stay short."""
SHARES = {"test": 0.12, "val": 0.06}
"""Of the entries; the others are train."""
_SIGNS = {"born": re.compile(r"\d"), "died": re.compile(r"\d"), "field": re.compile(r"\(")}
"""What an entry has that may say it: one without it does not."""
_LIVED = re.compile(r"\((?:[^()]*[ ,;])?(\d{3,4})-(\d{3,4})\)")


@dataclass
class Entry:
    """A synset as a page shows it."""

    identifier: str
    file: int
    """Number of the lexicographer file."""
    headword: str
    definition: str
    answers: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By kind of question: the answer, and where it begins in the definition."""

    @property
    def text(self) -> str:
        return f"{self.headword}: {self.definition}"

    @property
    def split(self) -> str:
        """Drawn by the definition, so that equal ones are of one split."""
        place, end = draw("split", self.definition.casefold()), 0.0
        for name, share in SHARES.items():
            end += share
            if place < end:
                return name
        return "train"


class Question(NamedTuple):
    """A row: what is asked, about which page, and the answer."""

    question: str
    context: str
    text: str | None
    """The answer; None if the page has none."""
    start: int | None
    """Characters of the page before it."""
    kind: str
    synset: str
    """That the question is about."""
    split: str


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/questions.parquet and return its path; equal bytes on every run with one pyarrow version.

    Columns: `question`, `context`, `answer` (`text` and `start`, lists; both empty if the page has no answer), and the
    strings `kind`, `synset`, `split`. `source` is as of the task `glosses`.

    Raises:
        InputError: `source` is missing or does not hold the expected files.
        GraftlineError: the package could not be downloaded.
    """
    path = out / QUESTIONS
    found = questions(entries(fetch(source)))
    write_atomic(path, encode_table(as_table(found), ["context", "kind", "split"], group_rows=20_000))
    return path


def draw(*names: object) -> float:
    """Return a number from 0 to 1 that is as good as random, and the same at every call with equal names."""
    return int.from_bytes(sha256("\0".join(map(str, names)).encode()).digest()[:8]) / 2**64


@dataclass(frozen=True)
class _Line:
    """A synset as its file has it."""

    entry: Entry
    words: list[str]
    pointers: list[tuple[str, str]]
    """Symbol, and the synset it points to."""


def entries(files: dict[str, bytes]) -> list[Entry]:
    """Return the nouns and verbs whose definitions are short enough, with the questions that each answers.

    Raises:
        InputError: a line is not as wndb(5WN) says.
    """
    lines = {line.entry.identifier: line for name in FILES for line in _lines(name, files[name])}
    for line in lines.values():
        for symbol, target in line.pointers:
            if (kind := _kind(line.entry, symbol)) and target in lines:
                _add(line.entry, kind, lines[target].words)
        if lived := _LIVED.search(line.entry.definition):
            line.entry.answers |= {kind: (lived[n], lived.start(n)) for n, kind in ((1, "born"), (2, "died"))}
    return [line.entry for line in lines.values() if _is_short(line.entry)]


def _lines(name: str, data: bytes) -> Iterator[_Line]:
    for number, text in enumerate(data.decode("ascii").splitlines(), start=1):
        if text.startswith("  "):
            continue
        head, bar, gloss = text.partition("|")
        fields = head.split()
        try:
            count = int(fields[3], 16)
            words = [re.sub(r"\([a-z]+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
            rest = fields[4 + 2 * count :]
            pointers = [(rest[at], f"{rest[at + 1]}-{rest[at + 2]}") for at in range(1, 1 + 4 * int(rest[0]), 4)]
            entry = Entry(f"{fields[0]}-{fields[2]}", int(fields[1]), words[0], gloss.partition('; "')[0].strip())
        except (IndexError, ValueError):
            bar = ""
        if not bar:
            raise InputError(f"{name}: line {number}", repr(text[:40]), expected="a synset with a gloss")
        yield _Line(entry, words, pointers)


def _kind(entry: Entry, symbol: str) -> str | None:
    """Return which kind of question a pointer of an entry answers."""
    if entry.identifier.endswith("-v"):
        return "doing" if symbol == "@" else None
    return POINTERS.get(symbol) if entry.identifier.endswith("-n") else None


def _add(entry: Entry, kind: str, words: list[str]) -> None:
    """Note the answer, if one of the words stands once in the definition: the longest of them."""
    for word in sorted(words, key=len, reverse=True):
        places = [found.start() for found in _word(word).finditer(entry.definition)]
        if len(places) == 1 and kind not in entry.answers:
            start = places[0]
            entry.answers[kind] = entry.definition[start : start + len(word)], start
            return


@cache
def _word(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])", re.IGNORECASE)


def _is_short(entry: Entry) -> bool:
    words = len(entry.definition.split())
    return entry.identifier[-1] in "nv" and 2 <= words <= MOST_WORDS and len(entry.headword.split()) <= 3


def pages(found: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Yield pages: entries of one split and one lexicographer file, in random order; what is left over is on none.

    No two headwords of a page are equal, so that a question is about one entry: of two the later one is left out.
    """
    ordered = sorted(found, key=lambda entry: (entry.split, entry.file, draw("page", entry.identifier)))
    for _, together in groupby(ordered, key=lambda entry: (entry.split, entry.file)):
        page: dict[str, Entry] = {}
        for entry in together:
            page.setdefault(entry.headword.casefold(), entry)
            if len(page) == ENTRIES:
                yield list(page.values())
                page = {}


def questions(found: list[Entry]) -> list[Question]:
    """Return the questions about all pages, in an order of draws: a page's do not lie together."""
    frequency = Counter(kind for entry in found for kind in entry.answers)
    others: dict[tuple[str, int, str], list[Entry]] = {}
    for entry in found:
        for kind in entry.answers:
            others.setdefault((entry.split, entry.file, kind), []).append(entry)
    made = [
        _question(page, entry, kind, others[entry.split, entry.file, kind])
        for page in pages(found)
        for entry, kind in _chosen(page, frequency)
        if kind != "kind" or draw("asked", entry.identifier) < KEPT
    ]
    once = {(question.question, question.context): question for question in reversed(made)}  # of equal ones the first
    return sorted(once.values(), key=lambda question: draw("order", question.question, question.context))


def _chosen(page: list[Entry], frequency: Counter[str]) -> list[tuple[Entry, str]]:
    """Return two entries with a kind of question each, or fewer: of the kinds that are rare."""
    options = sorted(
        ((entry, kind) for entry in page for kind in entry.answers),
        key=lambda option: frequency[option[1]] * draw("choice", option[0].identifier, option[1]),
    )
    chosen: dict[str, tuple[Entry, str]] = {}
    for entry, kind in options:
        chosen.setdefault(entry.identifier, (entry, kind))
    return list(chosen.values())[:ASKED]


def _question(page: list[Entry], entry: Entry, kind: str, others: list[Entry]) -> Question:
    """Return the question; one of five is about an entry that does not say it, or that is not on the page."""
    contents = ", ".join(sorted((one.headword for one in page), key=lambda word: draw("contents", entry.split, word)))
    parts = [f"{contents}.", *(f"{one.text}." for one in page)]
    text: str | None
    start: int | None
    text, start = entry.answers[kind]
    start += sum(len(part) + 1 for part in parts[: page.index(entry) + 1]) + len(entry.headword) + 2
    if draw("no answer", entry.identifier, kind) < 1 / NO_ANSWER and (other := _unknown(page, entry, kind, others)):
        entry, text, start = other, None, None
    of = 2 if entry.split == "test" else int(2 * draw("wording", entry.identifier, kind))
    asked = WORDINGS[kind][of].format(entry.headword)
    return Question(asked, " ".join(parts), text, start, kind, entry.identifier, page[0].split)


def _unknown(page: list[Entry], entry: Entry, kind: str, others: list[Entry]) -> Entry | None:
    """Return an entry of which the page does not say it: one on the page for half of the years and fields, if there is.

    Others are of the same kind, but not on the page; None if there are none.
    """
    sign = _SIGNS.get(kind)
    silent = [one for one in page if sign and not sign.search(one.definition)]
    if silent and draw("silent", entry.identifier, kind) < 0.5:
        return silent[int(len(silent) * draw("which", entry.identifier, kind))]
    here = {one.headword.casefold() for one in page}
    absent = [one for one in others if one.headword.casefold() not in here]
    return absent[int(len(absent) * draw("other", entry.identifier, kind))] if absent else None


def as_table(found: list[Question]) -> pa.Table:
    """Return one row a question."""
    answers: list[dict[str, list[Any]]] = [
        {"text": [], "start": []} if one.text is None else {"text": [one.text], "start": [one.start]} for one in found
    ]
    kind = pa.struct([("text", pa.list_(pa.string())), ("start", pa.list_(pa.int64()))])
    names = ("question", "context", "kind", "synset", "split")
    columns = {name: pa.array([getattr(one, name) for one in found], pa.string()) for name in names}
    return pa.table({**columns, "answer": pa.array(answers, kind)}).select(
        ["question", "context", "answer", "kind", "synset", "split"]
    )
