"""Picture files made by Pillow and by hand: whole ones, and ones that are broken in one way each."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, PngImagePlugin

SHAPE = (24, 32)
"""Height and width of all whole pictures."""
SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif"}


def noise(number: int, channels: int = 3) -> Image.Image:
    """Return a picture of soft blobs: no two numbers give the same."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    array = coarse if channels > 1 else coarse[:, :, 0]
    return Image.fromarray(array).resize((SHAPE[1], SHAPE[0]), Image.Resampling.BICUBIC)


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return the file's bytes."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(picture: Image.Image, kind: str) -> bytes:
    """Return the picture lying on its side, with an EXIF orientation that says how to view it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture.transpose(Image.Transpose.ROTATE_90), kind, exif=exif)


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG whose header says what it likes."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(data))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def broken() -> dict[str, tuple[bytes, str]]:
    """Return files that are no pictures, by name, each with a word of why."""
    whole = {kind: encode(noise(1), kind) for kind in SUFFIX}
    found: dict[str, tuple[bytes, str]] = {}
    for kind, suffix in SUFFIX.items():
        data, name = whole[kind], suffix[1:]
        found[f"{name}-empty{suffix}"] = b"", "empty (0 bytes)"
        found[f"{name}-head{suffix}"] = data[:6], "truncated"
        found[f"{name}-half{suffix}"] = data[: len(data) // 2], "truncated"
        found[f"{name}-tail{suffix}"] = data[:-3], "truncated"
        other = next(kind for kind in SUFFIX if suffix != SUFFIX[kind])
        found[f"{name}-other{suffix}"] = whole[other], f"{other} with the ending {suffix}"
    found["bmp-head.bmp"] = whole["BMP"][:20], "truncated"
    found["tif-head.tif"] = whole["TIFF"][:12], "damaged"
    large, bombs = 1 << 16, "more than 67108864"
    found["bomb.png"] = png(large, large, bytes(1000)), "more than 67108864"
    found["bomb.bmp"] = whole["BMP"][:18] + struct.pack("<ii", 9000, 9000) + whole["BMP"][26:], bombs
    found["bomb.gif"] = whole["GIF"][:6] + struct.pack("<HH", 40000, 40000) + whole["GIF"][10:], bombs
    sizes = whole["JPEG"].index(b"\xff\xc0") + 5
    found["bomb.jpg"] = whole["JPEG"][:sizes] + struct.pack(">HH", 9000, 9000) + whole["JPEG"][sizes + 4 :], bombs
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * (20 << 20), zip=True)
    found["text-bomb.png"] = encode(noise(1), "PNG", pnginfo=text), "damaged"
    found["no-rows.png"] = png(32, 0, b""), "header cannot be read"
    found["few-rows.png"] = png(32, 24, bytes(100)), "truncated"
    found["zeros.png"] = whole["PNG"][:60] + bytes(200) + whole["PNG"][260:], "damaged"
    found["text.jpg"] = b"not a picture at all", "not a picture"
    found["page.png"] = b"<!DOCTYPE html><p>404", "not a picture: HTML"
    found["pointer.png"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"
    found["document.jpg"] = b"%PDF-1.7\n", "a PDF"
    found["photo.heic"] = b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"
    found["vector.svg"] = b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"
    found["archive.png"] = b"PK\3\4" + bytes(50), "a ZIP archive"
    found["nothing.tif"] = bytes(500), "not a picture"
    found["floats.tif"] = encode(Image.new("F", (32, 24)), "TIFF"), "32 bits a channel"
    found["lab.tif"] = encode(Image.new("LAB", (32, 24)), "TIFF"), "colour mode LAB"
    found["larger.png"] = encode(noise(2).resize((33, 24)), "PNG"), "24 x 33 pixels, not 24 x 32"
    found["on-its-side.png"] = encode(noise(2).transpose(Image.Transpose.ROTATE_90), "PNG"), "32 x 24 pixels"
    return found
