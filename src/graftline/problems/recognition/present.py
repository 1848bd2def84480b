"""What a person is shown of recognition: where texts differ, errors by length, and when words are said."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from graftline.dataset import read_schema
from graftline.learning.randomness import generator
from graftline.plots import ACCENT, INK, cut, figure, plain, save
from graftline.problems.recognition.answers import Transcribed
from graftline.problems.recognition.parameters import RecognitionParams
from graftline.problems.recognition.scores import CER, WER, marked
from graftline.problems.recognition.utterances import Utterances
from graftline.problems.sections import Section, write_sections
from graftline.score import ratio
from graftline.values.audio import AudioColumn
from graftline.values.spectrum import power

_LENGTHS = (0, 1, 2, 3, 6, 11, 1 << 30)
"""Where the groups of utterances by their words begin; those of the first say nothing."""
_SHOWN = 4
"""Clips that are drawn with their words."""
_SECONDS = 6.0
"""How much of a clip is drawn."""
_DECIBELS = 60.0
"""How far below the loudest place of a spectrogram white is."""


def write(
    answers: Transcribed, examples: Utterances, dataset: Path, out: Path, mistakes: int, params: RecognitionParams
) -> None:
    """Write the report's sections about the answers on the test rows, and the picture of some of them."""
    _plot(answers, examples, read_schema(dataset).only(AudioColumn).rate, out / "words.png")
    pictures = Section(
        "When words are said",
        f"The first {_SECONDS:g} seconds of some test clips: loud places are dark, words stand where they were heard. "
        "Above each picture what is said.",
        "words.png", "Spectrograms of test clips with the words that were heard",
    )  # fmt: skip
    write_sections([_by_length(answers, examples, params), _worst(answers, mistakes), pictures], out)


def _by_length(answers: Transcribed, examples: Utterances, params: RecognitionParams) -> Section:
    measured = [answers.measured(score) for score in (WER, CER)]
    words = measured[0].statistics[:, 1]
    lines = []
    for first, last in pairwise(_LENGTHS):
        inside = (words >= first) & (words < last)
        if inside.any():
            upto = f" to {last - 1}" if last > first + 1 else ""
            name = f"{first} or more" if last == _LENGTHS[-1] else f"{first}{upto}"
            if first:
                errors = [f"{float(ratio(of.weighed[inside].sum(axis=0))):.1%}" for of in measured]
            else:
                errors = [f"{int(of.statistics[inside, 0].sum()):,} heard" for of in measured]
            lines.append((name, f"{int(inside.sum()):,}", *errors))
    unsayable = examples.lost()
    case = {"lower": "in small letters", "upper": "in capital letters"}.get(params.case, "in its own letters")
    marks = ", without punctuation" if params.punctuation == "drop" else ""
    bare = unsayable.punctuation_only
    silent = f"; {bare:,} have no letter or digit, and count as silence" if bare else ""
    note = (
        f"What is said is compared {case}{marks}: that changed {unsayable.respelled:,} of the {len(answers):,} test "
        f"transcripts{silent}. {unsayable.long:,} are longer than the frames of their clips can say; "
        f"{unsayable.unknown:,} have characters that no training transcript has. All count. Where nothing is said, the "
        "words and characters are told that were heard all the same."
    )
    return Section(
        "Errors by length", note, header=("words that are said", "utterances", WER.title, CER.title), lines=tuple(lines)
    )


def _worst(answers: Transcribed, count: int) -> Section:
    edits = answers.measured(WER).statistics[:, 0]
    order = np.argsort(-edits, kind="stable")
    wrong = [int(place) for place in order if edits[place] > 0][:count]
    right = int((edits == 0).sum())
    note = (
        f"{right:,} of {len(answers):,} utterances are heard word by word; those with the most edits. "
        "[-What is said-] and not heard, {+what is heard+} and not said."
    )
    lines = tuple((marked(answers.said[place], answers.texts[place]), f"{int(edits[place])}") for place in wrong)
    return Section("Furthest from what is said", note, header=("said and heard", "edits of words"), lines=lines)


def _plot(answers: Transcribed, examples: Utterances, rate: int, path: Path) -> None:
    """Draw some clips, at random."""
    import torch

    chosen = torch.randperm(len(answers), generator=generator(0, 0, "shown"))[:_SHOWN].sort().values.tolist()
    waves = examples.waves()
    plot = figure(9.0, 1.9 * len(chosen))
    for axes, place in zip(plot.subplots(len(chosen), 1, squeeze=False)[:, 0], chosen, strict=True):
        samples = waves[place][: int(_SECONDS * rate)]
        seconds = len(samples) / rate
        levels = 10 * np.log10(power(samples, rate).T + 1e-20)
        shades = (levels - levels.max() + _DECIBELS).clip(0) / _DECIBELS
        axes.imshow(
            1 - shades, cmap="gray", vmin=0, vmax=1, origin="lower", aspect="auto", extent=(0, seconds, 0, rate / 2000)
        )
        axes.set(xlabel="seconds", ylabel="kHz", title=plain(cut(answers.said[place], 90)))
        axes.grid(visible=False)
        for word in answers.heard[place].words:
            if word.start < seconds:
                axes.axvspan(word.start, min(word.end, seconds), color=ACCENT, alpha=0.2, linewidth=0)
                axes.text(word.start, rate / 2000, plain(word.word), color=INK, fontsize=8, va="top", clip_on=True)
    save(plot, path)
