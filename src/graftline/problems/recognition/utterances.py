"""Clips of speech with what is said in them, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from graftline.dataset import UNLABELLED, read_schema
from graftline.errors import InputError
from graftline.problems.audio import ClipExamples
from graftline.problems.documents import bounds
from graftline.problems.recognition.parameters import RecognitionParams
from graftline.problems.recognition.spelling import frames_needed, spelled
from graftline.trunks.audio.trunk import frames_of
from graftline.trunks.rootstock import CONFIG, read_object
from graftline.values.clips import Clips
from graftline.values.splits import read_clips


@dataclass(frozen=True, kw_only=True)
class Utterances(ClipExamples):
    """Clips, and what is said in each, as it is learned."""

    text: torch.Tensor
    """(bytes,) uint8: the transcripts in UTF-8, end to end; nothing of clips without."""
    text_offsets: torch.Tensor
    """(n + 1,) int64."""
    respelled: torch.Tensor
    """(n,) bool: whether the rule for case and punctuation changed the transcript."""
    missing: torch.Tensor
    """(n,) int32: frames that the clip lacks for CTC to say its transcript; 0 where it has enough."""
    unknown: torch.Tensor
    """(n,) int32: characters of the transcript that no training transcript has."""
    punctuation_only: torch.Tensor
    """(n,) bool: whether the rule for punctuation left nothing of the transcript."""

    @property
    def classes(self) -> None:
        return None

    @classmethod
    def runs(cls) -> dict[str, tuple[str, ...]]:
        return {**super().runs(), "text_offsets": ("text",)}

    def inputs(self) -> list[bytes]:
        return [sha256(wave.tobytes()).digest() for wave in self.waves()]

    def texts(self) -> list[str]:
        """Return the n transcripts."""
        data, ends = self.text.numpy().tobytes(), self.text_offsets.tolist()
        return [data[start:end].decode() for start, end in pairwise(ends)]

    def lost(self) -> Unsayable:
        long, unknown, silent = self.missing > 0, self.unknown > 0, self.punctuation_only
        return Unsayable(
            int((long | unknown | silent).sum()), int(long.sum()), int(unknown.sum()), int(silent.sum()),
            int(self.respelled.sum()), len(self),
        )  # fmt: skip


@dataclass(frozen=True)
class Unsayable:
    """Transcripts that a model cannot get right, and those that a rule changed."""

    examples: int
    """Those that it cannot, for whatever reason."""
    long: int
    """Those for which CTC needs more frames than the clip has."""
    unknown: int
    """Those with characters that no training transcript has."""
    punctuation_only: int
    """Those of which the rule for punctuation leaves nothing: they count as silence."""
    respelled: int
    """Those that were changed by the rule for case and punctuation."""
    of: int

    def told(self, plural: str) -> str:
        parts = (
            (self.long, "longer than the frames of their clips can say, and not learned"),
            (self.unknown, "of characters that no transcript of train has"),
            (self.punctuation_only, "without a letter or digit, which count as silence"),
        )
        found = ", ".join(f"{count:,} {what}" for count, what in parts if count)
        return f"transcripts of {self.of:,} {plural}: {found}"

    def metrics(self, split: str) -> dict[str, float]:
        return {
            f"{split}_too_long": self.long, f"{split}_unknown_characters": self.unknown,
            f"{split}_punctuation_only": self.punctuation_only, f"{split}_respelled": self.respelled,
        }  # fmt: skip


def read(dataset: Path, split: str, folder: Path, params: RecognitionParams) -> Utterances:
    """Return a split's utterances as the trunk or model in `folder` takes them. Raises InputError."""
    found = read_clips(dataset, split)
    raw = found.labels if split != UNLABELLED else [""] * len(found.clips)
    known = None if split in ("train", UNLABELLED) else _characters(dataset, params)
    return utterances(found.clips, raw, found.rows, folder, params, known)


def utterances(
    clips: Clips, raw: Sequence[str], rows: np.ndarray, folder: Path, params: RecognitionParams,
    known: frozenset[str] | None = None,
) -> Utterances:  # fmt: skip
    """Return clips with their transcripts; `known` are the characters of training, None where all are."""
    texts = [spelled(text, params) for text in raw]
    packed = [text.encode() for text in texts]
    needed = np.array([frames_needed(text) for text in texts], np.int64)
    strange = [0 if known is None else sum(letter not in known for letter in text) for text in texts]
    return Utterances.of(
        clips,
        rows,
        text=np.frombuffer(bytearray(b"".join(packed)), np.uint8),
        text_offsets=bounds(packed),
        punctuation_only=np.array([bool(one) and not other for one, other in zip(raw, texts, strict=True)], bool),
        respelled=np.array([one != other for one, other in zip(raw, texts, strict=True)], bool),
        missing=np.maximum(needed - _frames(folder, clips), 0).astype(np.int32),
        unknown=np.array(strange, np.int32),
    )


def _frames(folder: Path, clips: Clips) -> np.ndarray:
    """Return (n,) int64: how many frames the trunk or model in `folder` makes of each clip. Raises InputError."""
    from transformers import AutoConfig

    if "conv_kernel" not in read_object(folder / CONFIG):
        raise InputError(folder / CONFIG, "no model of speech", expected="a trunk of sound", fix="set pretrain.trunk")
    return frames_of(AutoConfig.from_pretrained(folder, local_files_only=True), clips.lengths)


def _characters(dataset: Path, params: RecognitionParams) -> frozenset[str]:
    """Return the characters of the training transcripts."""
    label = read_schema(dataset).label
    texts = pq.read_table(dataset / "train.parquet", columns=[label])[label].to_pylist()
    return frozenset(letter for text in texts for letter in spelled(text, params))
