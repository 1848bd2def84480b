"""Extractive question answering: where in a text the answer begins and ends, by transformers' own head on the trunk.

The answer is the stretch whose first and last token have the largest sum of logits, over all windows of the text; that
there is none is the sum at the mark in front, of the window where it is smallest (J. Devlin et al., 2019, section 4.3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from graftline.dataset import Schema, read_split
from graftline.errors import InputError
from graftline.learning.device import send
from graftline.problems.documents import by_length, padded, token_positions
from graftline.problems.groups import Groups
from graftline.problems.outputs import zero_head
from graftline.problems.pairs import JoinedTextModel, pairs_of
from graftline.problems.problem import LABEL, Model
from graftline.problems.question_answering import present
from graftline.problems.question_answering.answers import Found, QuestionAnswers, best_threshold, text_of
from graftline.problems.question_answering.explained import ExplainedAnswers, explained_answers
from graftline.problems.question_answering.parameters import QuestionAnsweringParams
from graftline.problems.question_answering.windows import Windows, windows
from graftline.problems.texts import TextProblem, check_objective
from graftline.problems.transformer import LabelledText, TextModel
from graftline.problems.weighing import weighed
from graftline.values.column import Question, Questions
from graftline.values.span import SpanLabel
from graftline.values.text import TextColumn

KINDS = (TextColumn, TextColumn)
_THRESHOLD = "threshold"
_NEVER = -1e9
"""A logit of what cannot be; a sum of two is still far from the end of float32."""


class QuestionAnswerer(JoinedTextModel[Windows], LabelledText[Windows]):
    """Windows to (n, width, 2) logits: that the answer begins, and that it ends, at each token."""

    narrow_on_cpu: ClassVar[bool] = False  # windows of many lengths: what tiles gain, casting and new kernels lose

    def __init__(self, network: Any, tokenizer: Any, new: frozenset[str], params: QuestionAnsweringParams) -> None:
        super().__init__(network, tokenizer, new, params)
        self.threshold = 0.0
        self._longest = params.max_answer_tokens

    def forward(self, documents: Windows) -> torch.Tensor:
        found = self.network(**self.inputs(documents))
        logits = torch.stack([found.start_logits, found.end_logits], dim=-1).float()
        askable = padded(documents.askable, documents.lengths, 0, logits.shape[1]).bool()
        return logits.masked_fill(~send(askable, logits.device)[..., None], _NEVER)

    def criterion(self, outputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        losses = nn.functional.cross_entropy(outputs, labels, reduction="none").mean(dim=1)
        return losses.mean() if weights is None else weighed(losses, weights)

    def logits(self, examples: Windows, *, fast: bool = False) -> torch.Tensor:
        """Return (tokens, 2) float32 on the CPU, in the tokens' order; what cannot be an answer's end is low."""
        self.eval()
        found = torch.empty(len(examples.ids), 2)
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in by_length(examples.lengths):
                lengths = examples.lengths[chosen]
                tokens = token_positions(examples.offsets[chosen], lengths)
                outputs = self(examples.take(chosen)).cpu()
                found[tokens] = outputs[torch.arange(outputs.shape[1]) < lengths[:, None]]
        return found

    def find(self, examples: Windows, *, fast: bool = False) -> tuple[list[Found], float]:
        """Return what is found of each row, in ascending order of rows, and the mean loss of windows with labels."""
        logits = self.logits(examples, fast=fast)
        best, places, empty, lost = _best_of_windows(logits, examples, self._longest)
        rows = examples.rows.numpy()
        found = []
        order = np.argsort(rows, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(rows[order])) + 1):
            window = int(mine[best[mine].argmax()])
            there = best[window] > _NEVER / 2
            answer = examples.stretch(window, *places[window]) if there else None
            found.append(
                Found(
                    answer if answer is not None and answer.text else None,
                    float(best[window] - empty[mine].min()) if there else _NEVER,
                    float(np.exp(best[window] - lost[window])) if there else 0.0,
                )
            )
        return found, float("nan") if examples.labels is None else _mean_loss(logits, examples, lost)

    def answer(self, examples: Windows, *, fast: bool = False) -> QuestionAnswers:
        found, loss = self.find(examples, fast=fast)
        rows, first = np.unique(examples.rows.numpy(), return_index=True)
        right = [examples.right_answers(int(place)) for place in first]
        return QuestionAnswers(self.scores, rows, loss, found, right, self.threshold)

    def calibrate(self, val: Windows, groups: Groups | None = None) -> None:
        """Choose the margin from which on an answer is given: the one that is worth most on what was held out."""
        self.threshold = best_threshold(self.answer(val))

    def save(self, folder: Path) -> dict[str, Any]:
        return {**super().save(folder), _THRESHOLD: self.threshold}

    def restore(self, facts: dict[str, Any]) -> Self:
        """Take what `save` returned. Raises KeyError, TypeError or ValueError."""
        self.threshold = float(facts[_THRESHOLD])
        return self


class QuestionAnswering(TextProblem[Windows, QuestionAnsweringParams]):
    """Learns where in a text the answer to a question stands."""

    roles: ClassVar = {"question": TextColumn, "context": TextColumn, LABEL: SpanLabel}
    examples, model = Windows, QuestionAnswerer
    plural, amount = "questions", "questions"
    spoiled = (0,)  # the label says where the answer stands in the second text
    header = ("question", "answer", "at", "probability")

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForQuestionAnswering

        return AutoModelForQuestionAnswering

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> TextModel[Windows]:
        # The tokens of causal_lm see nothing behind them, and transformers has no such head on all others.
        check_objective(trunk, "masked_lm")
        model = super().build(trunk, schema, scratch=scratch)
        zero_head(model.network, "classifier", "qa_outputs")
        return model

    def load(self, folder: Path, facts: dict[str, Any]) -> QuestionAnswerer:
        model = super().load(folder, facts)
        assert isinstance(model, QuestionAnswerer)
        return model.restore(facts)

    def read(self, dataset: Path, split: str, folder: Path) -> Windows:
        found = read_split(dataset, split, KINDS)
        return windows(folder, self._params, list(zip(*found.features, strict=True)), found.rows, found.label)

    def present(self, answers: QuestionAnswers, examples: Windows, dataset: Path, out: Path, mistakes: int) -> None:
        present.write(answers, dataset, out, mistakes)

    def questions(self, schema: Schema, paths: list[Path], texts: list[str]) -> Questions:
        """Return rows of files; or with texts, each of them as a question about the whole text of each .txt file.

        Without files, the first of two texts is the question and the second what it is about.
        """
        if not texts:
            return super().questions(schema, paths, texts)
        if not paths:
            if len(texts) != 2:
                raise InputError(
                    "--text", f"{len(texts)} texts and no file", expected="a question and the text that it is about",
                    fix="give both by --text, or the text as a .txt file",
                )  # fmt: skip
            return Questions([Question("--text", tuple(texts))])
        columns = schema.features
        about = [(path, _whole(path)) for path in paths]
        return Questions(
            [
                Question(str(path), (columns[0].question("--text", text), columns[1].question(str(path), whole)))
                for path, whole in about
                for text in texts
            ]
        )

    def ask(self, folder: Path, model: Model[Windows], values: list[Any], schema: Schema) -> list[dict[str, Any]]:
        """Return `answer` (None if there is none), `start` and `end` in characters, and `probability` of each question.

        `best` is the best stretch, whether it is given as the answer or not; `margin` says by how much it is better
        than no answer, and `threshold` from where on it is given. `cut`: tokens of the question that were not seen.
        """
        assert isinstance(model, QuestionAnswerer)
        asked = pairs_of(values)
        examples = windows(folder, self._params, asked, np.arange(len(asked)))
        _, first = np.unique(examples.rows.numpy(), return_index=True)
        assert examples.cut is not None
        cut, counts = examples.cut.numpy()[first], examples.units()["windows"]
        found, _ = model.find(examples)
        return [
            {"question": question, **_told(one, model.threshold), "windows": int(count), "cut": int(lost)}
            for (question, _), one, count, lost in zip(asked, found, counts, cut, strict=True)
        ]

    def explained(self, folder: Path, model: Model[Windows], values: list[Any], schema: Schema) -> ExplainedAnswers:
        """Return what explains each answer, in the window that it is of; or that there is none."""
        assert isinstance(model, QuestionAnswerer)
        asked = pairs_of(values)
        examples = windows(folder, self._params, asked, np.arange(len(asked)))
        found, _ = model.find(examples)
        best, places, _, _ = _best_of_windows(model.logits(examples), examples, self._params.max_answer_tokens)
        rows = examples.rows.numpy()
        chosen = np.array(
            [mine[best[mine].argmax()] for mine in (np.flatnonzero(rows == n) for n in range(len(asked)))]
        )
        given = [text_of(one, model.threshold) for one in found]
        targets = [places[window] if answer else (0, 0) for window, answer in zip(chosen, given, strict=True)]
        return explained_answers(
            model, examples.take(torch.from_numpy(chosen)), asked, torch.tensor(targets),
            [answer or "(no answer)" for answer in given],
        )  # fmt: skip

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        given = answer["answer"]
        if given is None:
            return answer["question"], "(no answer)", "", ""
        return answer["question"], given, str(answer["start"]), f"{answer['probability']:.4f}"


def _told(found: Found, threshold: float) -> dict[str, Any]:
    given, best = text_of(found, threshold), found.best
    return {
        "answer": given or None,
        "start": best.start if best and given else None,
        "end": best.start + len(best.text) if best and given else None,
        "probability": found.probability if given else None,
        "best": best.text if best else None,
        "margin": found.margin,
        "threshold": threshold,
    }


def _whole(path: Path) -> str:
    """Return the text of a file. Raises InputError."""
    if path.suffix.lower() != ".txt":
        raise InputError(path, f"a file of type '{path.suffix}' beside --text", expected="a .txt file to ask about")
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), fix="check the path") from None
    except UnicodeDecodeError:
        raise InputError(path, "not UTF-8", fix="save the file as UTF-8") from None
    if not text.strip():
        raise InputError(path, "an empty text", fix="leave it out")
    return text


def _best_of_windows(
    logits: torch.Tensor, examples: Windows, longest: int
) -> tuple[np.ndarray, list[tuple[int, int]], np.ndarray, np.ndarray]:
    """Return of each window the best stretch's sum of logits, its first and last token, the sum at the mark in front,
    and the logarithm of what both sums are parts of.

    Args:
        logits: (tokens, 2).
        examples: the windows.
        longest: tokens of a stretch, at most.
    """
    best, empty, lost = (np.empty(len(examples)) for _ in range(3))
    places: list[tuple[int, int]] = [(0, 0)] * len(examples)
    for chosen in by_length(examples.lengths):
        lengths = examples.lengths[chosen]
        tokens = token_positions(examples.offsets[chosen], lengths)
        width, these = int(lengths.max()), chosen.numpy()
        starts, ends = torch.full((2, len(chosen), width), 2 * _NEVER)
        inside = torch.arange(width) < lengths[:, None]
        starts[inside], ends[inside] = logits[tokens].unbind(dim=1)
        lost[these] = (starts.logsumexp(dim=1) + ends.logsumexp(dim=1)).numpy()
        empty[these] = (starts[:, 0] + ends[:, 0]).numpy()
        starts[:, 0] = ends[:, 0] = 2 * _NEVER
        after = nn.functional.pad(ends, (0, longest - 1), value=2 * _NEVER).unfold(1, longest, 1)
        far, steps = after.max(dim=2)  # (n, width): the best end from each start on
        sums, begin = (starts + far).max(dim=1)
        best[these] = sums.numpy()
        last = begin + steps.gather(1, begin[:, None])[:, 0]
        for window, first, end in zip(chosen.tolist(), begin.tolist(), last.tolist(), strict=True):
            places[window] = first, end
    return best, places, empty, lost


def _mean_loss(logits: torch.Tensor, examples: Windows, lost: np.ndarray) -> float:
    """Return the mean cross entropy of begin and end, over the windows."""
    assert examples.labels is not None
    at = examples.offsets[:-1, None] + examples.labels
    right = logits[at[:, 0], 0] + logits[at[:, 1], 1]
    return float((torch.from_numpy(lost) - right).mean() / 2)
