"""COCO's JSON: a folder of pictures, with a file that lists the pictures, the categories, and the objects in them.

T.-Y. Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; https://cocodataset.org/#format-data. A row is
a picture: its objects are those whose `image_id` is its `id`; a picture without any has an empty list. Where the file
has no list of annotations at all, nobody looked at the pictures.

    annotations.json  1.jpg  2.jpg                                 the file beside the pictures, or above their folder
    annotations/instances_val2017.json  val2017/000000000139.jpg   as COCO has it

Of several such files `manifest` says which. Key points and captions are passed over.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa

from graftline.errors import InputError
from graftline.raw.batches import LeftOut, RawBatch
from graftline.raw.faults import amiss, half_a_pair, load_whole
from graftline.raw.lines import read_head
from graftline.raw.media import ENCODED, IMAGE, PATH, MediaRows, file_inside
from graftline.raw.picture_formats import is_picture
from graftline.raw.reader import Asked, Source, check_columns
from graftline.raw.walk import walk

ID, OBJECTS = "id", "objects"
SCHEMA = pa.schema([
    (IMAGE, ENCODED), (PATH, pa.string()), (ID, pa.string()),
    (OBJECTS, pa.struct([
        ("bbox", pa.list_(pa.list_(pa.float64()))), ("category", pa.list_(pa.string())),
        ("iscrowd", pa.list_(pa.bool_())), ("segmentation", pa.list_(pa.string())),
        ("width", pa.int64()), ("height", pa.int64()),
    ])),
])  # fmt: skip
"""`segmentation` is JSON: polygons, or a run-length encoding."""
MOST_BYTES = 512 << 20
"""Largest file: it is in memory whole, some five times its size. COCO's largest has 448 MB."""
_FORM = "COCO's JSON"
_LOOKED_AT = 10_000
_LOOKED_UP = 1000
"""Listed pictures that are looked for in each folder,"""
_LOOK_UPS = 100_000
"""and how often in all, where there are very many folders."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_KEYS = (b'"images"', b'"annotations"', b'"categories"')


class Coco:
    """A `Reader` of a whole folder."""

    format: ClassVar[str] = "coco"
    suffixes: ClassVar[tuple[str, ...]] = ()

    def takes(self, path: Path) -> bool:
        if not path.is_dir() or not _files(path):
            return False
        return any(is_picture(PurePosixPath(name)) for name in islice(walk(path, []), _LOOKED_AT))

    def guess(self, path: Path) -> Source:
        return Source(format=self.format, manifest=_file(path, Source()).relative_to(path).as_posix())

    def schema(self, path: Path, source: Source) -> pa.Schema:
        return SCHEMA

    def rows(self, path: Path, source: Source) -> tuple[int, bool]:
        return len(_load(_file(path, source)).images), True

    def batches(self, path: Path, asked: Asked, first_row: int) -> Iterator[RawBatch]:
        file = _file(path, asked.source)
        dropped = check_columns(file, SCHEMA.names, asked)
        listed = _load(file)
        inside = _folder_of(path, file, listed)
        rows, ids, objects = MediaRows(path, asked, IMAGE), list[str](), list[dict[str, Any] | None]()
        left_out = [LeftOut(f"annotation {name}", "of a picture that is not listed") for name in listed.strangers]
        seen: set[str] = set()
        for image in listed.images:
            name = os.path.normpath(f"{inside}{image.file_name}")
            rows.add(name)
            seen.add(name)
            ids.append(image.id)
            objects.append(None if listed.objects is None else _row(image, listed.objects[image.id]))
            if rows.full or image is listed.images[-1]:
                if image is listed.images[-1]:
                    every = (name for name in walk(path, left_out) if name not in seen and path / name != file)
                    left_out += [LeftOut(name, f"not in {file.name}") for name in every]
                columns = {ID: pa.array(ids, pa.string()), OBJECTS: pa.array(objects, SCHEMA.field(OBJECTS).type)}
                found = replace(rows.batch(columns, is_text=False), first_row=first_row, dropped=dropped)
                yield replace(found, left_out=tuple(left_out))
                first_row += found.rows
                ids, objects, left_out = [], [], []


def _files(folder: Path) -> list[Path]:
    """Return the files of COCO's JSON in a folder, and in its folder `annotations`."""
    found = sorted(folder.glob("*.json")) + sorted(folder.glob("annotations/*.json"))
    return [path for path in found if path.is_file() and sum(key in read_head(path)[0] for key in _KEYS)]


def _file(folder: Path, source: Source) -> Path:
    if source.manifest is not None:
        path = file_inside(folder, source.manifest)
        if path is None:
            raise InputError(folder / source.manifest, "no such file", fix="correct source.manifest in the contract")
        return folder / source.manifest
    found = _files(folder)
    if len(found) != 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found[:5]) or "none"
        raise InputError(
            folder, f"files of COCO's JSON beside the pictures: {names}", expected="one that lists the pictures",
            fix="name it in the contract: `source: {format: coco, manifest: NAME}`",
        )  # fmt: skip
    return found[0]


@dataclass(frozen=True)
class _Image:
    id: str
    file_name: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class _Listed:
    """What a file says."""

    images: list[_Image]
    objects: dict[str, list[dict[str, Any]]] | None
    """Of each picture, by its id: what `_object` returns; None where the file has no annotations."""
    strangers: list[str]
    """Ids of annotations whose picture is not listed."""


def _load(file: Path) -> _Listed:
    """Raises InputError."""
    content, text = load_whole(file, _FORM, MOST_BYTES, "pictures")
    try:
        if _HALF.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise half_a_pair(file) from None
    if not isinstance(content, dict):
        raise amiss(str(file), content, "an object", _FORM)
    names = _categories(content, file)
    images: dict[str, _Image] = {}
    for place, one in enumerate(_list(content, "images", file)):
        image = _image(one, f"{file}: images[{place}]")
        if image.id in images:
            raise InputError(f"{file}: images[{place}].id", f"{image.id} a second time", expected="ids that differ")
        images[image.id] = image
    if not images:
        raise amiss(f"{file}: images", [], "at least one picture", _FORM)
    if "annotations" not in content:
        return _Listed(list(images.values()), None, [])
    objects: dict[str, list[dict[str, Any]]] = defaultdict(list)
    strangers = []
    for place, one in enumerate(_list(content, "annotations", file)):
        if not isinstance(one, dict) or not isinstance(one.get("image_id"), int | str):
            raise amiss(f"{file}: annotations[{place}].image_id", one, "the id of a picture", _FORM)
        of = str(one["image_id"])
        if of in images:
            objects[of].append(_object(one, names, f"{file}: annotations[{place}]"))
        else:
            strangers.append(str(one.get("id", place)))
    return _Listed(list(images.values()), objects, strangers)


def _categories(content: dict[str, Any], file: Path) -> dict[str, str]:
    """Return the name of each category by its id."""
    names: dict[str, str] = {}
    for place, one in enumerate(_list(content, "categories", file) if "annotations" in content else []):
        where = f"{file}: categories[{place}]"
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or "id" not in one:
            raise amiss(where, one, "an object with id and name", _FORM)
        if str(one["id"]) in names:
            raise InputError(f"{where}.id", f"{one['id']} a second time", expected="ids that differ")
        names[str(one["id"])] = one["name"]
    return names


def _image(one: Any, where: str) -> _Image:
    if (
        not isinstance(one, dict)
        or not isinstance(one.get("file_name"), str)
        or not isinstance(one.get("id"), int | str)
    ):
        raise amiss(where, one, "an object with id and file_name", _FORM)
    sides = [
        side if type(side := one.get(name)) is int and 0 < side < 1 << 31 else None for name in ("width", "height")
    ]
    return _Image(str(one["id"]), one["file_name"].replace("\\", "/"), *sides)


def _object(one: dict[str, Any], names: dict[str, str], where: str) -> dict[str, Any]:
    """Return an annotation as a row has it; what is wrong with it is the contract's to judge."""
    crowd = one.get("iscrowd")
    if crowd not in (None, 0, 1, "0", "1"):
        raise amiss(f"{where}.iscrowd", crowd, "0 or 1", _FORM)
    box, of = one.get("bbox"), one.get("category_id")
    numbers = isinstance(box, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in box)
    return {
        "bbox": [_number(n) for n in box] if numbers and box is not None else None,
        "category": None if of is None else names.get(str(of), f"category_id {of}"),
        "iscrowd": crowd in (1, "1"),
        "segmentation": json.dumps(one["segmentation"]) if one.get("segmentation") is not None else None,
    }


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf if value > 0 else -math.inf


def _row(image: _Image, found: list[dict[str, Any]]) -> dict[str, Any]:
    lists = {name: [one[name] for one in found] for name in ("bbox", "category", "iscrowd", "segmentation")}
    return {**lists, "width": image.width, "height": image.height}


def _folder_of(folder: Path, file: Path, listed: _Listed) -> str:
    """Return the folder that the pictures' names begin in, by path within the folder, with a `/` behind or empty.

    It is the one that has most of them. Where splits use the same names, several do: then it is the one that the file
    is called by, else the whole folder, else the file's own. Raises InputError where none of these tells.
    """
    beside = file.parent.relative_to(folder).as_posix()
    inner = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    own = "" if beside == "." else f"{beside}/"
    places = list(dict.fromkeys(["", own, *(f"{name}/" for name in inner)]))
    most = max(1, min(_LOOKED_UP, _LOOK_UPS // len(places)))
    some = listed.images[:: -(-len(listed.images) // most)]
    held = {place: sum(file_inside(folder, place + one.file_name) is not None for one in some) for place in places}
    best = [place for place in places if held[place] == max(held.values())]
    if len(best) == 1 or not held[best[0]]:
        return best[0]
    called = {place: len(_words(place)) for place in best if place and _is_part(_words(place), _words(file.stem))}
    longest = [place for place, words in called.items() if words == max(called.values())]
    if len(longest) == 1:
        return longest[0]
    for place in ("", own):
        if place in best and not longest:
            return place
    raise InputError(
        file, f"pictures that are in several folders: {', '.join(best[:5])}", expected="one that has most of them",
        fix="write the folder before each file_name, or call the file by it, such as val.json",
    )  # fmt: skip


def _words(name: str) -> list[str]:
    """Return the words and numbers in a name: `instances_val2017` has instances, val and 2017."""
    return re.findall(r"[^\W\d_]+|\d+", name.lower())


def _is_part(some: list[str], words: list[str]) -> bool:
    return bool(some) and any(words[at : at + len(some)] == some for at in range(len(words)))


def _list(content: dict[str, Any], key: str, file: Path) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise amiss(f"{file}: {key}", value, "a list", _FORM)
    return value
