"""Raw data of the task `prompts`: the voice prompts of Asterisk, a telephone exchange, in five languages.

Debian's packages of them hold a WAV file a prompt (8 kHz, one channel, 16 bits) and a list of what is said:
`vm-goodbye: Goodbye!`. The list of the English ones is complete; those of the other languages are not taken.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import soundfile

from graftline.digests import sha256_bytes
from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.importers.packages import check_all, deb_folder, deb_of, encode_table
from graftline.importers.voices import with_serial
from graftline.raw.media import ENCODED

SOUNDS, TEXTS = "usr/share/asterisk/sounds", "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
PACKAGE = "asterisk-core-sounds-{}-wav"
LIST = "asterisk-core-sounds-en"
VOICES = {
    "en": "en_US_f_Allison", "fr": "fr_CA_f_June", "es": "es_MX_f_Allison", "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}  # fmt: skip
"""Each language's folder, the labelled one first."""
DIGESTS = {
    "en": "7d0861308a1cf4d4cf24ec5276f3f3be9a1b73f51749abd1bd0ec2ff351a0c43",
    "fr": "bfc92ee8d9012552e2e6b9d1e0b42fa2d66021698c68a6efab961b45e545af83",
    "es": "451443a5d1f7070cb1523be88ae6acfcee28d962c532d669bd56db8e0d979efd",
    "it": "2e9a3fc539f9f8c1a502132146b3da64363a1490f596bda6f55957719ff09ef8",
    "ru": "185762b664b5faa35ca54fa54c011131b552ed3cee8043a6b5490687f492442e",
    LIST: "4a5c1fea255e06020acd67efe37d162d0f0458f685efe578d224449f8e7f0bb4",
}
"""sha256 of the canonical JSON of all WAV files' sha256 by path, and of the list: version 1.6.1."""
PROMPTS = "prompts.parquet"
RATE = 8000
MOST_SECONDS = 30
QUALITY = 1.0
"""Of libsndfile's scale for Vorbis, on which 1 is the smallest file."""

_REMARK = re.compile(r"\s*[\[(<][^\])>]*[\])>]")
_SIGNS = {
    "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven", "8": "eight",
    "9": "nine", "#": "pound", "*": "star",
}  # fmt: skip
"""What is said of a sign."""
_DOT = re.compile(r"(?<=[a-z])\.(?=[a-z])")
_LIKE = 0.5
"""Share of their runs of three words that both of two texts have, from which on they are said to be near-identical."""


class Prompt(NamedTuple):
    """A recording."""

    audio: bytes
    """Ogg Vorbis, 8 kHz, one channel."""
    language: str
    name: str
    """`vm-goodbye`, `digits/1`; the same in every language."""
    transcript: str | None
    """None of languages without."""
    text: str
    """What names all recordings of one text, or nearly so: the first one's."""


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/prompts.parquet and return its path; equal bytes on every run with one pyarrow and one libsndfile.

    Columns: `audio` (struct of `bytes` and `path`), and the strings `transcript`, `language`, `prompt`, `text`.
    `source` is a folder with the .deb files; without it the packages are downloaded.

    Raises:
        InputError: `source` is missing or does not hold the expected files.
        GraftlineError: a package could not be downloaded.
    """
    path = out / PROMPTS
    write_atomic(path, encode_table(as_table(list(prompts(source))), ["language", "text"], group_rows=200))
    return path


def prompts(source: Path | None) -> Iterator[Prompt]:
    """Yield all recordings of speech, by language and name. Raises as `write` does."""
    said = transcripts(fetch_list(source))
    first = texts({name: text for name, text in said.items() if text})
    for language, voice in VOICES.items():
        start, files = f"{SOUNDS}/{voice}/", fetch_sounds(language, source)
        for path in sorted(files):
            name = path.removeprefix(start).removesuffix(".wav")
            samples, _ = soundfile.read(io.BytesIO(files[path]), dtype="int16")
            if said.get(name) == "" or len(samples) > MOST_SECONDS * RATE:
                continue
            labelled = language == next(iter(VOICES))
            text = first[name] if labelled else name
            yield Prompt(ogg(samples), language, name, said[name] if labelled else None, f"{language}/{text}")


def fetch_sounds(language: str, source: Path | None) -> dict[str, bytes]:
    """Return the WAV files of a language by path. Raises as `write` does."""
    package, folder = PACKAGE.format(language), f"{SOUNDS}/{VOICES[language]}"
    files = deb_folder(_deb(package, source), package, folder, ".wav")
    check_all(package, files, DIGESTS[language], what="files", fix="take version 1.6.1")
    return files


def fetch_list(source: Path | None) -> str:
    """Return the list of what the English prompts say. Raises as `write` does."""
    folder, _, name = TEXTS.rpartition("/")
    packed = deb_folder(_deb(LIST, source), LIST, folder, name).get(TEXTS, b"")
    try:
        listed = gzip.decompress(packed)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(LIST, f"{TEXTS}: {error}", expected="a .gz file", fix="take version 1.6.1") from None
    if (found := sha256_bytes(listed)) != DIGESTS[LIST]:
        raise InputError(f"{LIST}: {TEXTS}", f"sha256 {found}", expected=DIGESTS[LIST], fix="take version 1.6.1")
    return listed.decode()


def _deb(package: str, source: Path | None) -> bytes:
    names = [LIST, *(PACKAGE.format(language) for language in VOICES)]
    return deb_of(package, source, f"a folder with the .deb files of {', '.join(names)}")


def transcripts(listed: str) -> dict[str, str]:
    """Return what is said, by prompt; nothing where it is no speech: `beep: [this is a simple beep tone]`.

    Remarks in brackets are taken out; digits, `#` and `*` are written as the words that are said.
    """
    lines = (line.partition(":") for line in listed.splitlines() if line.strip() and not line.startswith(";"))
    return {name.strip(): _spoken(text) for name, _, text in lines}


def _spoken(text: str) -> str:
    plain = _DOT.sub(" dot ", _REMARK.sub("", text))
    return " ".join("".join(f" {_SIGNS[letter]} " if letter in _SIGNS else letter for letter in plain).split())


def texts(said: Mapping[str, str]) -> dict[str, str]:
    """Return for each prompt the first one of those that say the same, or nearly so.

    Two do that have the same words, or half of their runs of three words in common; and what is near one of them, too.
    """
    first: dict[str, str] = {}
    seen: list[tuple[str, frozenset[tuple[str, ...]]]] = []
    for name in sorted(said):
        words = re.findall(r"[a-z']+", said[name].lower())
        runs = frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])
        near = sorted({first[other] for other, of in seen if len(runs & of) >= _LIKE * len(runs | of)})
        first[name] = near[0] if near else name
        first |= {other: near[0] for other, of in first.items() if of in near}
        seen.append((name, runs))
    return first


def ogg(samples: np.ndarray) -> bytes:
    """Return (n,) int16 samples as Ogg Vorbis, equal bytes for equal samples."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="OGG", subtype="VORBIS", compression_level=QUALITY)
    return with_serial(file.getvalue(), 0)


def as_table(found: list[Prompt]) -> pa.Table:
    """Return one row a recording."""
    audio = [{"bytes": one.audio, "path": f"{one.language}/{one.name}.ogg"} for one in found]
    return pa.table(
        {
            "audio": pa.array(audio, ENCODED),
            "transcript": pa.array([one.transcript for one in found], pa.string()),
            "language": pa.array([one.language for one in found], pa.string()),
            "prompt": pa.array([one.name for one in found], pa.string()),
            "text": pa.array([one.text for one in found], pa.string()),
        }
    )
