"""What a raw column could be in a contract, by a sample of its values: the kinds, from what they look like.

A guess is a column's rules, as a contract says them, and from what each was guessed. `graftline new` writes them down;
nothing is guessed when a run reads the data.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image as Picture

from graftline.raw import sniff
from graftline.raw.picture_formats import FORMATS
from graftline.values.audio import Audio
from graftline.values.boxes import BOXES, CLASSES, MASKS, Form, as_lists, edges, holds_objects
from graftline.values.decoding import upright
from graftline.values.encoded import encoded, files_of
from graftline.values.identity import SPLITS
from graftline.values.image_arrays import is_list
from graftline.values.scalar import is_number, is_string
from graftline.values.span import holds_answers, plain_answers
from graftline.values.spelling import word

MOST_CLASSES = 1000
_NUMBER_CLASSES = 20
"""So many different whole numbers are classes whatever the number of rows; of more, each must be frequent."""
_EACH = 5
"""Rows a class at least, on average, for words to be classes."""
_WHOLE = r"^[+-]?(0|[1-9][0-9]*)(\.0*)?$"
_WORDS_OF_TEXT = 3
_MOST_NUMBERS = 64
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_OPENED = 300
"""Pictures or clips that are opened."""
_SAID_WORDS = 1.5
"""Words of a transcript, at least on average: names of files have one."""
_RATES = (8000, 16_000)
"""Samples a second that clips are given: of telephones, and of most models of speech."""
_LONGEST = 600
"""Seconds of a clip, at most."""
_FRAMES = 50
"""Frames of a clip a second, which are its tokens."""
_LARGEST_KEPT = 96
"""Height or width up to which pictures of one size are taken as they are: larger ones take long to learn from."""
_SIDE = 64
_SQUARE = 1.5
"""Longer side to shorter one up to which pictures are cut square."""
_STAND = 0.9
"""Share of answers that stand in a text, from which on they are taken for answers about it."""
_SHARE = 1.01
"""Largest coordinate of boxes that are shares of their pictures' sizes."""
_OVER = 0.02
"""Share of a picture's size that a box may reach over its border."""
_GREY_ENOUGH = 16
"""Difference of red, green and blue that JPEG makes of grey."""


@dataclass(frozen=True)
class Guess:
    """What a column could be."""

    rules: dict[str, Any]
    """Its type and rules, as in a contract; without a role."""
    why: str
    """From what that was guessed."""


@dataclass(frozen=True)
class Sampled:
    """A raw column in the rows that were looked at."""

    name: str
    values: pa.Array
    """As the reader gave them."""
    is_text: bool
    """Whether they are text still to be parsed."""
    names: tuple[str, ...] = ()
    """What whole numbers from 0 on are called, where the data set says it."""

    @cached_property
    def given(self) -> pa.Array:
        """The values that are not missing."""
        return self.values.drop_null()

    @cached_property
    def missing(self) -> int:
        return len(self.values) - len(self.given)

    @cached_property
    def counts(self) -> dict[Any, int]:
        """How often each value stands, the most frequent first, then in order; empty for nested values."""
        if pa.types.is_nested(self.values.type) or encoded(self.values.type):
            return {}
        found = {entry["values"]: entry["counts"] for entry in pc.value_counts(self.given).to_pylist()}
        return dict(sorted(found.items(), key=lambda item: (-item[1], str(item[0]))))

    @cached_property
    def distinct(self) -> bool:
        """Whether no value stands twice."""
        return len(self.counts) == len(self.given) > 0

    @cached_property
    def words(self) -> float:
        """Words of a value, on average; 0 of what is no text."""
        if not is_string(self.values.type) or not len(self.given):
            return 0.0
        spaces = pc.count_substring_regex(pc.utf8_trim_whitespace(self.given), r"\s+")
        return 1 + float(pc.mean(spaces).as_py() or 0)

    @cached_property
    def heard(self) -> list[tuple[int, float]]:
        """Samples a second and seconds of some of the values that are clips, as their headers say."""
        if not encoded(self.values.type):
            return []
        import soundfile

        found = []
        for data, _ in files_of(_spread(self.given)):
            with suppress(soundfile.LibsndfileError), soundfile.SoundFile(io.BytesIO(data or b"")) as clip:
                found.append((clip.samplerate, clip.frames / clip.samplerate))
        return found

    @cached_property
    def whole(self) -> bool:
        """Whether the values are whole numbers, or text that spells them in the usual way: not 007."""
        kind = self.values.type
        if pa.types.is_integer(kind):
            return True
        if pa.types.is_floating(kind):
            return bool(len(self.given)) and all(v.is_integer() for v in self.counts if math.isfinite(v))
        return self._spells(_WHOLE)

    @cached_property
    def number(self) -> bool:
        """Whether the values are numbers, or text that spells them."""
        return is_number(self.values.type) or (self.is_text and is_number(sniff.guess_type(self.values)))

    def _spells(self, pattern: str) -> bool:
        if not self.is_text or not is_string(self.values.type) or not len(self.given):
            return False
        return bool(pc.all(pc.match_substring_regex(self.given, pattern)).as_py())

    @cached_property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number."""
        numbers = [value for value in map(float, self.counts) if math.isfinite(value)]
        return min(numbers, default=0.0), max(numbers, default=0.0)


def _spread(values: pa.Array) -> pa.Array:
    """Return some values, evenly spaced."""
    return values.take(np.unique(np.linspace(0, len(values) - 1, min(len(values), _OPENED)).astype(np.int64)))


def names(schema: pa.Schema) -> Iterator[str]:
    """Yield the names of raw columns; of a struct that is no picture, no answer and no objects those of its fields."""
    for column in schema:
        if pa.types.is_struct(column.type) and not encoded(column.type) and not _as_a_whole(column.type):
            yield from (f"{column.name}.{inner.name}" for inner in column.type)
        else:
            yield column.name


def _as_a_whole(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are read as a whole, and not field by field."""
    return holds_answers(kind) or holds_objects(kind)


# What a model sees


ALONE = ("image", "audio")
"""Kinds of columns that a model sees with no other one beside."""


def feature(column: Sampled) -> Guess | None:
    """Return what the column is if a model can see it."""
    return _image(column) or _audio(column) or _text(column) or _sentence(column)


def reads_like_text(column: Sampled) -> bool:
    """Return whether the values are mostly different, and mostly of some words."""
    return column.words >= _WORDS_OF_TEXT and len(column.counts) > len(column.given) / 2


def _image(column: Sampled) -> Guess | None:
    return _pictures(column) if encoded(column.values.type) else _pixels(column)


def _pictures(column: Sampled) -> Guess | None:
    """Return what pictures are to become: their own size if all have one and it is small, else a square or so."""
    sizes, formats, coloured = [], Counter[str](), False
    for data, _ in files_of(_spread(column.given)):
        # A damaged file can raise anything in Pillow; validate says of each what is wrong with it.
        with suppress(Exception), Picture.open(io.BytesIO(data or b""), formats=tuple(FORMATS)) as picture:
            formats[str(picture.format)] += 1
            sizes.append((picture.height, picture.width))
            coloured = coloured or _is_coloured(picture)
    if not sizes:
        return None
    common, count = Counter(sizes).most_common(1)[0]
    mode: dict[str, Any] = {"mode": "rgb"} if coloured else {}
    kind = f"{', '.join(formats)}, {'in colour' if coloured else 'grey'}"
    if count == len(sizes) and max(common) <= _LARGEST_KEPT:
        how = {"shape": list(common), **mode}
        return Guess({"type": "image", **how}, f"pictures ({kind}), all {common[0]} x {common[1]}")
    low, high = (f"{height} x {width}" for height, width in (min(sizes), max(sizes)))
    ratio = float(np.median([height / width for height, width in sizes]))
    square = 1 / _SQUARE <= ratio <= _SQUARE
    side = int(min(_SIDE, max(16, np.median([min(size) for size in sizes]))))
    shape = [side, side] if square else [_scaled(side, ratio), _scaled(side, 1 / ratio)]
    how = {"shape": shape, **mode, "resize": "crop" if square else "pad"}
    return Guess({"type": "image", **how}, f"pictures ({kind}) from {low} to {high}, made {shape[0]} x {shape[1]}")


def _audio(column: Sampled) -> Guess | None:
    """Return what clips are to become: of 8,000 samples a second where most have fewer than 16,000, else of 16,000."""
    if not column.heard:
        return None
    rates = Counter(rate for rate, _ in column.heard)
    longest = max(seconds for _, seconds in column.heard)
    rules: dict[str, Any] = {
        "type": "audio",
        "rate": _RATES[0] if rates.most_common(1)[0][0] < _RATES[1] else _RATES[1],
    }
    if longest > Audio().max_seconds:
        rules["max_seconds"] = min(_LONGEST, math.ceil(longest))
    named = ", ".join(f"{rate:,}" for rate in sorted(rates))
    return Guess(rules, f"clips of up to {longest:.1f} seconds, at {named} samples a second")


def _scaled(side: int, ratio: float) -> int:
    """Return a side of a picture of so many times the height or width of the other, of which the longer is `side`."""
    return max(16, round(side * min(1.0, ratio)))


def _is_coloured(picture: Picture.Image) -> bool:
    if picture.mode in ("1", "L", "LA", "I", "F") or picture.mode.startswith("I;"):
        return False
    small = np.asarray(picture.convert("RGB").resize((16, 16)), np.int16)
    return bool((np.ptp(small, axis=2) > _GREY_ENOUGH).any())


def _pixels(column: Sampled) -> Guess | None:
    """Return what lists of numbers are if each is a square of pixels, or rows of them, in grey or in colour."""
    shape, flat = _lists(column)
    if len(shape) == 1:
        numbers = shape[0]
        side, channels = math.isqrt(numbers), 1
        if side * side != numbers:
            side, channels = math.isqrt(numbers // 3), 3
        shape = [side, side, channels]
    if len(shape) not in (2, 3) or math.prod(shape) != len(flat) / max(1, len(column.given)) or min(shape[:2]) < 4:
        return None
    if len(shape) == 3 and shape[2] not in (1, 3):
        return None
    bounds = pc.min_max(flat).as_py()
    low, high = bounds["min"], bounds["max"]
    if low is None or low < 0:
        return None
    colour = {"mode": "rgb"} if len(shape) == 3 and shape[2] == 3 else {}
    whole = pc.all(pc.equal(pc.floor(flat), flat)).as_py()
    kind = {} if whole and 1 < high <= 255 else {"max": 1 if high <= 1 else high, "dtype": "float32"}
    size = " x ".join(map(str, shape if colour else shape[:2]))
    why = f"each value is a list of {math.prod(shape)} = {size} numbers from {low:g} to {high:g}"
    return Guess({"type": "image", "shape": shape[:2], **colour, **kind}, why)


def _lists(column: Sampled) -> tuple[list[int], pa.Array]:
    """Return the lengths of lists and of lists in them, and all numbers in them as float64; ([], []) unless each value
    has the same lengths."""
    array, shape = column.given, list[int]()
    if column.is_text:
        if not column._spells(r"^[0-9.eE+ -]+$"):
            return [], pa.array([], pa.float64())
        array = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(array))
    while is_list(array.type):
        lengths = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            return [], pa.array([], pa.float64())
        shape.append(lengths[0])
        array = array.flatten()
    try:
        return (shape, array.cast(pa.float64())) if shape else ([], pa.array([], pa.float64()))
    except pa.ArrowException:
        return [], pa.array([], pa.float64())


def _text(column: Sampled) -> Guess | None:
    if not is_string(column.values.type) or not len(column.given):
        return None
    longest = pc.max(pc.utf8_length(column.given)).as_py()
    why = f"{len(column.counts):,} different texts of {column.words:.0f} words on average"
    return Guess({"type": "text"}, f"{why}, {longest:,} characters at most")


def history(column: Sampled, time: str | None) -> Guess | None:
    """Return what the column is if it has the items of a user, gathered and put in order by a column of times."""
    if not is_list(column.values.type):
        return None
    items, lengths = pc.unique(column.given.flatten()), pc.list_value_length(column.given)
    why = f"{len(items):,} items of {len(column.given):,} users, {pc.max(lengths).as_py():,} of one at most"
    order = {"ordered": True} if time is not None else {}
    return Guess({"type": "items", **order}, why + (f", in the order of '{time}'" if time is not None else ""))


def _sentence(column: Sampled) -> Guess | None:
    if not _is_words(column.values.type):
        return None
    longest = pc.max(pc.list_value_length(column.given)).as_py() or 0
    return Guess({"type": "tokens"}, f"lists of words, {longest} at most")


# What a model may learn to tell


def label(column: Sampled, *, asked: bool = False) -> Guess | None:
    """Return what the column is if a model can learn to tell it; `asked` if somebody says that it can."""
    if not len(column.given):
        return None
    if _is_words(column.values.type):
        return _set(column)
    if pa.types.is_nested(column.values.type) or encoded(column.values.type):
        return _numbers(column)
    count, rows = len(column.counts), len(column.given)
    if column.number:
        few = count <= _NUMBER_CLASSES or count <= min(MOST_CLASSES, rows / 50)
        if column.whole and few and count > 1:
            classes = sorted(int(float(value)) for value in column.counts)
            if column.names and classes[0] >= 0 and classes[-1] < len(column.names):
                names = {number: column.names[number] for number in classes}
                why = f"whole numbers, {count} different ones, whose names the data set holds"
                return Guess({"type": "string", "classes": list(names.values()), "map": names}, why)
            return Guess({"type": "integer", "classes": classes}, f"whole numbers, {count} different ones")
        low, high = column.range
        return Guess({"type": "float"}, f"{count:,} different numbers from {low:g} to {high:g}") if low < high else None
    most = max(2, min(MOST_CLASSES, rows / (2 if asked else _EACH)))
    if pa.types.is_boolean(column.values.type) and count > 1:
        return Guess({"type": "string", "classes": ["false", "true"]}, "true or false")
    return _words(column) if is_string(column.values.type) and 1 < count <= most else None


def _words(column: Sampled) -> Guess | None:
    """Return the classes that words are: white space around them counts for nothing, nor do capitals if the same word
    is written in several ways."""
    plain, ways = Counter[str](), dict[str, list[str]]()
    for name, count in column.counts.items():
        plain[name.strip()] += count
    for name, _ in plain.most_common():
        ways.setdefault(name.casefold(), []).append(name)
    if len(ways) < 2 or (column.is_text and "" in plain):
        return None
    other = {name: first for first, *others in ways.values() for name in others}
    rules: dict[str, Any] = {"type": "string", "classes": sorted(first for first, *_ in ways.values())}
    why = f"words, {len(ways)} different ones"
    if plain.keys() != column.counts.keys():
        rules["trim"] = True
        why += ", some with white space around them"
    if other:
        rules["map"] = other
        why += f"; other capitals are taken for the same word: {', '.join(other)}"
    return Guess(rules, why)


def own_split(column: Sampled) -> Guess | None:
    """Return what the column is if its values are the names of train, test and perhaps val."""
    if not is_string(column.values.type) or column.missing:
        return None
    names = {name: _SPLIT_WORDS.get(name.strip().lower(), "") for name in column.counts}
    found = set(names.values())
    if not {"train", "test"} <= found <= set(SPLITS):
        return None
    rules: dict[str, Any] = {"type": "string"}
    if "val" not in found:
        rules["classes"] = ["train", "test"]
    if other := {name: split for name, split in names.items() if name != split}:
        rules["map"] = other
    return Guess(
        rules, f"its values are {', '.join(names)}" + ("; val is drawn from train" if "val" not in found else "")
    )


def beside(seen: Sequence[Sampled], column: Sampled) -> Guess | None:
    """Return what the column is if it says what is where in what a model sees, such as a tag a word."""
    if len(seen) == 1:
        return tags_of(seen[0], column) or boxes_in(seen[0], column) or transcript_of(seen[0], column)
    return span_of(seen[-1], column)


def boxes_in(pictures: Sampled, column: Sampled) -> Guess | None:
    """Return what the column is if its values are objects in pictures: their form is the one that fits into these."""
    if not (holds_objects(column.values.type) and encoded(pictures.values.type) and len(column.given)):
        return None
    boxes, sizes, classes, masks, objects = list[list[float]](), list[tuple[int, int]](), set[str](), 0, 0
    rows = zip(files_of(pictures.values), column.values.to_pylist(), strict=True)
    for (data, _), value in rows:
        lists = as_lists(value)
        found, named, drawn = (_first(lists, names) for names in (BOXES, CLASSES, MASKS))
        classes |= {word(name) for name in named if name is not None}
        objects += len(found)
        masks += sum(one is not None for one in drawn)
        # A damaged file can raise anything in Pillow; validate says of each what is wrong with it.
        with suppress(Exception):
            pixels, _ = upright(data or b"")
            given = [box for box in found if _is_box(box)][:_OPENED]
            boxes += given
            sizes += [pixels] * len(given)
    if not boxes or not 0 < len(classes) <= MOST_CLASSES:
        return None
    numbers, edge = np.array(boxes), np.tile(np.array(sizes, float), 2)
    normalised = bool((numbers <= _SHARE).all())
    # Where several fit, the one that the column is called by.
    usual: Form = "xywh" if "bbox" in as_lists(column.given[0].as_py()) else "xyxy"
    form, fits = _form(numbers, np.ones_like(edge) if normalised else edge, usual)
    rules: dict[str, Any] = {"type": "boxes", "of": pictures.name, "classes": sorted(classes), "form": form}
    rules |= {"normalised": True} if normalised else {}
    rules |= {"masks": True} if masks == objects else {}
    return Guess(
        rules, f"{objects:,} objects of {len(classes)} classes; as {form} {fits:.0%} of the boxes lie in their pictures"
    )


def _first(lists: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """Return the first of some lists that holds something."""
    return next((lists[name] for name in names if lists.get(name) and isinstance(lists[name], list)), [])


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(number, int | float) for number in value)


def _form(boxes: np.ndarray, size: np.ndarray, usual: Form) -> tuple[Form, float]:
    """Return the form by which most boxes lie in their pictures, and the share that do; of equal ones the usual one.

    `boxes` are four numbers each, `size` is width, height, width, height of the picture of each.
    """
    share: dict[Form, float] = {}
    for form in get_args(Form):
        found = edges(boxes, form)
        inside = (found >= -_OVER * size) & (found <= (1 + _OVER) * size)
        share[form] = float((inside.all(axis=1) & (found[:, 2:] > found[:, :2]).all(axis=1)).mean())
    best = max(share, key=lambda form: (share[form], form == usual))
    return best, share[best]


def tags_of(words: Sampled, column: Sampled) -> Guess | None:
    """Return what the column is if it has a tag for each word of `words`."""
    if words.name == column.name or not (_is_words(column.values.type) and _is_words(words.values.type)):
        return None
    same = pc.all(pc.equal(pc.list_value_length(words.values), pc.list_value_length(column.values))).as_py()
    classes = pc.unique(column.given.flatten()).drop_null().to_pylist()
    if not same or not 1 < len(classes) <= MOST_CLASSES:
        return None
    return Guess({"type": "tags", "classes": sorted(classes)}, f"as many tags as '{words.name}' has words in each row")


def span_of(text: Sampled, column: Sampled) -> Guess | None:
    """Return what the column is if its values are answers that stand in `text`, nearly all of them."""
    if column.name == text.name or not (is_string(text.values.type) and len(column.given)):
        return None
    pairs = [
        (answer, whole)
        for answers, whole in zip(plain_answers(column.values), text.values.to_pylist(), strict=True)
        for answer in answers
        if whole
    ]
    stand = sum(answer in whole for answer, whole in pairs)
    if not pairs or stand < _STAND * len(pairs):
        return None
    rules: dict[str, Any] = {"type": "span", "of": text.name}
    why = f"{stand:,} of {len(pairs):,} answers stand in '{text.name}'"
    if not holds_answers(column.values.type):
        several = sum(whole.count(answer) > 1 for answer, whole in pairs)
        if several:
            rules["locate"] = "first"
            why += f"; {several:,} several times, and the first place is taken"
    return Guess(rules, why)


def transcript_of(clips: Sampled, column: Sampled) -> Guess | None:
    """Return what the column is if it may be what is said in `clips`: texts of several words, mostly different."""
    if not is_string(column.values.type) or _audio(clips) is None or column.words < _SAID_WORDS:
        return None
    if len(column.counts) < len(column.given) / 2:
        return None
    why = f"{len(column.counts):,} different texts of {column.words:.1f} words on average beside clips"
    return Guess({"type": "transcript"}, why)


def _set(column: Sampled) -> Guess | None:
    classes = pc.unique(column.given.flatten()).drop_null().to_pylist()
    if not 1 < len(classes) <= max(2, min(MOST_CLASSES, len(column.given) / _EACH)):
        return None
    return Guess({"type": "labels", "classes": sorted(classes)}, f"lists of {len(classes)} different words")


def _numbers(column: Sampled) -> Guess | None:
    shape, _ = _lists(column)
    if len(shape) != 1 or shape[0] > _MOST_NUMBERS:
        return None
    names = [f"{column.name}_{number}" for number in range(1, shape[0] + 1)]
    return Guess({"type": "numbers", "names": names}, f"lists of {shape[0]} numbers")


# What is only kept


def metadata(column: Sampled) -> Guess | None:
    """Return what the column is if it is only to be kept; None if a contract has no kind for it."""
    kind = column.values.type
    if column.whole:
        return Guess({"type": "integer"}, "whole numbers")
    if column.number and all(map(math.isfinite, map(float, column.counts))):
        return Guess({"type": "float"}, "numbers")
    if is_string(kind) or pa.types.is_boolean(kind):
        return Guess({"type": "string"}, "words" if is_string(kind) else "true or false")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Guess({"type": "timestamp"}, "times")
    return None


def identifies(column: Sampled) -> bool:
    """Return whether the values may be ids: words or whole numbers."""
    return column.whole or (is_string(column.values.type) and not column.number)


def _is_words(kind: pa.DataType) -> bool:
    return is_list(kind) and is_string(kind.value_type)


def spelling(text: str) -> str:
    """Return a name in lower case with `_` between its words: patientID and Patient Id are patient_id."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


def tokens(column: Sampled) -> tuple[float, float]:
    """Return how many tokens a text has, about, or frames a clip: on average, and what 95 of 100 do not exceed.

    (0, 0) of anything else.
    """
    if _is_words(column.values.type):
        lengths = 1.4 * pc.list_value_length(column.given).to_numpy(zero_copy_only=False)
    elif is_string(column.values.type):
        spaces = pc.count_substring_regex(column.given, r"\s+").to_numpy(zero_copy_only=False)
        characters = pc.utf8_length(column.given).to_numpy(zero_copy_only=False)
        lengths = np.maximum(1.4 * (spaces + 1), characters / 4)  # not every script has spaces between words
    elif column.heard:
        lengths = _FRAMES * np.array([seconds for _, seconds in column.heard])
    else:
        return 0.0, 0.0
    return (float(lengths.mean()), float(np.quantile(lengths, 0.95))) if len(lengths) else (0.0, 0.0)
