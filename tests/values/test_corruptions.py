"""Spoiled values: a pure function of seed and row, harder by severity, and still of the column's kind."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.environment import ROOT
from graftline.values.audio import AudioColumn, listed
from graftline.values.clip_decoding import FULL
from graftline.values.clips import Clips
from graftline.values.column import StoredFeature
from graftline.values.corruption import SEVERITIES, Corruption
from graftline.values.corruptions import clips
from graftline.values.corruptions.pictures import WAYS
from graftline.values.corruptions.texts import spoil_text, synonym, typo
from graftline.values.image import ImageColumn
from graftline.values.items import ItemsColumn
from graftline.values.text import TextColumn
from graftline.values.words import TokensColumn

sys.path.insert(0, str(ROOT / "tools"))

import synonyms

COUNT = 24
GREY, COLOUR = ImageColumn("image", (28, 28), 255), ImageColumn("image", (32, 32), 255, 3)
TEXTS = ["a small wooden chair that is used by children in school", "any of various herbs of the genus Senecio"]
CLIPS = AudioColumn("audio", 8000)
HERE = Path(__file__).parent


def digits() -> pa.ChunkedArray:
    table = pq.read_table(ROOT / "data/mnist/raw/images.parquet", columns=["image"])
    flat = table["image"].slice(0, COUNT).combine_chunks().flatten().cast(pa.uint8())
    return pa.chunked_array([pa.FixedSizeListArray.from_arrays(flat, 784)])


def colours() -> pa.ChunkedArray:
    """Smooth pictures with edges, of three different channels."""
    y, x = np.mgrid[:32, :32] / 32
    draw = np.random.default_rng(0)
    waves = [np.sin(draw.uniform(2, 12) * x + draw.uniform(2, 12) * y + draw.uniform(0, 6)) for _ in range(3 * COUNT)]
    pictures = np.stack(waves).reshape(COUNT, 3, 32, 32).transpose(0, 2, 3, 1) > 0.3
    flat = (60 + 150 * pictures).astype(np.uint8).reshape(-1)
    return pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(flat), 3072)])


def sounds(rate: int = 8000) -> pa.ChunkedArray:
    """Clips of half a second: three tones that swell and fade."""
    times, draw = np.arange(rate // 2) / rate, np.random.default_rng(0)
    swell = np.sin(2 * np.pi * 4 * times) ** 2
    tones = [np.sin(np.outer(draw.uniform(600, 9000, 3), times)).sum(axis=0) * swell for _ in range(COUNT)]
    return pa.chunked_array([listed(Clips.of([(3000 * tone).astype(np.int16) for tone in tones], rate))])


def spoiled(
    feature: StoredFeature, column: pa.ChunkedArray, by: Corruption, rows: np.ndarray | None = None
) -> pa.Array:
    found, array = feature.corrupted(column, Path(), np.arange(len(column)) if rows is None else rows, by)
    assert (found, array.type) == (feature, column.type)
    return array


def numbers(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return whole.flatten().to_numpy().reshape(len(whole), -1).astype(np.float64)


@pytest.mark.parametrize("name", ImageColumn.corruptions)
def test_a_harder_corruption_is_further_from_the_clean_picture(name: str) -> None:
    for feature, clean in ((GREY, digits()), (COLOUR, colours())):
        away = [
            np.sqrt(((numbers(spoiled(feature, clean, Corruption(name, severity, 0))) - numbers(clean)) ** 2).mean())
            for severity in SEVERITIES
        ]
        assert away[0] > 0.5 and np.diff(away).min() > 0, f"{feature.shape}: {away}"


@pytest.mark.parametrize("name", AudioColumn.corruptions)
def test_a_harder_corruption_is_further_from_the_clean_clip(name: str) -> None:
    for rate in (5000, 8000, 22_050):
        clean, feature = sounds(rate), AudioColumn("audio", rate)
        away = [
            np.sqrt(((numbers(spoiled(feature, clean, Corruption(name, severity, 0))) - numbers(clean)) ** 2).mean())
            for severity in SEVERITIES
        ]
        assert away[0] > 10 and np.diff(away).min() > 0, f"{rate}: {away}"


def test_there_are_the_15_ways_of_the_paper() -> None:
    assert ImageColumn.corruptions == tuple(WAYS) and len(WAYS) == 15
    assert AudioColumn.corruptions == tuple(clips.WAYS)
    assert not ItemsColumn.corruptions


def everything() -> str:
    sha = sha256()
    for feature, column in ((GREY, digits()), (TextColumn("text"), pa.chunked_array([TEXTS])), (CLIPS, sounds())):
        for name in feature.corruptions:
            sha.update(str(spoiled(feature, column, Corruption(name, 3, 7)).to_pylist()).encode())
    return sha.hexdigest()


def test_another_process_spoils_alike() -> None:
    """Python's own hashes differ from process to process."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import test_corruptions as t; print(t.everything())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == everything()


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        (GREY, digits()),
        (TextColumn("text"), pa.chunked_array([TEXTS * 12])),
        (TokensColumn("words"), pa.chunked_array([[text.split() for text in TEXTS * 12]])),
        (CLIPS, sounds()),
    ],
)
def test_what_becomes_of_a_row_depends_on_seed_and_row_alone(feature: StoredFeature, column: pa.ChunkedArray) -> None:
    rows = np.arange(100, 100 + COUNT)
    for name in feature.corruptions:
        by = Corruption(name, 4, 1)
        all_, some = spoiled(feature, column, by, rows), spoiled(feature, column.slice(5, 3), by, rows[5:8])
        assert some.to_pylist() == all_.slice(5, 3).to_pylist()
        if name in ("gaussian_noise", "typos", "hum"):
            assert spoiled(feature, column, Corruption(name, 4, 2), rows).to_pylist() != all_.to_pylist()


def test_a_harder_severity_hits_the_same_words_and_more() -> None:
    text, feature = " ".join(TEXTS * 20), TextColumn("text")
    for name in ("typos", "case", "ocr"):
        hit: set[int] = set()
        for severity in SEVERITIES:
            (found,) = spoiled(feature, pa.chunked_array([[text]]), Corruption(name, severity, 0)).to_pylist()
            pairs = zip(text.split(), found.split(), strict=True)
            now = {place for place, (one, other) in enumerate(pairs) if one != other}
            assert hit < now
            hit = now
        assert 0.25 < len(hit) / len(text.split()) < 0.6


def test_words_are_dropped_swapped_and_misspelt_as_named() -> None:
    draw = np.random.default_rng
    text = "one two  three\tfour five six seven eight"
    dropped = spoil_text("dropped_words", text, draw(1), 4).split()
    assert len(dropped) < 8 and [word for word in text.split() if word in dropped] == dropped
    swapped = spoil_text("swapped_words", text, draw(1), 4)
    assert sorted(swapped.split()) == sorted(text.split()) and swapped.split() != text.split()
    assert spoil_text("dropped_words", "word", draw(0), 4) == "word", "an empty text is no text"
    assert {typo("g", draw(seed)) for seed in range(60)} == set("tyfhvb")
    assert typo("ğı", draw(0)) == "ığ"
    assert spoil_text("case", text, draw(1), 0).lower() == text, "white space stays"


def test_a_synonym_keeps_marks_and_capitals_and_words_without_one_stay() -> None:
    draw = np.random.default_rng
    assert {synonym("belly", draw(seed)) for seed in range(9)} == {"abdomen"}
    assert [synonym(word, draw(0)) for word in ("(Belly,", "BELLY", "belly-button", "b3lly", "the", "...", "on")] == [
        "(Abdomen,", "ABDOMEN", "belly-button", "b3lly", "the", "...", "on",
    ]  # fmt: skip
    text, feature = " ".join(TEXTS * 20), TextColumn("text")
    hit: set[int] = set()
    for severity in SEVERITIES:
        (found,) = spoiled(feature, pa.chunked_array([[text]]), Corruption("synonyms", severity, 0)).to_pylist()
        now = {at for at, pair in enumerate(zip(text.split(), found.split(), strict=True)) if len(set(pair)) > 1}
        assert hit < now
        hit = now
    assert {text.split()[place] for place in hit} == {"small", "any"} and len(hit) == 40, "all, at the hardest"


def test_the_table_of_synonyms_is_whole_and_holds_wordnets_notice() -> None:
    lines = synonyms.OUT.read_text().splitlines()
    sets = [line.split() for line in lines if not line.startswith("#")]
    assert sets == sorted(sorted(words) for words in sets) and all(len(words) > 1 for words in sets)
    assert max(Counter(word for words in sets for word in words).values()) == 1, "a word has one meaning"
    notice = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines if line.startswith("#"))
    assert synonyms.NOTICE.read_text().rstrip("\n") in notice


def test_a_word_has_synonyms_in_its_usual_sense_alone() -> None:
    """Lines of the form that WordNet's files have."""
    files = dict.fromkeys(set(synonyms.TYPES.values()), "  1 This software\n") | {"cntlist.rev": ""}
    files["index.noun"] += (
        "car n 2 1 @ 2 1 00000010 00000020  \nautomobile n 1 1 @ 1 0 00000010  \n"
        "machine n 2 1 @ 2 2 00000030 00000010  \nrailcar n 1 0 1 0 00000020  \n"
        "zzz n 1 0 1 0 00000040  \nzzzz n 1 0 1 0 00000040  \n"
    )
    files["cntlist.rev"] = "car%1:06:00:: 1 9\nmachine%1:06:00:: 1 3\nmachine%1:06:01:: 2 3\n"
    assert synonyms.of_one_meaning(files) == [["automobile", "car"]]


def heard(name: str, level: int, sound: np.ndarray, rate: int = 8000) -> np.ndarray:
    return clips.spoil(name, sound, np.random.default_rng(0), level, rate)


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * float(np.log10((one**2).mean() / ((other**2).mean() + 1e-12)))


def tone(hertz: float, rate: int = 8000) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)


def test_noise_is_as_loud_as_named_and_pink_noise_falls_by_frequency() -> None:
    clean = tone(440)
    for name, ratio in (("white_noise", 15), ("pink_noise", 15), ("hum", 10)):
        assert decibels(clean, heard(name, 2, clean) - clean) == pytest.approx(ratio, abs=0.01)
    power = np.abs(np.fft.rfft(heard("pink_noise", 0, clean) - clean)) ** 2
    assert 10 * np.log10(power[100:200].sum() / power[1600:3200].sum()) == pytest.approx(0, abs=1), "equal by octave"


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_a_telephone_carries_speech_and_little_else(rate: int) -> None:
    for hertz, lost in ((60, 40), (200, 25), (1000, 0), (3000, 0), (3900, 8)):
        clean = tone(hertz, rate)
        found = decibels(clean, heard("telephone", 0, clean, rate))
        assert found > lost if lost else abs(found) < 0.7, f"{hertz} Hz: {found:.1f} dB less"


def test_a_telephone_has_the_256_levels_of_g711_and_worse_ones_fewer() -> None:
    loud = 4 * tone(440) * np.linspace(0, 1, 8000)
    for level, most in ((0, 255), (4, 15)):
        assert 0.8 * most < len(np.unique(heard("telephone", level, loud).round(9))) <= most


def test_a_room_is_as_loud_and_goes_on_when_the_voice_stops() -> None:
    clean = np.r_[tone(440), np.zeros(8000)]
    found = heard("reverberation", 2, clean)
    assert decibels(found, clean) == pytest.approx(0, abs=1e-6)
    by_tenth = [float((part**2).mean()) for part in np.split(found[8000:], 10)]
    assert 10 * np.log10(by_tenth[0] / by_tenth[3]) == pytest.approx(60 * 0.3 / 0.6, abs=5), "60 dB in 0.6 s"


def test_more_packets_are_lost_and_more_samples_cut_off_at_a_harder_severity() -> None:
    loud, lost = 0.1 + np.abs(tone(440)), set[int]()
    for level in range(5):
        now = set(np.flatnonzero(heard("lost_packets", level, loud) == 0).tolist())
        assert lost <= now and len(now) % 160 == 0
        lost = now
    assert 0.2 < len(lost) / 8000 < 0.4
    cut = heard("clipping", 4, loud)
    assert (cut == cut.max()).mean() == pytest.approx(0.35, abs=0.02) and cut.max() == pytest.approx(loud.max())


@pytest.mark.parametrize("name", AudioColumn.corruptions)
def test_silence_full_scale_and_one_sample_are_clips(name: str) -> None:
    for samples in ([0], [-FULL], [0] * 50, [-FULL, FULL - 1] * 25):
        column = pa.chunked_array([listed(Clips.of([np.array(samples, np.int16)], 8000))])
        (found,) = spoiled(CLIPS, column, Corruption(name, 5, 0)).to_pylist()
        assert len(found) == len(samples)
        assert any(samples) or not any(found), "nothing is added to silence"
