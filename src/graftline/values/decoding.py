"""One picture: from the bytes of a JPEG, PNG, WebP, TIFF, BMP or GIF to pixels, by a rule that the contract declares.

What is done to a picture on the way is named (`CHANGES`), and what cannot be a picture is said in a word: nothing is
clipped, cut or guessed without a trace. This module is light: processes that only decode import nothing else.
"""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image as Picture
from PIL import ImageOps, UnidentifiedImageError

from graftline.learning.memory import keep_freed_memory
from graftline.processes import die_with_parent
from graftline.raw.picture_formats import FORMATS, MAX_BYTES, SUFFIXES
from graftline.values.plain_jpeg import PlainJpeg

Mode = Literal["grey", "rgb"]
Resize = Literal["crop", "pad", "stretch", "refuse"]

WORKER_BYTES = 2 << 30
"""How much memory a process that decodes may take: what a damaged file asks for beyond that it does not get."""
MAX_PIXELS = 1 << 26
"""Width times height of the largest picture that is decoded: 67 million, 256 MiB in Pillow's memory.

The header says it: a larger one is never decoded.
"""
CHANGES = {
    "bilevel": "1 bit a pixel became black and white",
    "palette": "colours were looked up in the palette",
    "transparency": "laid over white",
    "sixteen_bits": "of 16 bits a channel the higher 8 were kept",
    "twelve_bits": "of 16 bits a channel the higher 8 were kept, of pixels that use the lower 12 only: nearly black",
    "cmyk": "CMYK became red, green and blue, without a colour profile",
    "ycbcr": "YCbCr became red, green and blue",
    "colour_profile": "the colour profile was not applied",
    "turned": "turned or mirrored as its EXIF orientation says",
    "first_frame": "the first of several frames or pages was taken",
    "to_grey": "colours became grey: 0.299 red + 0.587 green + 0.114 blue",
    "to_colour": "grey became red, green and blue",
    "crop": "scaled until it covers the size, and cut evenly on both sides",
    "pad": "scaled until it fits into the size, and filled with black on both sides",
    "stretch": "scaled to the size, height and width each by itself",
}
"""What may be done to a picture, and what that is, for people."""

_OTHERS = (
    (4, b"ftyp", "HEIC, AVIF or a video"),
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"<svg", "an SVG"),
    (0, b"<?xml", "XML, perhaps an SVG"),
    (0, b"<!DOC", "HTML"),
    (0, b"<html", "HTML"),
    (0, b"version https://git-lfs", "a Git LFS pointer"),
    (0, b"\0\0\0\x0cjP", "JPEG 2000"),
    (0, b"\0\5\26\7", "macOS metadata"),
    (0, b"\0\5\26\0", "macOS metadata"),
    (0, b"PK\3\4", "a ZIP archive"),
)
_HIGH = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}
_PROFILE_OF_WEB = b"sRGB"
_ORIENTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Where Pillow keeps what may hold an orientation."""
_MAY_TURN = re.compile(b"eXIf|exif|XML:com.adobe.xmp")
_MODES = {"grey": "L", "rgb": "RGB"}
_FORMATS = tuple(FORMATS)


@dataclass(frozen=True)
class Rule:
    """What a picture becomes."""

    height: int
    width: int
    mode: Mode = "grey"
    resize: Resize = "refuse"

    @property
    def channels(self) -> int:
        return 3 if self.mode == "rgb" else 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels


class BadPictureError(Exception):
    """There is no picture; the message says in a few words why."""


def decode(data: bytes, path: str | None, rule: Rule) -> tuple[np.ndarray, list[str]]:
    """Return the pixels of a picture, (height, width, channels) uint8, and what was done to it, keys of `CHANGES`.

    Args:
        data: the file's content.
        path: its name, whose ending must be that of what it holds; None where there is no name.
        rule: what it becomes.

    Raises:
        BadPictureError: it is none, is damaged, larger than `MAX_PIXELS`, or of another size that the rule refuses.
    """
    content, changes = _decode(data, path, rule)
    return np.frombuffer(content, np.uint8).reshape(rule.shape), changes


def _decode(data: bytes, path: str | None, rule: Rule) -> tuple[bytes, list[str]]:
    try:
        with _open(data) as picture:
            _check_header(picture, path, rule)
            if _cut_short(data):
                raise BadPictureError("truncated")
            return _by_rule(picture, rule)
    except BadPictureError:
        raise
    except MemoryError:
        raise BadPictureError("needs more memory than a picture may") from None
    # A damaged file can raise anything in Pillow: its readers index, unpack and divide by what the file says.
    except Exception as error:  # noqa: BLE001
        reason = str(error) or type(error).__name__
        if isinstance(error, Picture.DecompressionBombError | Picture.DecompressionBombWarning):
            raise BadPictureError(f"more than {MAX_PIXELS} pixels") from None
        if "truncated" in reason.lower() or _cut_short(data):
            raise BadPictureError("truncated") from None
        raise BadPictureError(f"damaged ({reason.splitlines()[0][:100]})") from None


@dataclass(frozen=True)
class Decoded:
    """Some pictures, decoded."""

    pixels: np.ndarray
    """(n, height, width, channels) uint8; 0 where there is no picture."""
    bad: dict[int, str]
    """Why there is none, by position."""
    changes: dict[str, int]
    """How many pictures each change was made to."""


def decode_all(pictures: Sequence[tuple[bytes | None, str | None]], rule: Rule) -> Decoded:
    """Return pictures, each given by its bytes and its path, if it has one.

    One with neither is missing, which is not bad.
    """
    contents, bad, changes = _decode_all(pictures, rule)
    return Decoded(np.frombuffer(b"".join(contents), np.uint8).reshape(-1, *rule.shape), bad, changes)


def _decode_all(
    pictures: Sequence[tuple[bytes | None, str | None]], rule: Rule
) -> tuple[list[bytes], dict[int, str], dict[str, int]]:
    height, width, channels = rule.shape
    black = bytes(height * width * channels)
    contents = [black] * len(pictures)
    bad: dict[int, str] = {}
    changes: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's about odd files; what matters raises
        for place, (data, path) in enumerate(pictures):
            if data is None and path is None:
                continue
            try:
                if data is None:
                    raise BadPictureError("no such file here")
                contents[place], done = _decode(data, path, rule)
            except BadPictureError as error:
                bad[place] = str(error)
            else:
                for change in done:
                    changes[change] = changes.get(change, 0) + 1
    return contents, bad, changes


def _open(data: bytes) -> Picture.Image:
    """Return the picture, of which only the header was read."""
    if not data:
        raise BadPictureError("empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise BadPictureError(f"more than {MAX_BYTES} bytes")
    with suppress(SyntaxError):
        return PlainJpeg(io.BytesIO(data))
    try:
        return Picture.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        kind = next((name for at, start, name in _OTHERS if data[at:].startswith(start)), None)
        if kind is None and data.startswith((b"\xff\xd8", b"\x89PN", b"GIF", b"RIFF", b"II*", b"MM\0", b"BM")):
            raise BadPictureError("truncated or damaged: its header cannot be read") from None
        raise BadPictureError(f"not a picture: {kind or f'it starts with {data[:8]!r}'}") from None


def _check_header(picture: Picture.Image, path: str | None, rule: Rule) -> None:
    """Refuse what is not to be decoded."""
    _check_pixels(picture)
    width, height = picture.size
    if width < 1 or height < 1:
        raise BadPictureError(f"{width} x {height} pixels")
    found = "JPEG" if picture.format == "MPO" else str(picture.format)  # what telephones write, with a preview inside
    suffix = os.path.splitext(path or "")[1].lower()  # noqa: PTH122  (this is called for each picture)
    if suffix in SUFFIXES and suffix not in FORMATS[found]:
        raise BadPictureError(f"{found} with the ending {suffix}")
    if rule.resize == "refuse" and {width, height} != {rule.width, rule.height}:
        raise _other_size(picture, rule)


def _check_pixels(picture: Picture.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise BadPictureError(f"{width} x {height} pixels, more than {MAX_PIXELS}")


def _other_size(picture: Picture.Image, rule: Rule) -> BadPictureError:
    return BadPictureError(f"{picture.height} x {picture.width} pixels, not {rule.height} x {rule.width}")


def _cut_short(data: bytes) -> bool:
    """Return whether a PNG has no end, or a WebP file is shorter than it says: readers let a few bytes be missing."""
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return data.startswith(b"\x89PNG") and b"IEND\xaeB`\x82" not in data


def _by_rule(picture: Picture.Image, rule: Rule) -> tuple[bytes, list[str]]:
    changes: list[str] = []
    if rule.resize != "refuse" and picture.format in ("JPEG", "MPO"):
        # A JPEG more than twice as large is decoded at a half, a quarter or an eighth of its size: much faster.
        longest = 2 * max(rule.height, rule.width)
        picture.draft(None, (longest, longest))
    deep = False
    if picture.format != "JPEG":  # that has 8 bits a channel and one frame
        tiles = getattr(picture, "tile", ())
        deep = any(";16" in str(tile) for tile in tiles)  # Pillow reads the higher 8 bits of colours
        if getattr(picture, "tag_v2", {}).get(0x0112) in range(2, 9):
            changes.append("turned")  # Pillow turns a TIFF itself
    picture.load()
    turned = _turned(picture, changes)
    if picture.format != "JPEG" and getattr(picture, "is_animated", False):
        changes.append("first_frame")
    if rule.resize == "refuse" and turned.size != (rule.width, rule.height):
        raise _other_size(turned, rule)
    coloured = turned
    if deep or turned.mode != _MODES[rule.mode] or "transparency" in turned.info:
        coloured = _to_mode(turned, rule.mode, deep, changes)
    if turned.info.get("icc_profile") and _PROFILE_OF_WEB not in turned.info["icc_profile"][:4096]:
        changes.append("colour_profile")
    if coloured.size != (rule.width, rule.height):
        changes.append(rule.resize)
    return sized(coloured, rule).tobytes(), changes


def _turned(picture: Picture.Image, changes: list[str]) -> Picture.Image:
    """Return the picture as every viewer shows it."""
    if picture.format == "TIFF" or not _ORIENTED & picture.info.keys():
        return picture
    upright = picture
    with suppress(Exception):  # who cannot read it shows the picture as it lies, as viewers do
        if picture.getexif().get(0x0112, 1) in range(2, 9):
            upright = ImageOps.exif_transpose(picture)
            changes.append("turned")
    return upright


def _to_mode(picture: Picture.Image, mode: Mode, deep: bool, changes: list[str]) -> Picture.Image:
    """Return the picture in mode L or RGB."""
    if picture.mode not in _HIGH:
        changes += ["sixteen_bits"] if deep else []
    else:
        values = np.asarray(picture).astype(np.uint16)
        changes.append("twelve_bits" if 0 < values.max() < 1 << 12 else "sixteen_bits")
        picture = Picture.fromarray((values >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise BadPictureError("32 bits a channel")
    if picture.mode in ("P", "PA"):
        changes.append("palette")
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        changes.append("transparency")
        colours = picture.convert("RGBA")
        picture = Picture.alpha_composite(Picture.new("RGBA", colours.size, "white"), colours).convert(
            "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
        )
    for of, change in (("1", "bilevel"), ("CMYK", "cmyk"), ("YCbCr", "ycbcr")):
        if picture.mode == of:
            changes.append(change)
    if picture.mode in ("1", "L"):
        if mode == "rgb":
            changes.append("to_colour")
    elif picture.mode in ("P", "RGB", "RGBX", "CMYK", "YCbCr"):
        picture = picture.convert("RGB")
        if mode == "grey":
            changes.append("to_grey")
    else:
        raise BadPictureError(f"of colour mode {picture.mode}")
    return picture.convert(_MODES[mode])


def sized(
    picture: Picture.Image, rule: Rule, resampling: Picture.Resampling = Picture.Resampling.BICUBIC
) -> Picture.Image:
    """Return the picture in the rule's size."""
    size = (rule.width, rule.height)
    if picture.size == size:
        return picture
    if rule.resize == "crop":
        return ImageOps.fit(picture, size, resampling)
    if rule.resize == "pad":
        return ImageOps.pad(picture, size, resampling)
    return picture.resize(size, resampling)


def upright(data: bytes) -> tuple[tuple[int, int], int]:
    """Return width and height of a picture as it lies, and EXIF's orientation, 1 for an upright one.

    Raises:
        BadPictureError: it is none.
    """
    with _open(data) as picture:
        if not _ORIENTED & picture.info.keys() and picture.format == "PNG" and _MAY_TURN.search(data):
            _check_pixels(picture)
            picture.load()  # what says it may stand behind the pixels
        if not _ORIENTED & picture.info.keys() and picture.format != "TIFF":
            return picture.size, 1
        found = 1
        with suppress(Exception):  # as `_turned`
            found = int(picture.getexif().get(0x0112, 1))
        found = found if found in range(1, 9) else 1
        # Pillow gives the size of a TIFF as it stands.
        return (picture.size[::-1] if picture.format == "TIFF" and found > 4 else picture.size), found


@dataclass(frozen=True)
class Packed:
    """Pictures on their way to another process: end to end, for one long value travels faster than many."""

    data: bytes
    ends: tuple[int, ...]
    """Where each ends in `data`."""
    paths: tuple[str | None, ...]
    missing: frozenset[int]
    """Those without bytes."""

    def pictures(self) -> list[tuple[bytes | None, str | None]]:
        starts = (0, *self.ends[:-1])
        return [
            (None if place in self.missing else self.data[start:end], path)
            for place, (start, end, path) in enumerate(zip(starts, self.ends, self.paths, strict=True))
        ]


def start_worker() -> None:
    """Prepare a process that only decodes. It stands here for the process imports the module that it stands in."""
    die_with_parent()
    keep_freed_memory()
    resource.setrlimit(resource.RLIMIT_DATA, (WORKER_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def decode_into(file: str, offset: int, packed: Packed, rule: Rule) -> tuple[dict[int, str], dict[str, int]]:
    """Decode pictures and write their pixels into a file, from this byte on; return `bad` and `changes` of them."""
    contents, bad, changes = _decode_all(packed.pictures(), rule)
    descriptor = os.open(file, os.O_WRONLY)
    try:
        written = os.pwritev(descriptor, contents, offset)
    except OSError as error:
        error.filename = file  # the kernel does not name the file when the disk is full
        raise
    finally:
        os.close(descriptor)
    if written != sum(map(len, contents)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)
    return bad, changes
