"""Speech recognition: which characters are said in a clip, by CTC on the trunk's frames, in transformers' own model.

A. Graves et al., "Connectionist temporal classification", ICML 2006. The trunk tells of each frame, some hundredths of
a second; the head is one layer that says a character of each, or nothing. A release opens with AutoModelForCTC and
Wav2Vec2Processor, and hears the same.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from graftline.dataset import Schema
from graftline.learning.device import send
from graftline.learning.distributed import World, share
from graftline.learning.randomness import generator
from graftline.problems.audio import AudioModel, AudioProblem
from graftline.problems.documents import by_length
from graftline.problems.problem import LABEL, Model
from graftline.problems.recognition import present, utterances
from graftline.problems.recognition.answers import Transcribed
from graftline.problems.recognition.decoding import Heard, decoded
from graftline.problems.recognition.parameters import RecognitionParams
from graftline.problems.recognition.spelling import (
    BETWEEN,
    SPECIAL,
    UNKNOWN,
    read_vocabulary,
    save_processor,
    vocabulary_of,
)
from graftline.problems.recognition.utterances import Utterances
from graftline.trunks.audio.masked_units import hide
from graftline.trunks.audio.parameters import MaskedUnitsParams
from graftline.trunks.audio.trunk import AudioTrunk, frame_samples, frames_of
from graftline.values.audio import AudioColumn
from graftline.values.clips import Clips
from graftline.values.transcript import TranscriptLabel

_STEP_SAMPLES = 1 << 19
"""Samples that are learned at once, padding included."""
_HEAD = 0.15
"""Deviation of the head's first weights."""
_NOTHING = 2.0
"""The first logit of saying nothing, as most frames do."""


class Recognizer(AudioModel[Utterances]):
    """Clips to the probability of each character in each frame."""

    clip = 1.0  # the first gradients are those of five frames a character: AdamW would long remember them

    def __init__(self, network: Any, rate: int, new: frozenset[str], params: RecognitionParams) -> None:
        super().__init__(network, rate, new, params)
        self.tokens: tuple[str, ...] = SPECIAL

    def begin(self, train: Utterances) -> None:
        """Take the characters of the training transcripts as the vocabulary."""
        self._spell(vocabulary_of(train.texts()))

    def go_on_from(self, other: Model[Utterances]) -> None:
        assert isinstance(other, Recognizer)
        self._spell(other.tokens)
        super().go_on_from(other)

    def _spell(self, tokens: tuple[str, ...]) -> None:
        """Begin a head that tells these."""
        self.tokens = tokens
        network: Any = self.network
        head = nn.Linear(network.lm_head.in_features, len(self.tokens))
        # Not zeros, as other heads begin: CTC would long say nothing, and nothing else (docs/log.md).
        nn.init.normal_(head.weight, std=_HEAD)
        nn.init.zeros_(head.bias)
        head.bias.data[0] = _NOTHING
        network.lm_head = head.to(network.device)
        network.config.vocab_size = len(self.tokens)

    def log_probabilities(
        self, examples: Utterances, hidden: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (n, frames, tokens) float32 logarithms on the CPU, and (n,) int64: how many frames each clip has.

        `hidden` are the frames, (n, as many or more) bool, that the trunk does not see.
        """
        network: Any = self.network
        given, frames = self.inputs(examples), self.frames(examples)
        if hidden is None:
            logits = network(**given).logits
        else:
            blank = torch.zeros(network.config.hidden_size, device=network.device)
            trunk = AudioTrunk(network.base_model, self.rate)
            seen = hidden[:, : int(frames.max())]
            states = trunk(given["input_values"], send(frames, network.device), send(seen, network.device), blank)
            logits = network.lm_head(network.dropout(states))
        return logits.float().log_softmax(dim=2).cpu(), frames

    def frames(self, examples: Utterances) -> torch.Tensor:
        """Return (n,) int64: how many frames each clip has, one at least."""
        return torch.from_numpy(frames_of(self.network.config, examples.lengths.numpy())).clip(1)

    def losses(self, examples: Utterances, log_probabilities: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return (n,) float32 nats that each transcript costs; 0 where the clip has too few frames to say it.

        On the CPU: torch's CTC loss adds up its gradients in no fixed order on a GPU.
        """
        numbers = {token: number for number, token in enumerate(self.tokens)}
        numbers[" "] = numbers[BETWEEN]
        unknown = numbers[UNKNOWN]
        texts = examples.texts()
        targets = torch.tensor([numbers.get(letter, unknown) for text in texts for letter in text], dtype=torch.int64)
        lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
        return nn.functional.ctc_loss(
            log_probabilities.transpose(0, 1), targets, frames, lengths, reduction="none", zero_infinity=True
        )

    def loss(self, examples: Utterances, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean cost of a character, in nats, a scalar; frames are hidden as (seed, step) draws it."""
        mine = share(torch.arange(len(examples)), part or World())
        hidden, total = self._hidden(examples, seed, step), torch.zeros(())
        with self.learning(examples, seed, step, part):
            for chosen in by_length(examples.lengths[mine], _STEP_SAMPLES):  # a long clip would pad all others
                some = examples.take(mine[chosen])
                found, frames = self.log_probabilities(some, None if hidden is None else hidden[mine[chosen]])
                losses = self.losses(some, found, frames)
                total = total + (losses if some.weights is None else losses * some.weights).sum()
        return total / max(1, _characters(examples))

    def _hidden(self, examples: Utterances, seed: int, step: int) -> torch.Tensor | None:
        """Return (n, longest) bool: which frames are hidden; None for none."""
        if not self._params.mask_ratio:
            return None
        masks = MaskedUnitsParams(mask_ratio=self._params.mask_ratio, span=self._params.span)
        return hide(self.frames(examples), masks, generator(seed, step, "mask"))

    def answer(self, examples: Utterances, *, fast: bool = False) -> Transcribed:
        heard, cost = self.hear(examples, fast=fast)
        loss = cost / max(1, _characters(examples))
        return Transcribed(self.scores, examples.rows.numpy(), loss, examples.texts(), heard)

    def hear(self, examples: Utterances, *, fast: bool = False) -> tuple[list[Heard], float]:
        """Return what is heard in each clip, and what the transcripts cost in all, in nats."""
        self.eval()
        heard: dict[int, Heard] = {}
        total, seconds = 0.0, frame_samples(self.network.config) / self.rate
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in by_length(examples.lengths, self.at_once):
                some = examples.take(chosen)
                found, frames = self.log_probabilities(some)
                total += float(self.losses(some, found, frames).sum())
                for place, best, count in zip(chosen.tolist(), found.argmax(dim=2), frames.tolist(), strict=True):
                    heard[place] = decoded(best[:count].numpy(), self.tokens, seconds)
        return [heard[place] for place in range(len(examples))], total

    def save(self, folder: Path) -> dict[str, Any]:
        facts = super().save(folder)
        save_processor(self.tokens, folder)
        return facts


class Recognition(AudioProblem[Utterances, RecognitionParams]):
    """Learns what is said in a clip."""

    roles: ClassVar = {"audio": AudioColumn, LABEL: TranscriptLabel}
    examples, model = Utterances, Recognizer
    loss_unit = "nats a character"
    header = ("text", "words, and when they begin and end in seconds")
    amount = plural = "utterances"

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForCTC

        return AutoModelForCTC

    def settings(self, schema: Schema) -> dict[str, Any]:
        return {
            "vocab_size": len(SPECIAL), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
            "ctc_loss_reduction": "mean", "ctc_zero_infinity": True,
        }  # fmt: skip

    def read(self, dataset: Path, split: str, folder: Path) -> Utterances:
        return utterances.read(dataset, split, folder, self._params)

    def load(self, folder: Path, facts: dict[str, Any]) -> Recognizer:
        model = super().load(folder, facts)
        assert isinstance(model, Recognizer)
        model.tokens = read_vocabulary(folder, model.network.config.vocab_size)
        return model

    def ask(
        self, folder: Path, model: Model[Utterances], values: list[np.ndarray], schema: Schema
    ) -> list[dict[str, Any]]:
        """Return the `text` heard in each clip, and its `words`: each a `word`, `start` and `end` in seconds."""
        assert isinstance(model, Recognizer)
        clips = Clips.of(values, model.rate)
        asked = utterances.utterances(clips, [""] * len(values), np.arange(len(values)), folder, self._params)
        heard, _ = model.hear(asked)
        return [{"text": one.text, "words": [asdict(word) for word in one.words]} for one in heard]

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        words = ", ".join(f"{word['word']} {word['start']:.2f}-{word['end']:.2f}" for word in answer["words"])
        return answer["text"], words

    def present(self, answers: Transcribed, examples: Utterances, dataset: Path, out: Path, mistakes: int) -> None:
        present.write(answers, examples, dataset, out, mistakes, self._params)


def _characters(examples: Utterances) -> int:
    return sum(map(len, examples.texts()))
