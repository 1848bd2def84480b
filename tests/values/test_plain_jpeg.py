"""A plain JPEG's header is read without Pillow's walk, and nothing else changes: the same pixels, the same refusals."""

from __future__ import annotations

import io
import random
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftline.values import decoding
from graftline.values.decoding import BadPictureError, Rule, decode
from graftline.values.plain_jpeg import PlainJpeg, header

RULE = Rule(16, 16, "rgb", "crop")
TRIALS = 150
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "colour": ("RGB", {}),
    "grey": ("L", {}),
    "progressive": ("RGB", {"progressive": True}),
    "without subsampling": ("RGB", {"subsampling": 0, "quality": 95}),
    "with a comment": ("RGB", {"comment": "hi", "optimize": True}),
    "with restarts": ("RGB", {"restart_marker_rows": 1}),
    "CMYK": ("CMYK", {}),
    "with EXIF": ("RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}),
    "with a profile": ("RGB", {"icc_profile": b"a profile"}),
}


def encoded(way: str) -> bytes:
    mode, options = WAYS[way]
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file := io.BytesIO(), "JPEG", **options)
    return file.getvalue()


def outcome(data: bytes) -> tuple[Any, ...]:
    try:
        pixels, changes = decode(data, None, RULE)
    except BadPictureError:
        return ("bad",)
    return pixels.tobytes(), changes


def none(file: io.BytesIO) -> PlainJpeg:
    raise SyntaxError


@pytest.mark.parametrize("way", WAYS)
def test_whole_and_damaged_headers_come_to_what_pillow_makes_of_them(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, drawn = encoded(way), random.Random(way)
    plain = header(whole)
    known = None if way in ("CMYK", "with EXIF", "with a profile") else (52, 40, "L" if way == "grey" else "RGB")
    assert plain == known
    some = [whole]
    for _ in range(TRIALS):
        damaged = bytearray(whole)
        place = drawn.randrange(whole.index(b"\xff\xda") + 14)
        damaged[place] = drawn.randrange(256)
        del damaged[place + 1 : place + 1 + drawn.choice([0, 0, 0, 1, 2])]
        some.append(bytes(damaged))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = [outcome(data) for data in some]
        monkeypatch.setattr(decoding, "PlainJpeg", none)
        assert ours == [outcome(data) for data in some]
    assert ours[0] != ("bad",) and ("bad",) in ours


def test_most_pictures_of_small_files_take_the_short_way() -> None:
    assert type(decoding._open(encoded("colour"))) is PlainJpeg
    assert type(decoding._open(encoded("with EXIF"))) is not PlainJpeg
