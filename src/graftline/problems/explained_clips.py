"""Answers about clips of sound and their parts, short pieces of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from graftline.problems.audio import AudioModel, ClipExamples
from graftline.problems.documents import by_length
from graftline.problems.explained import Attention, Explained, Floats, Line, Places, Sets, log_of_target
from graftline.problems.explained_images import blend, draw_seen, picture
from graftline.trunks.audio.trunk import frame_samples, frames_of, seen_samples
from graftline.trunks.layout import keeping_attention
from graftline.values.spectrum import spectrogram

_PIECE_SECONDS = 0.05
"""About as long as the sounds that speech is made of."""
_WINDOW = 4
"""Pieces that occlusion hides together; windows overlap by half."""
_GRADIENT_SAMPLES = 1 << 15
"""Samples, padding included, of clips whose lines are walked together: some points of each are computed at once."""
_SHAPE = (96, 192)
"""Height and width of a spectrogram, in pixels."""


@dataclass(frozen=True, eq=False)
class ExplainedClips(Explained):
    """One class a clip.

    A hidden piece is silence in what the model takes, which is at deviation 1: the rest is as loud as before.
    """

    part: ClassVar[str] = "piece"

    clips: ClipExamples
    targets: torch.Tensor
    """(n,) int64: which output is the answer."""
    size: int
    """Samples of a piece; the last one of a clip may have fewer."""

    @classmethod
    def of(cls, model: AudioModel[Any], clips: ClipExamples, targets: torch.Tensor, answers: list[str]) -> Self:
        """Return what explains the model's answers, of which `targets` are the outputs."""
        size = max(1, round(model.rate * _PIECE_SECONDS))
        parts = np.maximum(1, -(-clips.lengths.numpy() // size))
        return cls(model, parts, answers, "silence", clips, targets, size)

    def log_probabilities(self, places: Places, kept: Sets) -> Floats:
        found, chosen = np.empty(len(places)), torch.from_numpy(places)
        self.model.eval()
        with torch.inference_mode(), self.model.answering(fast=False):
            for batch in by_length(self.clips.lengths[chosen], self.model.at_once):
                inputs = self.model.inputs(self.clips.take(chosen[batch]))
                values = inputs["input_values"]
                shown = torch.from_numpy(np.repeat(kept[batch.numpy()], self.size, axis=1)).to(values.device)
                width = min(values.shape[1], shown.shape[1])
                values[:, :width] *= shown[:, :width]
                found[batch.numpy()] = self._told(inputs, self.targets[chosen[batch]]).cpu().numpy()
        return found

    def _told(self, inputs: dict[str, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        """Return (k,): the log-probability of each target."""
        outputs = self.model.network(**inputs).logits.float()
        return log_of_target(outputs, targets.to(outputs.device))

    def windows(self, place: int) -> Sets:
        count, step = int(self.parts[place]), _WINDOW // 2
        starts = [*range(0, max(1, count - _WINDOW), step), max(0, count - _WINDOW)]
        found = np.zeros((len(starts), self.most), dtype=bool)
        for number, start in enumerate(starts):
            found[number, start : min(start + _WINDOW, count)] = True
        return found

    def lines(self) -> Iterator[Line]:
        self.model.eval()
        for places in by_length(self.clips.lengths, min(self.model.at_once, _GRADIENT_SAMPLES)):
            inputs = self.model.inputs(self.clips.take(places))
            values, seen = inputs["input_values"], inputs["attention_mask"]

            def output(
                points: torch.Tensor, numbers: torch.Tensor,
                places: torch.Tensor = places, seen: torch.Tensor = seen,
            ) -> torch.Tensor:  # fmt: skip
                with self.model.answering(fast=False):
                    given = {"input_values": points, "attention_mask": seen[numbers]}
                    return self._told(given, self.targets[places[numbers.cpu()]])

            def by_part(found: torch.Tensor) -> Floats:
                inside = found[:, : self.most * self.size].double().cpu()
                whole = torch.nn.functional.pad(inside, (0, self.most * self.size - inside.shape[1]))
                sums: Floats = whole.unflatten(1, (self.most, self.size)).sum(dim=2).numpy()
                return sums

            yield Line(places.numpy(), torch.zeros_like(values), values, output, by_part)

    def attention(self) -> Iterator[Attention] | str:
        if not self._layers(torch.zeros(1, dtype=torch.int64)):
            return "the trunk shows no attention"
        return self._attention()

    def _attention(self) -> Iterator[Attention]:
        config = self.model.network.config
        hop, sees = frame_samples(config), seen_samples(config)
        for places in by_length(self.clips.lengths, min(self.model.at_once, _GRADIENT_SAMPLES)):
            mixed = [layer.float().mean(dim=1).cpu() for layer in self._layers(places)]
            frames = frames_of(config, self.clips.lengths[places].numpy()).clip(1)
            tokens = np.arange(mixed[0].shape[-1])
            inside = torch.from_numpy(tokens < frames[:, None])
            piece = np.minimum((tokens * hop + sees // 2) // self.size, self.parts[places.numpy()][:, None] - 1)

            def by_part(found: torch.Tensor, piece: NDArray[np.int64] = piece, inside: torch.Tensor = inside) -> Floats:
                sums = torch.zeros(len(piece), self.most, dtype=torch.float64)
                return sums.scatter_add_(1, torch.from_numpy(piece), (found * inside).double()).numpy()

            yield Attention(places.numpy(), mixed, inside / inside.sum(dim=1, keepdim=True), by_part)

    def _layers(self, places: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return each layer's (k, heads, frames, frames) attention; none of an architecture that keeps none."""
        network = self.model.network
        self.model.eval()
        with keeping_attention(network), torch.inference_mode():
            inputs = self.model.inputs(self.clips.take(places))
            return network.base_model(**inputs, output_attentions=True).attentions or ()

    def vectors(self) -> NDArray[np.float32]:
        """Return the mean over a clip's frames."""
        self.model.eval()
        network = self.model.network
        found = np.empty((len(self), network.config.hidden_size), dtype=np.float32)
        with torch.inference_mode(), self.model.answering(fast=False):
            for places in by_length(self.clips.lengths, self.model.at_once):
                states = network.base_model(**self.model.inputs(self.clips.take(places))).last_hidden_state.float()
                frames = torch.from_numpy(frames_of(network.config, self.clips.lengths[places].numpy()).clip(1))
                inside = (torch.arange(states.shape[1]) < frames[:, None])[..., None].to(states.device)
                found[places.numpy()] = ((states * inside).sum(dim=1) / inside.sum(dim=1)).cpu().numpy()
        return found

    def _times(self, place: int) -> list[tuple[float, float]]:
        """Return when each piece of a clip begins and ends, in seconds."""
        samples, rate = int(self.clips.lengths[place]), self.model.rate
        count = int(self.parts[place])
        return [(n * self.size / rate, min((n + 1) * self.size, samples) / rate) for n in range(count)]

    def told(self, place: int, found: Floats, count: int) -> str:
        times = self._times(place)
        order = np.argsort(-found[: len(times)], kind="stable")[:count].tolist()
        return ", ".join(f"{times[n][0]:.2f}-{times[n][1]:.2f} s ({found[n]:+.2f})" for n in order)

    def values(self, place: int, found: Floats) -> list[dict[str, float]]:
        """Return `start` and `end`, in seconds, and `value` of each piece."""
        times = self._times(place)
        numbers = found[: len(times)].tolist()
        return [{"start": a, "end": b, "value": value} for (a, b), value in zip(times, numbers, strict=True)]

    def _seen(self, place: int) -> NDArray[np.float32]:
        """Return (1, height, width): the spectrogram."""
        (wave,) = self.clips.take(torch.tensor([place])).waves()
        return spectrogram(wave, self.model.rate, *_SHAPE)[None].astype(np.float32) / np.float32(255)

    def _over(self, place: int, found: Floats) -> Floats:
        """Return (height, width): a clip's numbers over its spectrogram."""
        samples = int(self.clips.lengths[place])
        pieces = (np.arange(_SHAPE[1]) * samples // (_SHAPE[1] * self.size)).clip(max=int(self.parts[place]) - 1)
        return np.broadcast_to(found[pieces], _SHAPE)

    def marked(self, place: int, found: Floats) -> Markup:
        return picture(blend(self._seen(place), self._over(place, found)))

    def shown(self, place: int) -> Markup:
        return picture(blend(self._seen(place), np.zeros(_SHAPE)))

    def draw(self, places: Sequence[int], found: dict[str, Floats], path: Path) -> bool:
        named = {name: [self._over(place, of[place]) for place in places] for name, of in found.items()}
        seen, answers = [self._seen(place) for place in places], [self.answers[place] for place in places]
        draw_seen(seen, answers, named, path, "clip")
        return True
