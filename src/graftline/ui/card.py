"""The model card as blocks that a template writes: headings, tables, paragraphs, lists, pictures.

A subset of Markdown, for pages that show text of unknown origin: no HTML passes, no link is followed, and a picture is
one of the release's own files or is left as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

_HEADING = re.compile(r"(#{1,6}) +(.+?) *#*")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([A-Za-z0-9_][A-Za-z0-9._-]{0,199})\)")
_ITEM = re.compile(r"[-*] +(.+)")
_RULE = re.compile(r"\|(?: *:?-+:? *\|)+")


@dataclass(frozen=True)
class Block:
    """One part of the card."""

    kind: Literal["heading", "table", "paragraph", "list", "picture"]
    text: str = ""
    level: int = 0
    """Of a heading: 1 to 6."""
    rows: list[list[str]] = field(default_factory=list)
    """Of a table, its head first; of a list, one cell a row."""


def read_card(text: str) -> list[Block]:
    """Return the blocks of the card; its metadata block, between two lines of `---`, is left out."""
    lines = text.splitlines()
    if lines[:1] == ["---"] and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    return list(_blocks(lines))


def spans(text: str) -> list[tuple[str, bool]]:
    """Return the parts of a line, each with whether it is code (between backticks)."""
    return [(part, number % 2 == 1) for number, part in enumerate(text.split("`")) if part]


def _blocks(lines: list[str]) -> Iterator[Block]:
    start = 0
    while start < len(lines):
        line = lines[start].strip()
        if not line:
            start += 1
        elif heading := _HEADING.fullmatch(line):
            yield Block("heading", heading[2], level=len(heading[1]))
            start += 1
        elif picture := _PICTURE.fullmatch(line):
            yield Block("picture", picture[2])
            start += 1
        else:
            end = next((n for n in range(start, len(lines)) if not lines[n].strip()), len(lines))
            yield _paragraph([line.strip() for line in lines[start:end]])
            start = end


def _paragraph(lines: list[str]) -> Block:
    if len(lines) > 1 and lines[0].startswith("|") and _RULE.fullmatch(lines[1]):
        return Block("table", rows=[_cells(line) for line in [lines[0], *lines[2:]]])
    items = [_ITEM.fullmatch(line) for line in lines]
    if all(items):
        return Block("list", rows=[[item[1]] for item in items if item])
    return Block("paragraph", " ".join(lines))


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", inner)]
