"""Raw data of the task `voices`: glosses of WordNet 3.0, spoken by voices of the program eSpeak NG.

Nobody spoke: the speech is synthetic. Each of ten voices is a variant of the program's American English with formants
of its own. The pitch and the speed of each clip are drawn, so that they do not tell a voice alone. A gloss is spoken by
several voices; the contract keeps its clips in one split.

espeak-ng is free software (GPL-3.0-or-later); what it speaks is no part of it. https://github.com/espeak-ng/espeak-ng
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from graftline.durable import write_atomic
from graftline.errors import GraftlineError
from graftline.importers.glosses import fetch, synsets
from graftline.importers.packages import encode_table
from graftline.raw.media import ENCODED

VOICES_FILE = "voices.parquet"
VOICES = ("m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "f4")
"""Variants of the program."""
VERSION = "1.51"
"""Of the program that the shipped data is of."""
TEXTS = 500
EACH = 4
"""Voices that speak a text."""
RATE = 8000
"""Samples a second: as a telephone has."""
PITCHES, SPEEDS = (30, 70), (140, 190)
"""The program's pitch, of 0 to 99, and words a minute; each clip's is drawn between these."""
_LENGTHS = (12, 26)
"""Characters of a text."""
_PLAIN = re.compile(r"[a-z][a-z -]+")
_SMALLEST = 1.0
"""libsndfile's compression level: the fewest bits that Vorbis has."""
_PAGE, _SERIAL, _SUM, _SEGMENTS = b"OggS", 14, 22, 26
"""Where an Ogg page has its parts: https://www.rfc-editor.org/rfc/rfc3533#section-6"""
_POLYNOMIAL = 0x04C11DB7


class Spoken(NamedTuple):
    """One clip to be."""

    text: str
    voice: str
    pitch: int
    speed: int


Speak = Callable[[Spoken], bytes]
"""Returns a WAV."""


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/voices.parquet and return its path; equal bytes on every run with one espeak-ng and one soundfile.

    Columns: `audio` (Ogg Vorbis of 8,000 samples a second, with its path), the strings `voice` and `text`, and the
    whole numbers `pitch` and `speed`. `source` is WordNet, as `graftline import glosses` takes it; the program
    espeak-ng must be installed.

    Raises:
        InputError: `source` is missing or does not hold the expected files.
        GraftlineError: WordNet could not be downloaded, or there is no espeak-ng.
    """
    _check_program()
    path = out / VOICES_FILE
    found = planned([synset.gloss for synset in synsets(fetch(source))])
    write_atomic(path, encode_table(as_table(found, speak), ["voice", "text"], group_rows=200))
    return path


def _check_program() -> None:
    """Raise GraftlineError if there is no espeak-ng; say it if it is another one than the shipped data is of."""
    try:
        done = subprocess.run(["espeak-ng", "--version"], capture_output=True, encoding="utf-8", check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise GraftlineError(f"espeak-ng: {error}; install it, such as with `apt-get install espeak-ng`") from None
    if f" {VERSION} " not in done.stdout:
        version = done.stdout.split("Data at")[0].strip()
        print(f"import: {version}; the shipped data is of {VERSION}, which may speak otherwise", file=sys.stderr)


def planned(glosses: list[str]) -> list[Spoken]:
    """Return what is to be spoken, in order: short definitions of plain words, each by some voices."""
    definitions = sorted({gloss.partition(";")[0].strip() for gloss in glosses})
    plain = [text for text in definitions if _PLAIN.fullmatch(text) and _LENGTHS[0] <= len(text) <= _LENGTHS[1]]
    texts = sorted(plain, key=lambda text: _drawn("text", text))[:TEXTS]
    return [
        Spoken(text, voice, _between(PITCHES, "pitch", text, voice), _between(SPEEDS, "speed", text, voice))
        for place, text in enumerate(texts)
        for voice in _voices(place)
    ]


def _voices(place: int) -> Iterator[str]:
    """Yield the voices of a text: all in turn, so that each speaks equally often."""
    for number in range(EACH):
        yield VOICES[(place * EACH + number) % len(VOICES)]


def _between(bounds: tuple[int, int], *what: str) -> int:
    low, high = bounds
    return low + int(_drawn(*what) * (high - low + 1))


def _drawn(*what: str) -> float:
    """Return a number from 0 to 1 that the words decide."""
    return int.from_bytes(sha256("/".join(what).encode()).digest()[:8], "big") / 2.0**64


def speak(one: Spoken) -> bytes:
    """Return the WAV that espeak-ng makes. Raises GraftlineError."""
    how = ["-v", f"en-us+{one.voice}", "-p", str(one.pitch), "-s", str(one.speed)]
    done = subprocess.run(["espeak-ng", *how, "--stdout", one.text], capture_output=True, check=False)
    if done.returncode:
        raise GraftlineError(f"espeak-ng: {done.stderr.decode(errors='replace').strip()[:200]}")
    return done.stdout


def as_table(found: list[Spoken], say: Speak) -> pa.Table:
    """Return one row a clip."""
    clips = [
        {"bytes": small(say(one), place), "path": f"{one.voice}/{place:04}.ogg"} for place, one in enumerate(found)
    ]
    return pa.table(
        {
            "audio": pa.array(clips, ENCODED),
            "voice": pa.array([one.voice for one in found], pa.string()),
            "text": pa.array([one.text for one in found], pa.string()),
            "pitch": pa.array([one.pitch for one in found], pa.int64()),
            "speed": pa.array([one.speed for one in found], pa.int64()),
        }
    )


def small(wav: bytes, number: int) -> bytes:
    """Return a WAV as Ogg Vorbis of 8,000 samples a second, whose stream has this number."""
    import soundfile
    from scipy.signal import resample_poly

    values, rate = soundfile.read(io.BytesIO(wav))
    common = gcd(rate, RATE)
    file = io.BytesIO()
    soundfile.write(
        file, np.clip(resample_poly(values, RATE // common, rate // common), -1, 1), RATE,
        format="OGG", subtype="VORBIS", compression_level=_SMALLEST,
    )  # fmt: skip
    return with_serial(file.getvalue(), number)


def with_serial(ogg: bytes, number: int) -> bytes:
    """Return an Ogg file whose stream has this number: libsndfile draws one, and equal clips would differ."""
    pages = []
    start = 0
    while start < len(ogg):
        count = ogg[start + _SEGMENTS]
        end = start + _SEGMENTS + 1 + count + sum(ogg[start + _SEGMENTS + 1 : start + _SEGMENTS + 1 + count])
        page = bytearray(ogg[start:end])
        assert page.startswith(_PAGE)
        page[_SERIAL : _SERIAL + 4] = number.to_bytes(4, "little")
        page[_SUM : _SUM + 4] = bytes(4)
        page[_SUM : _SUM + 4] = _checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (_POLYNOMIAL if value >> 31 else 0)
            value &= 0xFFFFFFFF
        table.append(value)
    return table


_TABLE = _table()


def _checksum(page: bytes | bytearray) -> int:
    """Return a page's CRC-32, high bits first, from 0 (RFC 3533)."""
    value = 0
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ _TABLE[(value >> 24) ^ byte]
    return value
