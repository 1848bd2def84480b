"""One clip: from the bytes of a WAV, FLAC or Ogg file to samples of one channel, by a rule that the contract declares.

What is done to a clip on the way is named (`CHANGES`), and what cannot be a clip is said in a word. A file's header is
looked at before anything is decoded: a clip that is too long for the contract takes no memory.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import gcd
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

import numpy as np

from graftline.raw.clip_formats import FORMATS, SUFFIXES
from graftline.raw.picture_formats import MAX_BYTES

if TYPE_CHECKING:
    from soundfile import SoundFile

Channels = Literal["mean", "first", "refuse"]
Resample = Literal["polyphase", "refuse"]

FULL = 1 << 15
"""The sample of full scale; samples are 16 bits, as in WAV."""
MAX_VALUES = 1 << 27
"""Samples of all channels of the largest clip that is decoded: 1 GiB in memory. The header says it."""
_FASTEST = 768_000
"""Samples a second, at most: the filter to another rate grows with it."""
CHANGES = {
    "resampled": "resampled to the contract's rate, by a polyphase filter",
    "mixed": "of several channels the mean was taken",
    "first_channel": "of several channels the first was taken",
    "clipped": "what is louder than full scale was cut off there",
}
"""What may be done to a clip, and what that is, for people."""

_NAMES = {"WAV": "WAV", "WAVEX": "WAV", "FLAC": "FLAC", "OGG": "OGG"}
"""libsndfile's names of the formats that are read."""
_OTHERS = (
    (0, b"ID3", "MP3"),
    (0, b"\xff\xfb", "MP3"),
    (4, b"ftyp", "MPEG-4 audio, or a video"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "Core Audio"),
    (0, b"RF64", "a WAV of more than 4 GiB"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (0, b"version https://git-lfs", "a Git LFS pointer"),
    (0, b"<html", "HTML"),
    (0, b"<!DOC", "HTML"),
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8", "a picture"),
    (0, b"PK\3\4", "a ZIP archive"),
)
_NO_SIZE = 0x7FFF0000
"""From here on, what a WAV says of its size was not known by the program that wrote it into a pipe; so is 0."""


@dataclass(frozen=True)
class Rule:
    """What a clip becomes."""

    rate: int
    """Samples a second."""
    channels: Channels
    resample: Resample
    max_seconds: float


class BadClipError(Exception):
    """There is no clip; the message says in a few words why."""


@dataclass(frozen=True)
class Clip:
    """One clip."""

    samples: np.ndarray
    """(n,) int16; empty of one that is longer than the rule's `max_seconds`, which is not decoded."""
    seconds: float
    changes: tuple[str, ...] = ()
    """What was done to it, keys of `CHANGES`."""


def decode(data: bytes, path: str | None, rule: Rule) -> Clip:
    """Return a clip.

    Args:
        data: the file's content.
        path: its name, whose ending must be that of what it holds; None where there is no name.
        rule: what it becomes.

    Raises:
        BadClipError: it is none, is damaged or truncated, or of a rate or with channels that the rule refuses.
    """
    import soundfile

    if not data:
        raise BadClipError("empty (0 bytes)")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file, path, rule)
            seconds = file.frames / file.samplerate
            if seconds > rule.max_seconds:
                return Clip(np.empty(0, np.int16), seconds)
            if len(data) > MAX_BYTES:
                raise BadClipError(f"more than {MAX_BYTES} bytes")
            if _cut_short(data):
                raise BadClipError("truncated")
            if data.startswith(b"OggS"):
                _check_pages(data, file)
            return _by_rule(file, rule)
    except soundfile.LibsndfileError as error:
        raise BadClipError(_reason(data, error.error_string)) from None


def _reason(data: bytes, found: str) -> str:
    if len(data) > MAX_BYTES:
        return f"more than {MAX_BYTES} bytes"
    kind = next((name for at, start, name in _OTHERS if data[at:].startswith(start)), None)
    if kind is not None:
        return f"not a clip: {kind}"
    if data.startswith((b"RIFF", b"RIFX", b"fLaC", b"OggS")):
        return f"truncated or damaged ({found.rstrip('.')})"
    return f"not a clip: it starts with {data[:8]!r}"


def _check_header(file: SoundFile, path: str | None, rule: Rule) -> None:
    """Refuse what is not to be decoded."""
    found = _NAMES.get(file.format)
    if found is None:
        raise BadClipError(f"{file.format}, which is not read")
    suffix = PurePath(path or "").suffix.lower()
    if suffix in SUFFIXES and suffix not in FORMATS[found]:
        raise BadClipError(f"{found} with the ending {suffix}")
    if file.samplerate > _FASTEST:
        raise BadClipError(f"{file.samplerate} samples a second, more than {_FASTEST}")
    if file.samplerate != rule.rate and rule.resample == "refuse":
        raise BadClipError(f"{file.samplerate} samples a second, not {rule.rate}")
    if file.channels > 1 and rule.channels == "refuse":
        raise BadClipError(f"{file.channels} channels, not 1")
    if file.frames >= 1 << 62:  # libsndfile's word for it
        raise BadClipError("its header does not say how long it is")
    if file.frames <= rule.max_seconds * file.samplerate and file.frames * file.channels > MAX_VALUES:
        raise BadClipError(f"{file.frames} samples of {file.channels} channels, more than {MAX_VALUES}")


def _cut_short(data: bytes) -> bool:
    """Return whether a WAV is shorter than it says, or an Ogg's last page is not marked as the last.

    libsndfile takes what there is of both. (https://www.rfc-editor.org/rfc/rfc3533: byte 5 of a page, 4 for the last.)
    """
    if data.startswith((b"RIFF", b"RIFX")):
        size = int.from_bytes(data[4:8], "little" if data.startswith(b"RIFF") else "big")
        return 0 < size < _NO_SIZE and size + 7 > len(data)  # the last byte may be padding that is not there
    if data.startswith(b"OggS"):
        page = data.rfind(b"OggS")
        segments = data[page + 27 : page + 27 + data[page + 26]] if page + 26 < len(data) else b""
        return len(data) < page + 27 + len(segments) + sum(segments) or not data[page + 5] & 4
    return False


def _check_pages(data: bytes, file: SoundFile) -> None:
    """Refuse an Ogg of several streams, and one with pages that libsndfile passes over: it would be heard shorter.

    (https://www.rfc-editor.org/rfc/rfc3533: byte 5 of a page, 2 for the first of a stream; 6 to 13, how many samples
    end there.)
    """
    page, streams, last = 0, 0, 0
    while (page := data.find(b"OggS", page)) >= 0 and page + 27 <= len(data):
        streams += data[page + 5] >> 1 & 1
        last = int.from_bytes(data[page + 6 : page + 14], "little", signed=True)
        segments = data[page + 27 : page + 27 + data[page + 26]]
        page += 27 + len(segments) + sum(segments)
    if streams > 1:
        raise BadClipError(f"{streams} streams in one file")
    if file.subtype == "VORBIS" and last != file.frames:  # Opus counts at 48,000 a second, with samples to skip
        raise BadClipError(f"damaged: {file.frames} of {last} samples can be read")


def _by_rule(file: SoundFile, rule: Rule) -> Clip:
    values = file.read(dtype="float64", always_2d=True)  # (frames, channels) from -1 to 1: of 16 bits exact
    if len(values) < file.frames:
        raise BadClipError("truncated")
    if not np.isfinite(values).all():
        raise BadClipError("a sample is NaN or infinite")
    changes = []
    if file.channels > 1:
        changes.append("mixed" if rule.channels == "mean" else "first_channel")
    mono = values[:, 0] if file.channels == 1 or rule.channels == "first" else values.mean(axis=1)
    if file.samplerate != rule.rate and len(mono):
        changes.append("resampled")
        mono = _resampled(mono, file.samplerate, rule.rate)
    whole = np.rint(mono * FULL)
    if len(whole) and (whole.max() > FULL - 1 or whole.min() < -FULL):
        changes.append("clipped")
    samples = whole.clip(-FULL, FULL - 1).astype(np.int16)
    return Clip(samples, len(samples) / rule.rate, tuple(changes))


def _resampled(values: np.ndarray, found: int, wanted: int) -> np.ndarray:
    from scipy.signal import resample_poly

    common = gcd(found, wanted)
    resampled: np.ndarray = resample_poly(values, wanted // common, found // common)
    return resampled
