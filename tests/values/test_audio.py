"""Clips as a kind of column: what a file becomes, what is bad and why, what is near, what is shown and asked."""

from __future__ import annotations

import io
import re
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small_clips

from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.raw.picture_formats import MAX_BYTES
from graftline.values import audio, clip_decoding, spectrum
from graftline.values.audio import Audio, AudioColumn, AudioMeasure
from graftline.values.clip_decoding import FULL, BadClipError, Rule, decode
from graftline.values.clips import Clips
from graftline.values.contract import Contract
from graftline.values.spectrum import fingerprint, level

RATE = 8000
RULE = Rule(RATE, "mean", "polyphase", 5.0)
WHOLE = np.arange(-4000, 4000, 3, dtype=np.int16)
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def encoded(values: np.ndarray, form: str = "WAV", rate: int = RATE, **more: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, rate, format=form, **more)
    return file.getvalue()


def batch(values: list[Any], kind: pa.DataType | None = None) -> RawBatch:
    array = pa.array(values, kind)
    return RawBatch(Path("x"), 0, {"audio": array}, False, np.full(len(array), 1, np.int64))


# From bytes to samples


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "FLAC"])
def test_samples_of_16_bits_are_taken_as_they_are(form: str) -> None:
    samples = np.random.default_rng(0).integers(-FULL, FULL, 3000).astype(np.int16)
    found = decode(encoded(samples, form, subtype="PCM_16"), None, RULE)
    assert (found.samples == samples).all() and found.changes == () and found.seconds == 3000 / RATE


def test_a_clip_of_another_rate_is_resampled_and_that_is_said() -> None:
    wide = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    found = decode(encoded(wide, rate=44_100), None, RULE)
    assert found.changes == ("resampled",) and len(found.samples) == RATE
    inside = slice(200, -200)  # the filter knows nothing beyond the ends
    assert np.abs(found.samples[inside] / FULL - TONE[inside]).max() < 1e-3
    with pytest.raises(BadClipError, match="44100 samples a second, not 8000"):
        decode(encoded(wide, rate=44_100), None, Rule(RATE, "mean", "refuse", 5.0))


def test_channels_become_one_by_the_rule() -> None:
    both = encoded(np.stack([TONE, np.zeros(RATE)], axis=1))
    mean, first = (decode(both, None, Rule(RATE, how, "polyphase", 5.0)) for how in ("mean", "first"))
    assert mean.changes == ("mixed",) and first.changes == ("first_channel",)
    assert level(first.samples) - level(mean.samples) == pytest.approx(6.02, abs=0.01)
    with pytest.raises(BadClipError, match="2 channels, not 1"):
        decode(both, None, Rule(RATE, "refuse", "polyphase", 5.0))


def test_what_is_too_loud_is_cut_off_and_that_is_said() -> None:
    found = decode(encoded(3 * TONE, subtype="FLOAT"), None, RULE)
    assert found.changes == ("clipped",) and found.samples.max() == FULL - 1


def test_a_wav_out_of_a_pipe_does_not_know_its_size() -> None:
    whole = encoded(TONE)
    for size in (0, 0x7FFFF024, 0xFFFFFFFF):
        piped = whole[:4] + size.to_bytes(4, "little") + whole[8:]
        assert len(decode(piped, None, RULE).samples) == RATE


WAV, OGG, FLAC = encoded(TONE), encoded(TONE, "OGG"), encoded(TONE, "FLAC")
SPOKEN = np.random.default_rng(0).normal(0, 0.1, 4 * RATE) * np.repeat(np.tile([0.2, 1.0], 8), 2000)
"""Four seconds that fill several pages of an Ogg."""
LONG = encoded(SPOKEN, "OGG")
BAD: dict[str, tuple[bytes, str | None, str]] = {
    "empty": (b"", None, r"empty \(0 bytes\)"),
    "a WAV cut short": (WAV[:-400], None, "truncated"),
    "an Ogg cut at a page": (OGG[: OGG.rfind(b"OggS")], None, "truncated"),
    "an Ogg cut in a page": (OGG[:-9], None, "truncated"),
    "a FLAC cut short": (FLAC[: len(FLAC) // 2], None, "truncated or damaged"),
    "a header alone": (WAV[:20], None, "truncated or damaged"),
    "another format": (encoded(TONE, "AIFF"), None, "AIFF, which is not read"),
    "another ending": (OGG, "a/b.wav", "OGG with the ending .wav"),
    "an MP3": (b"ID3\4" + bytes(100), None, "not a clip: MP3"),
    "text": (b"hello, is anybody there", None, "not a clip: it starts with b'hello, i'"),
    "a picture": (b"\x89PNG\r\n\x1a\n", None, "not a clip: a picture"),
    "a big-endian WAV cut short": (encoded(TONE, endian="BIG")[:-400], None, "truncated"),
    "an Ogg with a hole": (LONG[: len(LONG) // 3] + LONG[len(LONG) // 2 :], None, r"damaged: \d+ of 32000 samples"),
    "two Oggs in one": (OGG + OGG, None, "2 streams in one file"),
    "an absurd rate": (
        WAV[:24] + (2_000_000_011).to_bytes(4, "little") + WAV[28:],
        None,
        "2000000011 samples a second",
    ),
    "not a number": (encoded(np.array([0.5, np.nan] * 500), subtype="FLOAT"), None, "a sample is NaN or infinite"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_clip_is_said_in_a_word(case: str) -> None:
    data, path, why = BAD[case]
    with pytest.raises(BadClipError, match=f"^{why}"):
        decode(data, path, RULE)


def test_damage_anywhere_ends_in_samples_or_in_a_word() -> None:
    draw = np.random.default_rng(0)
    for whole in (WAV, OGG, FLAC):
        for _ in range(60):
            broken = bytearray(whole)
            for place in draw.integers(0, min(400, len(whole)), 3):
                broken[place] = draw.integers(256)
            try:
                assert decode(bytes(broken), None, RULE).seconds >= 0
            except BadClipError as error:
                assert "object at 0x" not in str(error)  # the same words on every run


@pytest.mark.parametrize("form", ["OGG", "FLAC"])
def test_what_checks_itself_is_never_heard_otherwise(form: str) -> None:
    """Both formats hold sums of their content: damage behind the header is seen, and no part is taken for the whole."""
    whole, draw = encoded(SPOKEN, form), np.random.default_rng(1)
    right, refused = decode(whole, None, RULE).samples, 0
    for place in draw.integers(5000, len(whole), 40):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        try:
            assert np.array_equal(decode(bytes(broken), None, RULE).samples, right)
        except BadClipError:
            refused += 1
    assert refused > 30


def test_a_clip_of_ten_hours_is_known_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = encoded(np.zeros(36_000 * 4, np.int16), "FLAC", rate=4)
    monkeypatch.setattr(clip_decoding, "_by_rule", None)  # whoever decodes fails
    found = decode(hours, None, RULE)
    assert found.seconds == 36_000 and not len(found.samples)
    with pytest.raises(BadClipError, match=f"more than {MAX_BYTES} bytes"):
        decode(b"RIFF" + bytes(MAX_BYTES), None, RULE)


# In a batch


def test_lengths_and_silence_are_facts_and_reasons_stand_in_the_quarantine() -> None:
    values = [
        WAV,
        encoded(np.array([0.5])),
        encoded(np.zeros(RATE)),
        encoded(np.zeros(0)),
        encoded(np.tile(TONE, 9)),
        None,
        b"x",
    ]
    audio = Audio(rate=RATE, max_seconds=5, min_seconds=0.2)
    found = audio.read(batch([{"bytes": data, "path": f"{n}.wav"} for n, data in enumerate(values)]), "audio")
    assert found.facts["seconds"][:5].tolist() == [1.0, 1 / RATE, 1.0, 0.0, 9.0]
    assert found.facts["unreadable"].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert found.facts["level"][0] == pytest.approx(-9.03, abs=0.01) and found.facts["level"][2] < audio.min_level
    assert [found.as_found(n) for n in (1, 2, 4, 5)] == [
        "0.000125 s, -6.0 dB: 1.wav", "1 s, -inf dB: 2.wav", "9 s: 4.wav", "no such file here: 5.wav",
    ]  # fmt: skip
    assert found.take(np.arange(7) == 0).to_pylist() == [decode(WAV, None, RULE).samples.tolist()]


def test_lists_of_samples_are_clips_too() -> None:
    found = Audio(rate=RATE).read(batch([[1, -2, 3], [FULL], None]), "audio")
    assert found.facts["unreadable"].tolist() == [0, 1, 0] and np.isnan(found.facts["given"][2])
    assert found.take(np.array([True, False, False])).to_pylist() == [[1, -2, 3]]
    with pytest.raises(InputError, match="expected clips"):
        Audio().read(batch(["a text"]), "audio")


def test_a_row_is_its_samples_whatever_the_file() -> None:
    audio = Audio(rate=RATE)
    cells = [
        audio.cells(audio.read(batch([data]), "audio").take(np.array([True])))
        for data in (encoded(WHOLE), encoded(WHOLE, "FLAC"), encoded(WHOLE // 2))
    ]
    assert cells[0] == cells[1] != cells[2]


def test_a_contract_that_cannot_hold_is_refused() -> None:
    label = {"type": "string", "role": "label", "classes": ["a", "b"]}
    with pytest.raises(ValueError, match="min_seconds is above max_seconds"):
        Audio(min_seconds=3, max_seconds=2)
    with pytest.raises(ValueError, match="a model hears clips alone"):
        Contract.model_validate({"columns": {"audio": Audio(), "other": Audio(), "label": label}})


# Near ones


@pytest.fixture(scope="module")
def spoken() -> list[np.ndarray]:
    return [decode(data, None, RULE).samples for voice in small_clips.VOICES for data in small_clips.clips(voice, 8)]


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def test_a_copy_is_near_and_another_clip_is_not(spoken: list[np.ndarray]) -> None:
    marks = [fingerprint(samples, RATE) for samples in spoken]
    others = [cosine(marks[a], marks[b]) for a in range(len(marks)) for b in range(a)]
    copies = []
    for samples, mark in zip(spoken[::3], marks[::3], strict=True):
        again = encoded(0.4 * samples / FULL, "OGG", subtype="VORBIS")
        padded = np.concatenate([np.zeros(2400, np.int16), decode(again, None, RULE).samples, np.zeros(900, np.int16)])
        copies.append(cosine(fingerprint(padded, RATE), mark))
    assert max(others) < min(copies) and np.mean(copies) > 0.95
    assert not fingerprint(np.zeros(RATE, np.int16), RATE).any()


def test_near_clips_are_found_in_the_datasets_files(spoken: list[np.ndarray], tmp_path: Path) -> None:
    from graftline.values import leakage

    kept = [spoken[0], spoken[5], spoken[0][:-200], spoken[9]]
    values = pa.array([samples.tolist() for samples in kept], pa.list_(pa.int16()))
    pq.write_table(pa.table({"row": [3, 4, 8, 9], "audio": values}), tmp_path / "train.parquet")
    measure = Audio(rate=RATE).measure(["audio"], 0.95)
    rows, none = np.array([3, 4, 8, 9]), np.zeros(4)
    index = leakage.Columns(rows, none, none, none, measure.signatures([values]))
    found = measure.likeness(np.array([[0, 2], [1, 3]]), index, [tmp_path / "train.parquet"])
    assert found[0] > 0.95 > found[1]


def test_long_clips_are_compared_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fingerprint takes a few times the memory of the samples, not twenty; so many clips are read at once as fit."""
    draw = np.random.default_rng(0)
    long = (draw.normal(0, 3000, 20 * 60 * RATE) * np.linspace(0, 1, 20 * 60 * RATE)).astype(np.int16)
    whole = spectrum.power(long[: 60 * RATE], RATE)
    mark, loudness = fingerprint(long[: 60 * RATE], RATE), level(long)
    monkeypatch.setattr(spectrum, "_AT_ONCE", 1 << 14)
    assert np.array_equal(spectrum.power(long[: 60 * RATE], RATE), whole)
    assert np.array_equal(fingerprint(long[: 60 * RATE], RATE), mark) and level(long) == loudness
    tracemalloc.start()
    fingerprint(long, RATE)
    level(long)
    assert tracemalloc.get_traced_memory()[1] < 4 * long.nbytes
    tracemalloc.stop()
    values = pa.array([long[: 10 * RATE]] * 9, pa.list_(pa.int16()))
    pq.write_table(pa.table({"row": np.arange(9), "audio": values}), tmp_path / "train.parquet")
    measure, at_once = Audio(rate=RATE, max_seconds=10).measure(["audio"], 0.95), []
    monkeypatch.setattr(audio, "READ_BYTES", 4 * 20 * RATE)
    read = AudioMeasure.vectors
    monkeypatch.setattr(AudioMeasure, "vectors", lambda self, of: at_once.append(len(of)) or read(self, of))
    assert len(measure.read([tmp_path / "train.parquet"], np.arange(9))) == sum(at_once) == 9
    assert max(at_once) == 4


# For people, and from them


def test_the_report_shows_a_spectrogram_and_plays_the_clip(spoken: list[np.ndarray]) -> None:
    audio = Audio(rate=RATE)
    values = pa.array([samples.tolist() for samples in spoken], pa.list_(pa.int16()))

    def page() -> str:
        samples = audio.samples("audio", "label", ("a", "b"))
        labels = np.arange(len(spoken)) % 2
        samples.add({"audio": values}, labels, np.zeros(len(spoken), np.uint8))
        return str(samples.html())

    assert page().count("data:image/png") == page().count("data:audio/flac") == 4
    assert page() == page(), "the same on every run"


def test_a_question_is_decoded_by_the_rule_of_training(tmp_path: Path) -> None:
    column = AudioColumn("audio", RATE, max_seconds=5)
    assert AudioColumn.from_dict(column.as_dict()) == column
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.wav").write_bytes(encoded(TONE, rate=16_000))
    (tmp_path / "sub/bad.wav").write_bytes(WAV[:-400])
    (tmp_path / "sub/notes.txt").write_text("x")
    pq.write_table(pa.table({"audio": [WAV, OGG]}), tmp_path / "two.parquet")
    found = column.questions([tmp_path / "sub", tmp_path / "two.parquet"], [])
    assert [len(one.value) for one in found.asked] == [RATE // 2, RATE, RATE]
    assert [note.removeprefix(f"left out: {tmp_path}/") for note in found.notes] == [
        "1 clip: resampled to the contract's rate, by a polyphase filter",
        "sub/bad.wav (truncated)",
        "sub/notes.txt (not a clip, Parquet)",
    ]


@pytest.mark.parametrize("kind", [pa.list_(pa.int16()), pa.large_list(pa.int64())])
def test_lists_of_samples_in_parquet_are_asked_too(kind: pa.DataType, tmp_path: Path) -> None:
    column, path = AudioColumn("audio", RATE, max_seconds=5), tmp_path / "lists.parquet"
    clips = [(10_000 * np.sin(np.arange(n))).astype(np.int16) for n in (RATE, 2 * RATE)]
    pq.write_table(pa.table({"audio": pa.array([clip.tolist() for clip in clips], kind)}), path)
    found = column.questions([path], []).asked
    assert [one.name for one in found] == [f"{path}#0", f"{path}#1"]
    assert all(np.array_equal(one.value, clip) for one, clip in zip(found, clips, strict=True))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ([1, None], "row 1: 'audio' is no such clip; expected a list of samples of 16 bits, 8000 a second"),
        ([1 << 15] * RATE, "row 1: 'audio' is no such clip"),
        (None, "row 1: 'audio' is no such clip"),
        ([1] * 9 * RATE, "row 1: a clip of 9 seconds; expected 0.1 to 5"),
    ],
)
def test_a_list_in_parquet_that_is_no_clip_is_named_by_its_row(cell: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    pq.write_table(pa.table({"audio": pa.array([[1] * RATE, cell], pa.list_(pa.int32()))}), path)
    with pytest.raises(InputError, match=re.escape(said)):
        AudioColumn("audio", RATE, max_seconds=5).questions([path], [])


ASKED: dict[str, tuple[Callable[[Path], object], str]] = {
    "too long": (lambda path: path.write_bytes(encoded(np.tile(TONE, 6))), "a clip of 6 seconds; expected 0.1 to 5"),
    "one sample": (lambda path: path.write_bytes(encoded(TONE[:1])), "a clip of 0.000125 seconds; expected 0.1 to 5"),
    "damaged": (lambda path: path.write_bytes(WAV[:30]), "truncated or damaged"),
    "not there": (lambda path: None, "no such file or folder"),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_cannot_be_asked_is_refused(case: str, tmp_path: Path) -> None:
    make, why = ASKED[case]
    make(tmp_path / "a.wav")
    with pytest.raises(InputError, match=why):
        AudioColumn("audio", RATE, max_seconds=5).questions([tmp_path / "a.wav"], [])


def test_samples_may_be_asked_about_as_numbers() -> None:
    column = AudioColumn("audio", RATE)
    assert column.question("x", [5] * RATE).dtype == np.int16
    for wrong in ("a", [0.5] * RATE, [[1]], [FULL] * RATE):
        with pytest.raises(InputError, match="'audio' is no such clip"):
            column.question("x", wrong)
    with pytest.raises(InputError, match="this release is asked about clips"):
        column.questions([], ["a text"])


def test_clips_are_taken_by_their_places() -> None:
    clips = Clips.of([np.arange(n, dtype=np.int16) for n in (3, 0, 2)], RATE)
    assert [len(clips.take(np.array([2, 0]))[n]) for n in (0, 1)] == [2, 3]
    assert len(Clips.of([], RATE)) == 0
