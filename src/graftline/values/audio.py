"""Clips of sound, of one channel and one rate: encoded files (WAV, FLAC, Ogg)."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from PIL import Image as Picture
from pydantic import Field, model_validator

from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.raw.batches import RawBatch
from graftline.raw.clip_formats import FORMATS, SUFFIXES
from graftline.raw.picture_formats import MAX_BYTES
from graftline.values.chosen import values_of
from graftline.values.clip_decoding import CHANGES, FULL, BadClipError, Channels, Clip, Resample, Rule, decode
from graftline.values.clips import Clips
from graftline.values.column import Feature, Question, Questions, StoredFeature
from graftline.values.corruption import OF_CLIPS, Corruption
from graftline.values.encoded import encoded, files_of, given
from graftline.values.facts import ColumnBatch, wrong_type
from graftline.values.file_questions import FileQuestions
from graftline.values.histograms import Histograms
from graftline.values.image_arrays import is_list
from graftline.values.rules import Rule as Check
from graftline.values.rules import between
from graftline.values.samples import ByClass
from graftline.values.simhash import CosineMeasure
from graftline.values.spectrum import BANDS, STEPS, fingerprint, level, spectrogram

SAMPLES = pa.list_(pa.int16())
"""A clip in the dataset: its samples."""
READ_BYTES = 32 << 20
"""How many samples are in memory while clips are compared with each other."""
_LEAST_LEVEL = -100.0
_SHOWN_SECONDS = 10.0
"""How much of a clip the report plays."""


class Audio(Feature):
    """Clips of sound, of one channel and one rate: WAV, FLAC or Ogg (Vorbis or Opus).

    A clip is a file of a folder, or bytes in Parquet, also as `{bytes, path}`; or a list of its samples, of 16 bits and
    at `rate`. docs/data.md says how a file becomes samples.
    """

    type: Literal["audio"] = "audio"

    rate: int = Field(default=16_000, ge=4000, le=96_000)
    """Samples a second in the dataset."""

    resample: Resample = "polyphase"
    """What a clip of another rate becomes. polyphase: resampled by a polyphase filter; refuse: it goes to the
    quarantine."""

    channels: Channels = "mean"
    """What a clip of several channels becomes. mean: their mean; first: the first; refuse: it goes to the
    quarantine."""

    min_seconds: float = Field(default=0.1, gt=0, le=3600)
    """Length of the shortest clip, in seconds."""

    max_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Length of the longest clip, in seconds; a longer one is not decoded."""

    min_level: float = Field(default=-70.0, ge=_LEAST_LEVEL, le=0)
    """Root mean square of the most silent clip, in dB below full scale."""

    changes: ClassVar[Mapping[str, str]] = CHANGES
    plural: ClassVar[str] = "clips"
    near: ClassVar[str] = "min_cosine"

    @property
    def rule(self) -> Rule:
        """What a clip becomes."""
        return Rule(self.rate, self.channels, self.resample, self.max_seconds)

    @property
    def decoded_bytes(self) -> int:
        return 2 * math.ceil(self.max_seconds * self.rate)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError("min_seconds is above max_seconds")
        return self

    def check(self, name: str, contract: Any) -> None:
        if len(contract.features) > 1:
            raise ValueError(f"columns.{name}: a model hears clips alone; give other columns the role metadata")

    def arrow_type(self) -> pa.DataType:
        return SAMPLES

    def read(self, batch: RawBatch, name: str) -> ColumnBatch:
        array = batch.columns[name]
        if pa.types.is_null(array.type):
            array = array.cast(pa.binary())
        if encoded(array.type):
            there, files = given(array), files_of(array)
            heard = [self._heard(*file) if ok else "missing" for file, ok in zip(files, there, strict=True)]
        elif is_samples(array.type):
            there, files = array.is_valid().to_numpy(zero_copy_only=False), [(None, None)] * len(array)
            heard = [self._listed(value) for value in array]
        else:
            expected = "clips (bytes of WAV, FLAC or Ogg, or {bytes, path}), or lists of samples"
            raise wrong_type(batch, name, array.type, expected)
        good = np.array([isinstance(clip, Clip) for clip in heard], bool)
        clips = [clip if isinstance(clip, Clip) else None for clip in heard]
        levels = [level(clip.samples) if clip is not None and len(clip.samples) else np.nan for clip in clips]
        facts = {
            "given": np.where(there, 1.0, np.nan),
            "unreadable": (there & ~good).astype(np.int64),
            "seconds": np.array([np.nan if clip is None else clip.seconds for clip in clips], np.float64),
            "level": np.maximum(np.array(levels, np.float64), 2 * _LEAST_LEVEL),  # NaN stays
        }
        changes: dict[str, int] = {}
        for change in (one for clip in clips if clip is not None for one in clip.changes):
            changes[change] = changes.get(change, 0) + 1

        def as_found(position: int) -> str:
            clip, path = heard[position], files[position][1]
            loud = "" if np.isnan(levels[position]) else f", {levels[position]:.1f} dB"
            found = clip if isinstance(clip, str) else f"{clip.seconds:.4g} s{loud}"
            return found if path is None else f"{found}: {path}"

        def take(mask: np.ndarray) -> pa.Array:
            kept = [clip.samples for clip, wanted in zip(clips, mask, strict=True) if wanted and clip is not None]
            return listed(Clips.of(kept, self.rate))

        return ColumnBatch(facts, as_found, take, changes)

    def _heard(self, data: bytes | None, path: str | None) -> Clip | str:
        """Return a clip, or why there is none."""
        try:
            if data is None:
                raise BadClipError("no such file here")
            return decode(data, path, self.rule)
        except BadClipError as error:
            return str(error)

    def _listed(self, value: pa.ListScalar) -> Clip | str:
        """Return the clip of a list of samples, or why there is none."""
        samples = listed_samples(value)
        if samples is None:
            return "no list of samples of 16 bits" if value.is_valid else "missing"
        return Clip(samples, len(samples) / self.rate)

    def rules(self, name: str) -> list[Check]:
        return [
            between(f"{name}.type", f"{name}.unreadable", 0, 0, "a clip that can be decoded", shows="raw"),
            between(
                f"{name}.min_seconds", f"{name}.seconds", self.min_seconds, None,
                f"at least {self.min_seconds:g} seconds", shows="raw",
            ),
            between(
                f"{name}.max_seconds", f"{name}.seconds", None, self.max_seconds,
                f"at most {self.max_seconds:g} seconds", shows="raw",
            ),
            between(
                f"{name}.min_level", f"{name}.level", self.min_level, None,
                f"no silence: at least {self.min_level:g} dB", shows="raw",
            ),
        ]  # fmt: skip

    def cells(self, values: pa.Array) -> list[bytes]:
        """Return the samples of each, little-endian."""
        return [b"\1" + clip.astype("<i2").tobytes() for clip in _clips(values)]

    def show(self, value: Any, cell: bytes) -> str:
        return f"sha256 {sha256_bytes(cell)}"

    def histograms(self, name: str) -> AudioHistograms:
        return AudioHistograms(name, self)

    def measure(self, names: Sequence[str], minimum: float) -> AudioMeasure:
        (name,) = names
        return AudioMeasure(name, minimum, rate=self.rate, longest=self.decoded_bytes)

    def near_text(self, minimum: float) -> str:
        return f"clips whose fingerprints have cosine {minimum:g} or more"

    def samples(self, name: str, label: str | None, classes: tuple[Any, ...]) -> AudioSamples:
        return AudioSamples(name, classes, rate=self.rate)

    def stored(self, name: str) -> AudioColumn:
        return AudioColumn(name, self.rate, self.resample, self.channels, self.min_seconds, self.max_seconds)

    def from_file(self, path: Path) -> Any:
        if path.suffix.lower() not in SUFFIXES:
            super().from_file(path)
        try:
            clip = decode(path.read_bytes(), str(path), self.rule)
        except BadClipError as error:
            raise InputError(path, str(error), expected=f"a clip ({', '.join(FORMATS)})") from None
        return clip.samples.tolist()


def is_samples(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are lists of samples."""
    return is_list(kind) and bool(pa.types.is_integer(kind.value_type))


def listed(clips: Clips) -> pa.Array:
    """Return clips as a dataset holds them."""
    return pa.ListArray.from_arrays(pa.array(clips.offsets, pa.int32()), pa.array(clips.samples), type=SAMPLES)


def samples_of(value: Any) -> np.ndarray | None:
    """Return (n,) int16 of a list of whole numbers of 16 bits; None of anything else."""
    try:
        samples = np.array(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if samples.ndim != 1 or (samples.dtype.kind not in "iu" and len(samples)):
        return None
    inside = len(samples) == 0 or -FULL <= samples.min() <= samples.max() < FULL
    return samples.astype(np.int16) if inside else None


def listed_samples(value: pa.ListScalar) -> np.ndarray | None:
    """Return (n,) int16 of a cell that lists whole numbers of 16 bits; None of any other.

    As Python's own numbers, a clip would take twenty times its memory.
    """
    return samples_of(value.values.to_numpy(zero_copy_only=False)) if value.is_valid else None


def _clips(values: pa.Array) -> list[np.ndarray]:
    """Return (samples,) int16 of each of n clips; empty of a missing one."""
    flat = values.values.to_numpy(zero_copy_only=False)
    ends = values.offsets.to_numpy()
    return [flat[low:high] for low, high in pairwise(ends)]


class AudioHistograms(Histograms):
    """Lengths and levels of clips."""

    def __init__(self, name: str, audio: Audio) -> None:
        super().__init__()
        self._name, self._rate = name, audio.rate
        self.intervals(f"{name}.seconds", 0.0, audio.max_seconds)
        self.intervals(f"{name}.level", audio.min_level, 0.0)

    def add(self, values: pa.Array) -> None:
        clips = _clips(values)
        self.count(f"{self._name}.seconds", np.array([len(clip) for clip in clips]) / self._rate)
        self.count(f"{self._name}.level", np.array([level(clip) for clip in clips]))


@dataclass(frozen=True)
class AudioMeasure(CosineMeasure):
    """Of clips: their fingerprints."""

    rate: int = 0
    longest: int = 1
    """Bytes of the longest clip."""

    def vectors(self, values: pa.Array) -> np.ndarray:
        found = [fingerprint(clip, self.rate) for clip in _clips(values)]
        return np.stack(found) if found else np.empty((0, BANDS * STEPS), np.float32)

    def read(self, files: Sequence[Path], rows: np.ndarray) -> np.ndarray:
        found = np.zeros((len(rows), BANDS * STEPS), np.float32)
        at_once = min(1024, max(1, READ_BYTES // self.longest))
        for places, values in values_of(files, self.column, rows, at_once):
            found[places] = self.vectors(values)
        return found

    def size(self, files: Sequence[Path]) -> int:
        return BANDS * STEPS


@dataclass(kw_only=True)
class AudioSamples(ByClass):
    """Spectrograms with the sound."""

    rate: int

    each: ClassVar[int] = 2
    most_classes: ClassVar[int] = 20

    def html(self) -> Markup:
        return self.figures(lambda name, kept: Markup("").join(map(self._clip, kept)))

    def _clip(self, values: list[int]) -> Markup:
        import soundfile

        samples = np.array(values[: int(_SHOWN_SECONDS * self.rate)], np.int16)
        sound = io.BytesIO()
        soundfile.write(sound, samples, self.rate, format="FLAC")  # an Ogg has a number in it that is drawn anew
        form = Markup(
            '<figure><img style="width: 240px; height: 64px" src="{}" alt="spectrogram of {:.2f} s"><br>'
            '<audio controls preload="none" src="{}"></audio></figure>'
        )
        picture = io.BytesIO()
        Picture.fromarray(spectrogram(samples, self.rate, 64, 240)).save(picture, "PNG")
        seconds = len(values) / self.rate
        return form.format(_uri("image/png", picture.getvalue()), seconds, _uri("audio/flac", sound.getvalue()))


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class AudioColumn(StoredFeature):
    """A column of clips: lists of samples."""

    rate: int
    """Samples a second."""
    resample: Resample = "polyphase"
    channels: Channels = "mean"
    min_seconds: float = 0.1
    max_seconds: float = 30.0

    type: ClassVar[str] = "audio"
    plural: ClassVar[str] = "clips"
    corruptions: ClassVar[tuple[str, ...]] = OF_CLIPS

    @property
    def rule(self) -> Rule:
        """What a clip becomes that the model is asked about: as in training."""
        return Rule(self.rate, self.channels, self.resample, self.max_seconds)

    def as_dict(self) -> dict[str, Any]:
        more = {"rate": self.rate, "resample": self.resample, "channels": self.channels}
        return {**super().as_dict(), **more, "min_seconds": self.min_seconds, "max_seconds": self.max_seconds}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AudioColumn:
        return cls(
            values["name"], int(values["rate"]), values["resample"], values["channels"],
            float(values["min_seconds"]), float(values["max_seconds"]),
        )  # fmt: skip

    def values(self, column: pa.ChunkedArray) -> Clips:
        lengths = pc.list_value_length(column).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return Clips(pc.list_flatten(column).to_numpy(), offsets, self.rate)

    def corrupted(
        self, column: pa.ChunkedArray, dataset: Path, rows: np.ndarray, by: Corruption
    ) -> tuple[AudioColumn, pa.Array]:
        from graftline.values.corruptions import clips

        heard, spoiled = self.values(column), []
        for place, draw in enumerate(by.draws(rows)):
            sound = clips.spoil(by.name, heard[place] / FULL, draw, by.level, self.rate)
            spoiled.append(np.rint(sound * FULL).clip(-FULL, FULL - 1).astype(np.int16))
        return self, listed(Clips.of(spoiled, self.rate))

    def croissant(self) -> dict[str, Any]:
        return {
            "dataType": "sc:Integer",
            "isArray": True,
            "arrayShape": "-1",
            "description": f"Samples of one channel, {self.rate} a second, of 16 bits.",
        }

    def check(self, where: str, clip: Clip) -> np.ndarray:
        """Return the samples of a clip that the model is asked about. Raises InputError for a length not trained on."""
        if not self.min_seconds <= clip.seconds <= self.max_seconds:
            lengths = f"{self.min_seconds:g} to {self.max_seconds:g} seconds, as the training data's"
            raise InputError(where, f"a clip of {clip.seconds:.4g} seconds", expected=lengths)
        return clip.samples

    def question(self, where: str, value: Any) -> np.ndarray:
        """Return (n,) int16 samples from a list of them."""
        return self.listed(where, samples_of(value))

    def listed(self, where: str, samples: np.ndarray | None) -> np.ndarray:
        """Return (n,) int16 samples that were given as a list; None where that was none. Raises InputError."""
        if samples is None:
            found = f"'{self.name}' is no such clip"
            raise InputError(where, found, expected=f"a list of samples of 16 bits, {self.rate} a second")
        return self.check(where, Clip(samples, len(samples) / self.rate))

    def questions(self, paths: list[Path], texts: list[str]) -> Questions:
        if texts:
            raise InputError("--text", "a text", expected="clips", fix="this release is asked about clips")
        return _ClipQuestions(self).read_all(paths)


class _ClipQuestions(FileQuestions):
    one, plural, held = "clip", "clips", "clips or lists of samples"
    formats, suffixes, most_bytes, changes = FORMATS, SUFFIXES, MAX_BYTES, CHANGES

    def __init__(self, column: AudioColumn) -> None:
        super().__init__(column.name)
        self._column = column

    def decoded(self, name: str, data: bytes | None, path: str | None) -> tuple[np.ndarray, Iterable[str]]:
        try:
            if data is None:
                raise BadClipError(f"no clip of at most {MAX_BYTES} bytes")
            clip = decode(data, path, self._column.rule)
        except BadClipError as error:
            raise InputError(name, str(error), expected=f"a clip ({', '.join(FORMATS)})") from None
        return self._column.check(name, clip), clip.changes

    def rows(self, path: Path, first: int, array: pa.Array) -> Iterator[Question]:
        if not is_samples(array.type):
            yield from super().rows(path, first, array)
            return
        for row, value in enumerate(array, first):
            yield Question(f"{path}#{row}", self._column.listed(f"{path}: row {row}", listed_samples(value)))
