"""Translation memories (.tmx): a unit is a row, each language a column by its code, as the file spells it.

https://www.gala-global.org/tmx-14b. Codes of formatting inside a segment (bpt, ept, it, ph, ut) are left out; the text
that is formatted stays. No entity is expanded but XML's own five, and nothing is fetched: a declared one ends the read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.batches import RawBatch
from graftline.raw.lines import read_blocks, read_head, scaled
from graftline.raw.reader import Asked, Reader, Source, check_columns
from graftline.raw.rows import check_header, text_batches
from graftline.raw.xml import SafeXml

_SEEN = 1000
"""So many units tell of the languages, and more only until those that are asked for have come."""
_CODES = ("bpt", "ept", "it", "ph", "ut")


class Tmx(Reader):
    format: ClassVar[str] = "tmx"
    suffixes: ClassVar[tuple[str, ...]] = (".tmx",)

    def schema(self, path: Path, source: Source) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in _languages(path)])

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        head, size = read_head(path)
        return scaled(head.count(b"</tu>"), head, size)

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        found = _languages(path, asked.names)
        dropped = check_header(f"{path}: the languages", found, asked)
        header = asked.names

        def rows() -> Iterator[list[str]]:
            for place, unit in _units(path):
                others = [name for name in unit.texts if name not in header]
                if others and asked.others == "refuse":
                    check_columns(f"{path}: line {place}", [*header, *others], asked)
                # A language that stands twice makes too many cells: the row goes to the quarantine.
                again = [text for name, text in unit.repeated if name in header]
                yield [unit.texts.get(name, "") for name in header] + again

        yield from text_batches(path, header, rows(), asked, first_row, dropped)


@dataclass
class _Unit:
    texts: dict[str, str] = field(default_factory=dict)
    """By language."""
    repeated: list[tuple[str, str]] = field(default_factory=list)
    """Further texts of a language that has one, each with the language."""

    def add(self, language: str, text: str) -> None:
        if language in self.texts:
            self.repeated.append((language, text))
        else:
            self.texts[language] = text


def _languages(path: Path, wanted: Sequence[str] = ()) -> list[str]:
    """Return the languages of the first units, in the order in which they come: of so many that all wanted ones are
    among them, if the file has them. Raises InputError if there are none.
    """
    found: dict[str, None] = {}
    for number, (_, unit) in enumerate(_units(path)):
        if number >= _SEEN and found.keys() >= set(wanted):
            break
        found |= dict.fromkeys(unit.texts)
    if not found:
        raise InputError(path, "no unit with a text", expected="<tu> with a <tuv xml:lang=...> for each language")
    return list(found)


def _units(path: Path) -> Iterator[tuple[int, _Unit]]:
    """Yield the units, each with the line on which it ends. Raises InputError."""
    parse = _Parse(path)
    for block in read_blocks(path):
        parse.feed(block)
        while parse.done:
            yield parse.done.popleft()
    parse.feed(b"", last=True)
    yield from parse.done


class _Parse:
    """The units of a file, as its bytes come."""

    def __init__(self, path: Path) -> None:
        self.done: deque[tuple[int, _Unit]] = deque()
        self._unit: _Unit | None = None
        self._language = ""
        self._text: list[str] | None = None
        self._size = self._codes = 0
        self._xml = SafeXml(path, "a TMX file")
        self._xml.expat.StartElementHandler = self._start
        self._xml.expat.EndElementHandler = self._end
        self._xml.expat.CharacterDataHandler = self._characters
        self.feed = self._xml.feed

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "tu":
            self._unit = _Unit()
        elif name == "tuv":
            self._language = attributes.get("xml:lang") or attributes.get("lang") or ""
            if not self._language:
                raise self._xml.amiss("a <tuv> without a language", '<tuv xml:lang="...">', "correct the line")
        elif name == "seg":
            self._text, self._size = [], 0
        elif name in _CODES:
            self._codes += 1

    def _characters(self, text: str) -> None:
        if self._text is None or self._codes:
            return
        self._text.append(text)
        self._size += len(text)
        if self._size > limits.MAX_LINE:
            raise self._xml.amiss(
                f"a segment of more than {limits.MAX_LINE} characters", "a sentence or a paragraph",
                "take it out; an end tag may be missing",
            )  # fmt: skip

    def _end(self, name: str) -> None:
        if name in _CODES:
            self._codes -= 1
        elif name == "seg" and self._unit is not None and self._text is not None:
            self._unit.add(self._language, "".join(self._text).strip())
            self._text = None
        elif name == "tu" and self._unit is not None:
            self.done.append((self._xml.line, self._unit))
            self._unit = None
