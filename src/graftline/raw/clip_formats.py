"""Which files are clips of sound, by their names."""

from __future__ import annotations

from pathlib import PurePath

FORMATS = {"WAV": (".wav", ".wave"), "FLAC": (".flac",), "OGG": (".ogg", ".oga", ".opus")}
"""Each format that is read, and the endings of its files."""
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
OTHERS = (".mp3", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".amr", ".au", ".snd", ".weba", ".caf")
"""Endings of clips that are not read: they are rows, which go to the quarantine, and not passed over."""


def is_clip(path: PurePath) -> bool:
    """Return whether a file is a clip by its ending."""
    return path.suffix.lower() in (*SUFFIXES, *OTHERS)
