"""Pascal VOC: a folder of pictures with an XML file each, which names the picture and the objects in it.

M. Everingham et al., "The Pascal Visual Object Classes (VOC) challenge", IJCV 2010. A box is xmin, ymin, xmax, ymax,
the first pixel being 1 and the last one being in it: here it becomes the edges around these pixels, from 0 on. The
parts of an object (heads, hands) and masks are passed over. A picture without an XML file is one nobody looked at.

    Annotations/1.xml  JPEGImages/1.jpg     as VOC has it
    1.xml  1.jpg                            side by side, as tools for annotation write it
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa

from graftline.errors import InputError
from graftline.raw.batches import LeftOut, RawBatch
from graftline.raw.media import ENCODED, IMAGE, PATH, MediaRows, file_inside
from graftline.raw.picture_formats import SUFFIXES, is_picture
from graftline.raw.reader import Asked, Source, check_columns
from graftline.raw.walk import walk
from graftline.raw.xml import SafeXml

OBJECTS = "objects"
SCHEMA = pa.schema([
    (IMAGE, ENCODED), (PATH, pa.string()),
    (OBJECTS, pa.struct([
        ("box", pa.list_(pa.list_(pa.float64()))), ("name", pa.list_(pa.string())), ("difficult", pa.list_(pa.bool_())),
        ("width", pa.int64()), ("height", pa.int64()),
    ])),
])  # fmt: skip
MOST_BYTES = 4 << 20
"""Largest XML file: some 10,000 objects."""
_LOOKED_AT = 10_000
_MASKS = ("SegmentationClass", "SegmentationObject")
"""Folders of pictures that are masks of others."""
_EDGES = ("xmin", "ymin", "xmax", "ymax")


class Voc:
    """A `Reader` of a whole folder."""

    format: ClassVar[str] = "voc"
    suffixes: ClassVar[tuple[str, ...]] = ()

    def takes(self, path: Path) -> bool:
        if not path.is_dir():
            return False
        names = list(islice(walk(path, []), _LOOKED_AT))
        first = next((name for name in names if name.endswith(".xml")), None)
        if first is None or not any(is_picture(PurePosixPath(name)) for name in names):
            return False
        with (path / first).open("rb") as file:
            return b"<annotation" in file.read(1024)

    def guess(self, path: Path) -> Source:
        return Source(format=self.format)

    def schema(self, path: Path, source: Source) -> pa.Schema:
        return SCHEMA

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        names = [PurePosixPath(name) for name in walk(path, [])]
        return sum(is_picture(name) and not _is_mask(name) for name in names), True

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        dropped = check_columns(path, SCHEMA.names, asked)
        left_out: list[LeftOut] = []
        rows, objects, seen = MediaRows(path, asked, IMAGE), list[dict[str, Any] | None](), set[str]()

        def batch() -> RawBatch:
            nonlocal first_row
            found = rows.batch({OBJECTS: pa.array(objects, SCHEMA.field(OBJECTS).type)}, is_text=False)
            found = replace(found, first_row=first_row, dropped=dropped, left_out=tuple(left_out))
            first_row += found.rows
            objects.clear()
            left_out.clear()
            return found

        names = list(walk(path, left_out))
        pictures = [name for name in names if is_picture(PurePosixPath(name)) and not _is_mask(PurePosixPath(name))]
        known = set(pictures)
        for name in names:
            if not name.endswith(".xml"):
                if name not in known:
                    left_out.append(LeftOut(name, "a mask" if _is_mask(PurePosixPath(name)) else "not a picture"))
                continue
            found = read_annotation(path / name)
            picture = _picture_of(path, name, found.filename)
            if picture in seen:
                raise InputError(
                    path / name, f"a second file about {picture}", expected="one", fix="take one of them out"
                )
            seen.add(picture)
            if rows.full:
                yield batch()
            rows.add(picture)
            objects.append(found.objects())
        for name in (name for name in pictures if name not in seen):
            if rows.full:
                yield batch()
            rows.add(name)
            objects.append(None)
        if rows.names:
            yield batch()


def _is_mask(name: PurePosixPath) -> bool:
    return any(part in _MASKS for part in name.parts[:-1])


def _picture_of(folder: Path, name: str, filename: str) -> str:
    """Return the picture that the XML file is about, by path within the folder: it may be none that is there."""
    above = PurePosixPath(name).parent
    stem, given = PurePosixPath(name).stem, filename.replace("\\", "/").rpartition("/")[2]
    places = [above, above.parent / "JPEGImages", above.parent / "images", above.parent]
    for wanted in (given, *(stem + suffix for suffix in SUFFIXES)):
        for place in places if wanted else ():
            if file_inside(folder, str(place / wanted)) is not None:
                return os.path.normpath(place / wanted)
    return str(above / (given or stem))


@dataclass
class Annotation:
    """What an XML file says of a picture."""

    filename: str = ""
    size: dict[str, str] = field(default_factory=dict)
    """`width` and `height`, as they stand."""
    found: list[dict[str, str]] = field(default_factory=list)
    """Of each object `name`, `difficult` and the edges, as they stand."""

    def objects(self) -> dict[str, Any]:
        """Return the objects as a row has them."""
        width, height = (_whole(self.size.get(side, "")) for side in ("width", "height"))
        known = width is not None and height is not None and width > 0 and height > 0
        return {
            "box": [_edges(one) for one in self.found],
            "name": [one.get("name") for one in self.found],
            "difficult": [one.get("difficult", "0") == "1" for one in self.found],
            "width": width if known else None,  # some tools write 0 for what they do not know
            "height": height if known else None,
        }


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _edges(found: dict[str, str]) -> list[float] | None:
    """Return the edges around the pixels; NaN for what is no number, None without a box."""
    if not set(_EDGES) <= found.keys():
        return None
    numbers = []
    for edge in _EDGES:
        try:
            numbers.append(float(found[edge]) - (edge in ("xmin", "ymin")))
        except ValueError:
            numbers.append(float("nan"))
    return numbers


def read_annotation(path: Path) -> Annotation:
    """Return what an XML file says. Raises InputError."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise InputError(
            path, f"more than {MOST_BYTES:,} bytes", expected="an XML file of one picture", fix="look at it"
        )
    return parse_annotation(data, path)


def parse_annotation(data: bytes, path: Path) -> Annotation:
    """Return what the content of an XML file says; `path` is its name. Raises InputError."""
    xml, found = SafeXml(path, "an XML file of Pascal VOC"), Annotation()
    open_tags: list[str] = []
    text: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        open_tags.append(name)
        text.clear()
        if open_tags == ["annotation", "object"]:
            found.found.append({})

    def end(name: str) -> None:
        value = "".join(text).strip()
        match open_tags:
            case ["annotation", "filename"]:
                found.filename = value
            case ["annotation", "size", side]:
                found.size[side] = value
            case ["annotation", "object", "name" | "difficult" as what]:
                found.found[-1][what] = value
            case ["annotation", "object", "bndbox", edge]:
                found.found[-1][edge] = value
        open_tags.pop()
        text.clear()

    xml.expat.StartElementHandler, xml.expat.EndElementHandler = start, end
    xml.expat.CharacterDataHandler = text.append
    xml.feed(data, last=True)
    return found
