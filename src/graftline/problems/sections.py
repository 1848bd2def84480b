"""What a problem adds to the report: sections.json in the evaluation, which the page shows as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from graftline.canonical import read_json
from graftline.jsonfile import write_json

SECTIONS = "sections.json"


@dataclass(frozen=True)
class Section:
    """A heading, and below it a picture, a table or both."""

    title: str
    note: str
    """What is seen, in a sentence."""
    picture: str | None = None
    """The file's name in the evaluation, a PNG."""
    alt: str = ""
    """What the picture shows, to those who cannot see it."""
    header: tuple[str, ...] = ()
    """Of the table's columns; empty without a table."""
    lines: tuple[tuple[str, ...], ...] = ()


def write_sections(sections: Sequence[Section], out: Path) -> None:
    """Write the sections of a problem's report into the evaluation."""
    write_json([asdict(section) for section in sections], out / SECTIONS)


def add_sections(sections: Sequence[Section], out: Path) -> None:
    """Write sections behind those that the evaluation has, if it has any."""
    path = out / SECTIONS
    write_json([*(read_json(path) if path.is_file() else []), *map(asdict, sections)], path)
