"""Which files are pictures, by their names. This module is light: processes that only decode import it."""

from __future__ import annotations

from pathlib import PurePath

MAX_BYTES = 64 << 20
"""Length of the longest file that is read."""
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
}
"""Pillow's name of each format that is read, and the endings of its files."""
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
OTHERS = (".heic", ".heif", ".avif", ".svg", ".jp2", ".psd", ".ico", ".tga", ".ppm", ".pgm")
"""Endings of pictures that are not read: they are rows, which go to the quarantine, and not passed over."""


def is_picture(path: PurePath) -> bool:
    """Return whether a file is a picture by its ending."""
    return path.suffix.lower() in (*SUFFIXES, *OTHERS)


def is_hidden(path: PurePath) -> bool:
    """Return whether a file or one of its folders is of the system's making: macOS, Windows and editors leave such."""
    return any(part.startswith(".") or part in ("Thumbs.db", "desktop.ini", "__MACOSX") for part in path.parts)
