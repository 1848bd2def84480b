"""The importer of Asterisk's prompts on small packages of the real ones' form, and on the shipped data.

The download is not tested, nor that Debian's files have the expected digests: the command checks that.
"""

from __future__ import annotations

import gzip
import io
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from debs import deb

from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import prompts

RAW = ROOT / "data" / "prompts" / "raw" / "prompts.parquet"
LIST = """; Core Asterisk Sounds in English

beep: [this is a simple beep tone]
digits/1: one
letters/at: at [@]
long: What is longer than half a minute is left out.
vm-press: Press 1, or #.
web: Visit www.asterisk.org.
"""


def wav(seconds: float, pitch: float = 440.0) -> bytes:
    file = io.BytesIO()
    samples = 8000 * np.sin(np.arange(int(8000 * seconds)) * pitch / 8000 * 2 * np.pi)
    soundfile.write(file, samples.astype(np.int16), 8000, format="WAV")
    return file.getvalue()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small packages in all languages."""
    digests = {prompts.LIST: sha256_bytes(LIST.encode())}
    for number, (language, voice) in enumerate(prompts.VOICES.items()):
        names = {"beep": 0.3, "digits/1": 0.4, "letters/at": 0.3, "long": 31, "vm-press": 1.0, "web": 1.2}
        files = {
            f"{prompts.SOUNDS}/{voice}/{name}.wav": wav(seconds, 300 + 40 * number) for name, seconds in names.items()
        }
        digests[language] = sha256_bytes(canonical_json({path: sha256_bytes(data) for path, data in files.items()}))
        (tmp_path / f"{prompts.PACKAGE.format(language)}_1.6.1_all.deb").write_bytes(deb(files))
    (tmp_path / f"{prompts.LIST}_1.6.1_all.deb").write_bytes(deb({prompts.TEXTS: gzip.compress(LIST.encode())}))
    monkeypatch.setattr(prompts, "DIGESTS", digests)
    return tmp_path


def test_equal_packages_give_equal_bytes_and_only_speech_is_kept(packages: Path) -> None:
    path = prompts.write(packages / "one", packages)
    assert path.read_bytes() == prompts.write(packages / "two", packages).read_bytes()
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    english = {row["prompt"]: row["transcript"] for row in rows if row["language"] == "en"}
    assert english == {
        "digits/1": "one", "letters/at": "at", "vm-press": "Press one , or pound .",
        "web": "Visit www dot asterisk dot org.",
    }  # fmt: skip
    assert Counter(row["language"] for row in rows) == dict.fromkeys(prompts.VOICES, 4)
    assert all(row["transcript"] is None for row in rows if row["language"] != "en")
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        seconds = {"digits/1": 0.4, "letters/at": 0.3, "vm-press": 1.0, "web": 1.2}[row["prompt"]]
        assert rate == 8000 and len(samples) == int(8000 * seconds)


def test_texts_that_say_nearly_the_same_are_named_by_the_first() -> None:
    said = {
        "a": "Please enter your password followed by the pound key.",
        "b": "Please enter your new password followed by the pound key.",
        "c": "Thank you.",
        "d": "thank you",
        "e": "Thank you for calling us.",
        "f": "Please hold.",
    }
    assert prompts.texts(said) == {"a": "a", "b": "a", "c": "c", "d": "c", "e": "e", "f": "f"}


def test_the_shipped_rows_are_those_that_the_datasheet_counts() -> None:
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    rows = pq.read_table(RAW, columns=["transcript", "language", "prompt", "text"]).to_pylist()
    counts = Counter(row["language"] for row in rows)
    assert counts == {"en": 548, "fr": 543, "es": 505, "it": 580, "ru": 556}
    english = [row for row in rows if row["language"] == "en"]
    assert len({row["text"] for row in english}) == 482
    assert all((row["transcript"] is None) == (row["language"] != "en") for row in rows)
    said = defaultdict(set)
    for row in english:
        said[" ".join(row["transcript"].lower().replace(".", " ").split())].add(row["text"])
    assert all(len(texts) == 1 for texts in said.values())
    assert "Allison Smith" in (RAW.parents[1] / "LICENSE").read_text()


def test_what_are_not_the_expected_packages_is_refused(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 files asterisk-core-sounds-en_\*\.deb; expected a folder with the \.deb"):
        prompts.write(tmp_path / "out", tmp_path / "nothing")
    (packages / f"{prompts.PACKAGE.format('it')}_1.6.1_all.deb").write_bytes(deb({"a.wav": b"x"}))
    with pytest.raises(InputError, match=r"asterisk-core-sounds-it-wav: 0 files of sha256"):
        prompts.write(tmp_path / "out", packages)
    (packages / f"{prompts.LIST}_1.6.1_all.deb").write_bytes(deb({prompts.TEXTS: b"no gzip"}))
    with pytest.raises(InputError, match=r"core-sounds-en\.txt\.gz: .*; expected a \.gz file"):
        prompts.write(tmp_path / "out", packages)
    assert not (tmp_path / "out").exists()
