"""Answers to questions, explained: the stretch's first and last token, by the words of question and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graftline.problems.explained_texts import ExplainedTexts, Laid, sides
from graftline.problems.pairs import pair_frame
from graftline.problems.question_answering.windows import OUTSIDE, Windows


@dataclass(frozen=True, eq=False)
class ExplainedAnswers(ExplainedTexts):
    """One stretch a window; `targets` are (n, 2) its first and last token, 0 and 0 where there is none."""

    @staticmethod
    def told_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return (k,): of (k, width, 2) logits the log-probability that the stretch begins and ends there."""
        found: torch.Tensor = outputs.log_softmax(dim=1).gather(1, targets[:, None])[:, 0].sum(dim=1)
        return found

    def readers(self, mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the shares of the two tokens, half each."""
        return torch.nn.functional.one_hot(self.targets[places], mask.shape[1]).float().mean(dim=1)


def explained_answers(
    model: Any, examples: Windows, asked: Sequence[tuple[str, str]], targets: torch.Tensor, answers: list[str]
) -> ExplainedAnswers:
    """Return what explains an answer a window: of questions and whole texts, of which the windows are a part."""
    frame = pair_frame(model.tokenizer)
    questions, texts = (sides(model.tokenizer, [pair[number] for pair in asked]) for number in (0, 1))
    laid = []
    for place, (question, text) in enumerate(zip(questions, texts, strict=True)):
        tokens = slice(*examples.offsets[place : place + 2].tolist())
        count = int((examples.begins[tokens] != OUTSIDE).sum())
        before = len(examples.begins[tokens]) - frame.marks - count
        start = int(np.searchsorted(text.begins, int(examples.first[place])))
        both = (question.seen(before), text.seen(count, start))
        laid.append(Laid(both, len(frame.before), len(frame.between)))
    return ExplainedAnswers.of(model, examples, laid, targets, answers)
