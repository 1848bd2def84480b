"""Raw data of the task `questions`: questions that WordNet 3.0's own pointers answer, each about one of its glosses.

Nobody asked them: they are composed. A text is an entry, `headword: definition`. A pointer of it, wninput(5WN), to a
synset whose word stands in the entry's own definition makes a question of which that word is the answer: of `light
cream: cream that has at least 18% butterfat` and its hypernym `cream`, "what kind of thing is light cream?". Years of
life make two more kinds. A fifth of the questions have no answer: the entry does not say it, or is another word's.

An entry's split is drawn by its definition, and so none of test is in what a trunk is pretrained on. Test questions are
worded as no other ones are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
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
KEPT = {"kind": 0.25}
"""Share of the questions of a frequent kind that is kept."""
MOST_WORDS = 14
"""Words of a definition, at most."""
SHARES = {"test": 0.12, "val": 0.06}
"""Of the entries; the others are train."""
SIGNS = {
    "born": r"\d", "died": r"\d", "field": r"\(", "part": r"\b(of|in|on|to|from|between|part)\b",
    "member": r"\b(of|in|family|genus|order|class|member|belonging)\b",
}  # fmt: skip
"""What an entry has that may say it: one without it does not."""
SILENT, ABSENT = 0.4, 0.1
"""Of the kinds that have a sign, the share of questions about an entry without it; of the others, of questions about a
word that has another entry. Together a fifth."""
_NO_ENDS = str.maketrans("", "", "".join(chr(n) for n in range(128) if not (chr(n).isalnum() or chr(n) in "_-")))
"""Leaves what continues a word."""
_LIVED = re.compile(r"\((?:[^()]*[ ,;])?(\d{3,4})-(\d{3,4})\)")


@dataclass
class Entry:
    """A synset as a text shows it."""

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

    @cached_property
    def split(self) -> str:
        """Drawn by the definition, so that equal ones are of one split."""
        place, end = draw("split", self.definition.casefold()), 0.0
        for name, share in SHARES.items():
            end += share
            if place < end:
                return name
        return "train"


class Question(NamedTuple):
    """A row: what is asked, about which entry, and the answer."""

    question: str
    context: str
    text: str | None
    """The answer; None if the entry has none."""
    start: int | None
    """Characters of the entry before it."""
    kind: str
    synset: str
    """That the entry is of."""
    split: str


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/questions.parquet and return its path; equal bytes on every run with one pyarrow version.

    Columns: `question`, `context`, `answer` (`text` and `start`, lists; both empty if the entry has no answer), and the
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
    text = entry.definition.lower()
    for word in sorted(words, key=len, reverse=True):
        places = [start for start in _occurrences(word.lower(), text) if _is_whole(text, start, start + len(word))]
        if len(places) == 1 and kind not in entry.answers:
            start = places[0]
            entry.answers[kind] = entry.definition[start : start + len(word)], start
            return


def _occurrences(word: str, text: str) -> Iterator[int]:
    start = text.find(word)
    while start >= 0:
        yield start
        start = text.find(word, start + 1)


def _is_whole(text: str, start: int, end: int) -> bool:
    """Return whether words begin and end there; a hyphen is inside of one."""
    return not (text[max(0, start - 1) : start] + text[end : end + 1]).translate(_NO_ENDS)


def _is_short(entry: Entry) -> bool:
    words = len(entry.definition.split())
    return entry.identifier[-1] in "nv" and 2 <= words <= MOST_WORDS and len(entry.headword.split()) <= 3


def questions(found: list[Entry]) -> list[Question]:
    """Return the questions about all entries, in an order of draws: those about one do not lie together."""
    near: dict[tuple[str, int], list[Entry]] = {}
    for entry in found:
        near.setdefault((entry.split, entry.file), []).append(entry)
    silent = {
        (*place, kind): [one for one in others if kind not in one.answers and not re.search(sign, one.definition)]
        for place, others in near.items()
        for kind, sign in SIGNS.items()
    }
    made = []
    for entry in found:
        for kind in entry.answers:
            if draw("asked", entry.identifier, kind) < KEPT.get(kind, 1.0):
                place = entry.split, entry.file
                made.append(_question(entry, kind, near[place], silent.get((*place, kind), [])))
    once = {(question.question, question.context): question for question in reversed(made)}  # of equal ones the first
    return sorted(once.values(), key=lambda question: draw("order", question.question, question.context))


def _question(entry: Entry, kind: str, near: list[Entry], silent: list[Entry]) -> Question:
    """Return a question: about the entry, one of its kin that does not say it, or another word than the entry's.

    Args:
        entry: that answers it.
        kind: of question.
        near: entries of the same split and lexicographer file.
        silent: those that do not say what is asked.
    """
    about, headword = entry, entry.headword
    text: str | None
    start: int | None
    text, start = entry.answers[kind]
    start += len(headword) + 2
    if kind in SIGNS and silent and draw("silent", entry.identifier, kind) < SILENT:
        about = silent[int(len(silent) * draw("which", entry.identifier, kind))]
        headword, text, start = about.headword, None, None
    elif kind not in SIGNS and draw("absent", entry.identifier, kind) < ABSENT:
        other = near[int(len(near) * draw("other", entry.identifier, kind))].headword
        if other.casefold() != headword.casefold():
            headword, text, start = other, None, None
    form = 2 if entry.split == "test" else int(2 * draw("wording", entry.identifier, kind))
    asked = WORDINGS[kind][form].format(headword)
    return Question(asked, about.text, text, start, kind, about.identifier, entry.split)


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
