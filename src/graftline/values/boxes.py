"""Objects in a picture: a box and a class each, any number of them, or none; on request a mask each.

In a dataset a box is (x0, y0, x1, y1) in pixels of the image as it is stored: turned, scaled and cut with the picture
(values/framing.py). x0 and y0 are the left and upper edge, x1 and y1 the right and lower one: a box over all of an
image of 64 x 96 (height x width) is (0, 0, 96, 64). A crowd is a region of many objects, or one that is hard to tell:
neither a hit nor a miss (COCO's `iscrowd`, Pascal VOC's `difficult`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from graftline.raw.batches import RawBatch
from graftline.values import rle
from graftline.values.category import Word
from graftline.values.column import Balance, Column, OfClasses, Role, StoredLabel
from graftline.values.decoding import upright
from graftline.values.encoded import encoded, files_of
from graftline.values.facts import ColumnBatch, of_faults, shorten, wrong_type
from graftline.values.framing import Framing
from graftline.values.histograms import Histograms
from graftline.values.image import Image
from graftline.values.rules import Rule, without
from graftline.values.spelling import word
from graftline.values.strings import lengths_of

BOXES = ("bbox", "bboxes", "boxes", "box")
CLASSES = ("category", "categories", "class", "classes", "label", "labels", "name")
CROWDS = ("iscrowd", "crowd", "difficult")
MASKS = ("segmentation", "mask", "masks")
"""Names that the fields of raw objects may have."""
Form = Literal["xyxy", "xywh", "cxcywh"]
_FAULTS = {
    "form": "each object has a box of four numbers and a class",
    "count": "no more objects than the contract allows",
    "size": "the picture has the size that its objects are said to be of",
    "finite": "no coordinate is NaN or infinite",
    "area": "every box has a width and a height",
    "inside": "every box lies in the picture",
    "class": "every class is one of the contract's",
    "mask": "every object has a mask of the picture's size",
}
"""What is wrong with the objects of a picture, by its rule; a row breaks the first one only."""


def arrow_type(*, masks: bool) -> pa.DataType:
    """Return the Arrow type of stored objects: lists of equal length."""
    fields = [
        ("box", pa.list_(pa.list_(pa.float32()))),
        ("class", pa.list_(pa.string())),
        ("crowd", pa.list_(pa.bool_())),
    ]
    return pa.struct([*fields, *([("mask", pa.list_(pa.string()))] if masks else [])])


def holds_objects(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are raw objects: a struct of lists, or a list of structs."""
    inner = kind.value_type if pa.types.is_list(kind) else kind
    names = {one.name for one in inner} if pa.types.is_struct(inner) else set()
    return bool(names & {*BOXES} and names & {*CLASSES})


def as_lists(value: Any) -> dict[str, Any]:
    """Return the raw objects of a picture as an object of lists; empty for a missing value."""
    if not isinstance(value, list):
        return value or {}
    names = {name for one in value for name in one or ()}
    return {name: [(one or {}).get(name) for one in value] for name in names}


def edges(boxes: np.ndarray, form: Form) -> np.ndarray:
    """Return (n, 4) boxes of a form as (x0, y0, x1, y1)."""
    if form == "xyxy":
        return boxes
    first, size = boxes[:, :2], boxes[:, 2:]
    start = first if form == "xywh" else first - size / 2
    return np.concatenate([start, start + size], axis=1)


class Boxes(OfClasses):
    """The objects in a picture: a box and a class each.

    Raw values are objects of lists, such as `{bbox: [[2, 3, 10, 20]], category: [cat]}`, or lists of objects; beside
    `bbox` (or `boxes`) and `category` (or `label`, `class`) they may hold `iscrowd` (or `difficult`), `segmentation`
    (polygons or run-length encodings, as COCO has them), and `width` and `height` of the picture that they are about.
    An empty list is a picture without objects; a missing value is a picture that nobody looked at.
    """

    type: Literal["boxes"] = "boxes"

    role: Role = "label"
    """Objects are the label."""

    of: str = Field(min_length=1)
    """The column of type image that they are in."""

    classes: tuple[str, ...]
    """The only ones allowed, in the order of class indices."""

    form: Form
    """What the four numbers of a raw box are. xyxy: left, upper, right and lower edge, as Pascal VOC has them. xywh:
    left and upper edge, width, height, as COCO has them. cxcywh: the middle, width, height, as YOLO has them."""

    normalised: bool = False
    """Whether raw boxes are shares of the picture's width and height, from 0 to 1; else they are pixels."""

    masks: bool = False
    """Whether each object has a mask, its `segmentation`; without, they are not read."""

    min_inside: float = Field(default=0.5, gt=0, le=1)
    """Smallest share of a raw box that lies in the picture. What reaches over its border is cut off, and counted."""

    min_area: float = Field(default=1.0, gt=0)
    """Smallest area of a box, in pixels of the image as it is stored; smaller ones are left out, and counted."""

    max_boxes: int = Field(default=1000, ge=1)
    """Most objects of a picture."""

    map: dict[Word, str | None] = Field(default_factory=dict)
    """What raw classes stand for, such as `{0: cat, 1: dog}`; objects of one that is null are left out."""

    balance: Balance = Balance()
    """Of all objects, not of pictures."""

    label_type: ClassVar[str] = "boxes"
    counted: ClassVar[str] = "objects"
    changes: ClassVar[Mapping[str, str]] = {
        "cut": "boxes reached over the picture's border, and were cut there",
        "cropped": "boxes were cut where the picture was",
        "small": "objects were left out: less than min_area of them is in the image",
        "unwanted": "objects were left out: their class is mapped to null",
        "turned": "boxes were turned with their picture",
    }

    def check(self, name: str, contract: Any) -> None:
        if self.role != "label":
            raise ValueError(f"columns.{name}: boxes are the label of a column of type image")
        if list(contract.features) != [self.of] or not isinstance(contract.columns[self.of], Image):
            raise ValueError(f"columns.{name}.of: '{self.of}' is not the one column with the role feature, an image")
        if other := [value for value in self.map.values() if value not in (None, *self.classes)]:
            raise ValueError(f"columns.{name}.map: {other[0]!r} is none of the classes")

    def check_label(self, name: str) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"columns.{name}.classes: at least one class is needed, each once")

    def arrow_type(self) -> pa.DataType:
        return arrow_type(masks=self.masks)

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        raise NotImplementedError("boxes are read beside their image")

    def read_beside(self, batch: RawBatch, name: str, columns: Mapping[str, Column]) -> ColumnBatch:
        """Return the boxes in the image that each picture becomes."""
        image, array = columns[self.of], batch.columns[name]
        assert isinstance(image, Image)
        if not (pa.types.is_null(array.type) or holds_objects(array.type)):
            raise wrong_type(batch, name, array.type, "objects with bbox and category, lists of equal length")
        lying = _lying(batch.columns[self.of], image)
        reader = _Reader(self, image)
        found = [
            _Read() if value is None or size is None else reader.read(value, *size)
            for value, size in zip(array.to_pylist(), lying, strict=True)
        ]
        given = array.is_valid().to_numpy(zero_copy_only=False)
        facts = of_faults([one.fault for one in found], given, _FAULTS)

        def take(mask: np.ndarray) -> pa.Array:
            chosen = [found[place].stored(masks=self.masks) if given[place] else None for place in np.flatnonzero(mask)]
            return pa.array(chosen, self.arrow_type())

        changes: Counter[str] = sum((one.changes for one in found if one.fault is None), Counter[str]())
        return ColumnBatch(facts, lambda place: shorten(str(array[place].as_py())), take, dict(changes))

    def rules(self, name: str) -> list[Rule]:
        return without(name, _FAULTS)

    def cells(self, values: pa.Array) -> list[bytes]:
        """Return 0 for null; else 1 and the objects, in JSON."""
        rows = values.to_pylist()
        return [b"\0" if row is None else b"\1" + json.dumps(row, sort_keys=True).encode() for row in rows]

    def members(self, values: pa.Array, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes = pc.struct_field(values, "class")
        places = pc.index_in(classes.flatten(), pa.array(self.classes, pa.string()))
        return places.to_numpy(zero_copy_only=False), lengths_of(classes)

    def histograms(self, name: str) -> Histograms:
        return BoxHistograms(name, self.classes)


def _lying(pictures: pa.Array, image: Image) -> list[tuple[tuple[int, int], int] | None]:
    """Return width, height and orientation of each picture; None for one that cannot be read, which `image` judges."""
    if not encoded(pictures.type):
        return [((image.shape[1], image.shape[0]), 1)] * len(pictures)
    found: list[tuple[tuple[int, int], int] | None] = []
    for data, _ in files_of(pictures):
        # A damaged file can raise anything in Pillow; decoding says of each what is wrong with it.
        try:
            found.append(None if data is None else upright(data))
        except Exception:  # noqa: BLE001
            found.append(None)
    return found


@dataclass(frozen=True)
class _Read:
    """The objects of a picture, as they were read."""

    boxes: np.ndarray = field(default_factory=lambda: np.empty((0, 4), np.float32))
    classes: Sequence[str] = ()
    crowd: Sequence[bool] = ()
    masks: Sequence[str] = ()
    fault: tuple[str, str] | None = None
    """The rule that they break, and what was found."""
    changes: Counter[str] = field(default_factory=Counter)

    def stored(self, *, masks: bool) -> dict[str, Any]:
        found = {"box": self.boxes.tolist(), "class": list(self.classes), "crowd": list(self.crowd)}
        return found | ({"mask": list(self.masks)} if masks else {})


class _FaultError(Exception):
    """A rule is broken."""

    def __init__(self, rule: str, found: str) -> None:
        super().__init__(found)
        self.rule = rule


class _Reader:
    """Makes objects of raw values."""

    def __init__(self, column: Boxes, image: Image) -> None:
        self._column, self._rule = column, image.rule
        self._map = {word(key): value for key, value in column.map.items()}

    def read(self, value: Any, lying: tuple[int, int], orientation: int) -> _Read:
        """Return the objects of a picture that lies with this width and height."""
        try:
            return self._read(value, lying, orientation)
        except _FaultError as fault:
            return _Read(fault=(fault.rule, str(fault)))

    def _read(self, value: Any, lying: tuple[int, int], orientation: int) -> _Read:
        raw = _Raw.of(value)
        column, changes = self._column, Counter[str]()
        if len(raw.boxes) > column.max_boxes:
            raise _FaultError("count", f"{len(raw.boxes)} objects")
        framing = self._framing(raw, lying, orientation)
        classes = [self._map.get(name, name) for name in raw.classes]
        for place, name in enumerate(classes):
            if name is not None and name not in column.classes:
                raise _FaultError("class", f"object {place}: {shorten(repr(name))}")
        size = np.array(lying if framing.orientation > 1 else (framing.width, framing.height), float)
        whole = self._edges(raw.boxes, size)
        inside = np.clip(whole, 0, np.tile(size, 2))
        self._judge(whole, inside)
        changes["cut"] = int((inside != whole).any(axis=1).sum())
        placed = framing.boxes(inside)
        boxes = np.clip(placed, 0, [self._rule.width, self._rule.height] * 2)
        # Nothing of a hundredth of a pixel or less: it is rounding.
        cropped = (np.abs(boxes - placed) > 0.01).any(axis=1)
        boxes = boxes.astype(np.float32)
        wanted = np.array([name is not None for name in classes], bool)
        large = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) >= column.min_area
        masks = self._masks(raw, framing, size, wanted & large) if column.masks else [""] * len(boxes)
        kept = [place for place in np.flatnonzero(wanted & large).tolist() if masks[place] is not None]
        changes["unwanted"] = int((~wanted).sum())
        changes["small"] = int(wanted.sum()) - len(kept)
        changes["cropped"] = int(cropped[kept].sum())
        changes["turned"] = len(kept) if framing.orientation > 1 else 0
        return _Read(
            boxes[kept],
            [str(classes[place]) for place in kept],
            [raw.crowd[place] for place in kept],
            [masks[place] or "" for place in kept],
            changes=+changes,
        )

    def _framing(self, raw: _Raw, lying: tuple[int, int], orientation: int) -> Framing:
        """Return the way of the points: of the picture as it stands, or as it lies if that is what they are about."""
        framing = Framing.of(lying, orientation, self._rule)
        if raw.size is None or raw.size == (framing.width, framing.height):
            return Framing(framing.width, framing.height, self._rule)
        if raw.size != lying:
            of, found = (" x ".join(map(str, reversed(size))) for size in (raw.size, lying))
            raise _FaultError("size", f"objects of a picture of {of}, and a picture of {found}")
        return framing

    def _edges(self, boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Return raw boxes as (x0, y0, x1, y1) in pixels of the picture."""
        bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
        if len(bad):
            raise _FaultError("finite", f"box {bad[0]}: {_shown(boxes[bad[0]])}")
        if self._column.normalised:
            boxes = boxes * np.tile(size, 2)
        return edges(boxes, self._column.form)

    def _judge(self, whole: np.ndarray, inside: np.ndarray) -> None:
        sides, left = whole[:, 2:] - whole[:, :2], inside[:, 2:] - inside[:, :2]
        for place in np.flatnonzero((sides <= 0).any(axis=1)):
            raise _FaultError("area", f"box {place}: {_shown(sides[place])} pixels wide and high")
        for place in np.flatnonzero(left.prod(axis=1) < self._column.min_inside * sides.prod(axis=1)):
            raise _FaultError("inside", f"box {place}: from {_shown(whole[place, :2])} to {_shown(whole[place, 2:])}")

    def _masks(self, raw: _Raw, framing: Framing, size: np.ndarray, wanted: np.ndarray) -> list[str | None]:
        """Return the mask of each wanted object in the image, None for one of which nothing is left."""
        width, height = map(int, size)
        found: list[str | None] = [None] * len(raw.boxes)
        for place in np.flatnonzero(wanted).tolist():
            try:
                value = raw.masks[place]
                read = rle.read(json.loads(value) if isinstance(value, str) else value, height, width)
                if isinstance(read, list):
                    points = [framing.points(np.clip(one, 0, size)) for one in read]
                    mask = rle.drawn(points, self._rule.height, self._rule.width)
                else:
                    mask = framing.mask(read)
            except (rle.BadMaskError, ValueError, RecursionError) as error:
                raise _FaultError("mask", f"object {place}: {shorten(str(error))}") from None
            if mask.any():
                found[place] = rle.encode(mask)
        return found


def _shown(numbers: np.ndarray) -> str:
    return " ".join(f"{number:g}" for number in numbers.tolist())


@dataclass(frozen=True)
class _Raw:
    """The objects of a picture, as they stand in the raw data."""

    boxes: np.ndarray
    """(k, 4) float64."""
    classes: list[str]
    crowd: list[bool]
    masks: list[Any]
    size: tuple[int, int] | None
    """Width and height of the picture that they are about, if they say it."""

    @classmethod
    def of(cls, value: Any) -> _Raw:
        """Raises _FaultError."""
        lists = as_lists(value)
        boxes, classes, crowd, masks = (_list(lists, names) for names in (BOXES, CLASSES, CROWDS, MASKS))
        crowd = [_crowd(place, one) for place, one in enumerate(crowd)] if crowd else [False] * len(boxes)
        masks = masks or [None] * len(boxes)
        if not len(boxes) == len(classes) == len(crowd) == len(masks):
            raise _FaultError("form", f"{len(boxes)} boxes, {len(classes)} classes")
        for place, (box, name) in enumerate(zip(boxes, classes, strict=True)):
            if not isinstance(box, list) or len(box) != 4 or name is None:
                raise _FaultError("form", f"object {place}: box {shorten(str(box))}, class {shorten(str(name))}")
        try:
            numbers = np.array([[np.nan if x is None else x for x in box] for box in boxes], np.float64)
            numbers = numbers.reshape(len(boxes), 4)
        except (TypeError, ValueError, OverflowError):
            raise _FaultError("form", "boxes that are no numbers") from None
        size = None
        if isinstance(value, dict) and value.get("width") is not None and value.get("height") is not None:
            size = value["width"], value["height"]
        return cls(numbers, [word(name) for name in classes], crowd, masks, size)


def _list(lists: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Return the first field of these names that is there, empty if none is. Raises _FaultError unless it is a list."""
    name = next((name for name in names if lists.get(name) is not None), None)
    if name is None:
        return []
    found = lists[name]
    if not isinstance(found, list):
        raise _FaultError("form", f"{name}: {shorten(str(found))}, no list")
    return found


def _crowd(place: int, value: Any) -> bool:
    """Return whether an object is a crowd: yes or no, 1 or 0, as text too; one of which nothing is said is none."""
    found = {None: False, "0": False, "false": False, "1": True, "true": True}.get(
        None if value is None else word(value).strip().lower()
    )
    if found is None:
        raise _FaultError("form", f"object {place}: {shorten(repr(value))} where 0 or 1 says whether it is a crowd")
    return found


class BoxHistograms(Histograms):
    """How often each class occurs, how many objects a picture has, and the square root of a box's area in pixels."""

    def __init__(self, name: str, classes: tuple[str, ...]) -> None:
        super().__init__()
        self._name = name
        self.each(name, classes)
        self.lengths(f"{name}.objects")
        self.lengths(f"{name}.side")

    def add(self, values: pa.Array) -> None:
        histogram = self.found[self._name]
        label = BoxLabel(self._name, tuple(histogram["bins"]))
        objects = label.values(pa.chunked_array([values.drop_null()], values.type))
        new = np.bincount(objects.classes, minlength=len(label.classes))
        histogram["counts"] = [old + int(more) for old, more in zip(histogram["counts"], new, strict=True)]
        self.count(f"{self._name}.objects", np.diff(objects.offsets))
        self.count(f"{self._name}.side", np.sqrt(objects.areas))


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of n images, end to end."""

    offsets: np.ndarray
    """(n + 1,) int64: those of image i are from offsets[i] to offsets[i + 1]."""
    boxes: np.ndarray
    """(m, 4) float32: x0, y0, x1, y1 in pixels of the image."""
    classes: np.ndarray
    """(m,) int64, indices of the contract's classes."""
    crowd: np.ndarray
    """(m,) bool: neither a hit nor a miss."""
    runs: np.ndarray | None = None
    """(b,) uint8: the masks of all objects, COCO's run-length encodings in ASCII; None without masks."""
    run_offsets: np.ndarray | None = None
    """(m + 1,) int64: those of object j are from run_offsets[j] to run_offsets[j + 1]."""

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Objects:
        """Return the objects of rows as a dataset stores them. Raises KeyError for another class."""
        index = {name: number for number, name in enumerate(classes)}
        boxes = [box for row in rows for box in row["box"]]
        runs = run_offsets = None
        if any("mask" in row for row in rows):
            masks = [mask.encode("ascii") for row in rows for mask in row["mask"]]
            runs = np.frombuffer(b"".join(masks), np.uint8)
            run_offsets = _offsets([len(mask) for mask in masks])
        return cls(
            _offsets([len(row["box"]) for row in rows]),
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array([index[name] for row in rows for name in row["class"]], np.int64),
            np.array([one for row in rows for one in row["crowd"]], bool),
            runs,
            run_offsets,
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.offsets) - 1

    @property
    def areas(self) -> np.ndarray:
        """(m,) float32: of the boxes, in pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        found: np.ndarray = sides[:, 0] * sides[:, 1]
        return found

    def take(self, chosen: Any) -> Objects:
        """Return the objects of the images at these (k,) places, in their order, or in a slice."""
        places = np.arange(len(self))[chosen]
        counts = np.diff(self.offsets)[places]
        ranges = [np.arange(self.offsets[place], self.offsets[place + 1]) for place in places]
        of = np.concatenate([np.empty(0, np.int64), *ranges])
        runs, run_offsets = self.runs, self.run_offsets
        if runs is not None and run_offsets is not None:
            parts = [runs[run_offsets[one] : run_offsets[one + 1]] for one in of]
            runs = np.concatenate(parts) if parts else runs[:0]
            run_offsets = _offsets([len(part) for part in parts])
        return Objects(_offsets(counts), self.boxes[of], self.classes[of], self.crowd[of], runs, run_offsets)

    def masks(self, place: int) -> list[str]:
        """Return the masks of the image at a place, one an object, for `rle.decode`."""
        assert self.runs is not None and self.run_offsets is not None
        first, last = self.offsets[place], self.offsets[place + 1]
        bounds = self.run_offsets[first : last + 1].tolist()
        return [self.runs[start:end].tobytes().decode("ascii") for start, end in pairwise(bounds)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all there is: `Objects.from_arrays(objects.arrays())` is equal to `objects`."""
        found = {name: getattr(self, name) for name in ("offsets", "boxes", "classes", "crowd", "runs", "run_offsets")}
        return {name: array for name, array in found.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Objects:
        return cls(**arrays)


def _offsets(counts: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)


@dataclass(frozen=True)
class BoxLabel(StoredLabel):
    """The objects of a row."""

    type: ClassVar[str] = "boxes"

    def values(self, column: pa.ChunkedArray) -> Objects:
        return Objects.of_rows(column.to_pylist(), self.classes)

    def croissant(self) -> dict[str, Any]:
        return {
            "dataType": "cr:BoundingBox",
            "isArray": True,
            "arrayShape": "-1,4",
            "description": "box: x0, y0, x1, y1 in pixels of the image; class, crowd, and mask where there are masks "
            "(COCO's run-length encoding), a value each.",
        }

    def invented(self, features: pa.Array) -> pa.Array:
        one = {"box": [[0.0, 0.0, 4.0, 4.0]], "class": [self.classes[0]], "crowd": [False]}
        return pa.array([one] * len(features), arrow_type(masks=False))
