"""Questions as a model reads them: beside windows of a text, of which each holds the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from graftline.errors import InputError
from graftline.problems.documents import documents_of
from graftline.problems.pairs import JoinedTexts, pair_frame
from graftline.problems.question_answering.parameters import QuestionAnsweringParams
from graftline.problems.transformer import longest
from graftline.text.tokenizer import load_tokenizer
from graftline.values.span import Answer

OUTSIDE = -1
_BETWEEN = b"\0"
"""Between right answers: no text holds it."""


@dataclass(frozen=True, kw_only=True)
class Windows(JoinedTexts):
    """Windows of texts, each behind its question; a row whose text is long has several.

    `labels` are (n, 2) int64: the places in the window of the first and last token of the first right answer that is
    whole in it, 0 and 0 (the mark in front of all) where none is.
    """

    begins: torch.Tensor
    """(tokens,) int32: bytes of the window's text before the token, `OUTSIDE` of question and marks."""
    ends: torch.Tensor
    """(tokens,) int32: bytes up to its end."""
    text: torch.Tensor
    """(bytes,) uint8: the texts of the windows in UTF-8, one after the other."""
    text_offsets: torch.Tensor
    """(n + 1,) int64: window i has `text[text_offsets[i]:text_offsets[i + 1]]`."""
    first: torch.Tensor
    """(n,) int32: characters of the whole text before the window's."""
    right: torch.Tensor
    """(bytes,) uint8: the right answers of each window's row, with a zero between two; nothing where there is none."""
    right_offsets: torch.Tensor
    """(n + 1,) int64."""

    @property
    def classes(self) -> None:
        return None

    @classmethod
    def token_arrays(cls) -> tuple[str, ...]:
        return (*super().token_arrays(), "begins", "ends")

    @classmethod
    def runs(cls) -> dict[str, tuple[str, ...]]:
        return {**super().runs(), "text_offsets": ("text",), "right_offsets": ("right",)}

    def units(self) -> dict[str, np.ndarray]:
        """Return the row of each question, and how many windows it was read in."""
        rows, counts = np.unique(self.rows.numpy(), return_counts=True)
        return {"row": rows, "windows": counts}

    @property
    def wholes(self) -> int:
        """Questions."""
        return len(np.unique(self.rows.numpy()))

    def take_wholes(self, chosen: torch.Tensor) -> Self:
        """Return all windows of the (k,) questions `chosen`, which count in the order of `units`."""
        rows = self.rows.numpy()
        order = np.argsort(rows, kind="stable")
        of = np.split(order, np.flatnonzero(np.diff(rows[order])) + 1)
        return self.take(torch.from_numpy(np.concatenate([of[place] for place in chosen.tolist()])))

    def inputs(self) -> list[bytes]:
        """Return what a model sees of each question: the tokens of all its windows."""
        seen: dict[int, bytes] = {}
        for row, window in zip(self.rows.tolist(), super().inputs(), strict=True):
            seen[row] = seen.get(row, b"") + window
        return [seen[row] for row in sorted(seen)]

    @property
    def askable(self) -> torch.Tensor:
        """(tokens,) bool: where an answer may begin or end, and the first mark, which says that there is none."""
        found = self.begins != OUTSIDE
        found[self.offsets[:-1]] = True
        return found

    def stretch(self, window: int, first: int, last: int) -> Answer:
        """Return the answer from a window's token at place `first` to the one at `last`."""
        start = int(self.offsets[window])
        begin, end = int(self.begins[start + first]), int(self.ends[start + last])
        text = self.text[int(self.text_offsets[window]) :][:end].numpy().tobytes()
        answer = text[begin:].decode()
        before = len(text[:begin].decode()) + len(answer) - len(answer.lstrip())
        return Answer(answer.strip(), int(self.first[window]) + before)

    def right_answers(self, window: int) -> list[str]:
        """Return the right answers of a window's row; none where there is none."""
        begin, end = self.right_offsets[window : window + 2].tolist()
        return [one.decode() for one in self.right[begin:end].numpy().tobytes().split(_BETWEEN) if one]


def windows(
    folder: Path, params: QuestionAnsweringParams, asked: Sequence[tuple[str, str]], rows: np.ndarray,
    answers: Sequence[Sequence[Answer]] | None = None,
) -> Windows:  # fmt: skip
    """Return questions and texts as the trunk or model in `folder` takes them.

    Raises:
        InputError: the model has too few positions for a question and a window that moves on.
    """
    tokenizer = load_tokenizer(folder)
    frame = pair_frame(tokenizer)
    most = longest(folder, params.max_tokens)
    if most - frame.marks - params.max_question_tokens <= params.stride:
        raise InputError(
            "finetune.head", f"max_question_tokens {params.max_question_tokens} and stride {params.stride}",
            expected=f"room for both and some of the text in the {most} tokens that the model reads",
            fix="lower them, or pretrain with a larger pretrain.trunk.max_length",
        )  # fmt: skip
    questions = tokenizer([question for question, _ in asked], add_special_tokens=False)["input_ids"]
    texts = list(dict.fromkeys(text for _, text in asked))
    found = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    known = dict(zip(texts, zip(found["input_ids"], found["offset_mapping"], strict=True), strict=True))
    made = _Made()
    for place, (_, text) in enumerate(asked):
        question = questions[place][: params.max_question_tokens]
        room = most - frame.marks - len(question)
        cut = len(questions[place]) - len(question)
        ids, offsets = known[text]
        right = None if answers is None else answers[place]
        for start in range(0, max(1, len(ids) - params.stride), room - params.stride):
            tokens, segments = frame.around(question, ids[start : start + room])
            before = len(frame.before) + len(question) + len(frame.between)
            made.add(int(rows[place]), cut, tokens, segments, before, text, offsets[start : start + room], right)
    return made.windows(labelled=answers is not None)


class _Made:
    """Collects windows."""

    def __init__(self) -> None:
        self._tokens: list[list[int]] = []
        self._rows: list[int] = []
        self._first: list[int] = []
        self._cut: list[int] = []
        self._segments: list[int] = []
        self._labels: list[tuple[int, int]] = []
        self._begins: list[np.ndarray] = []
        self._ends: list[np.ndarray] = []
        self._texts: list[bytes] = []
        self._right: list[bytes] = []

    def add(
        self, row: int, cut: int, tokens: list[int], segments: list[int], before: int, text: str,
        offsets: list[tuple[int, int]], right: Sequence[Answer] | None,
    ) -> None:  # fmt: skip
        """Take a window, in which `before` tokens stand before those of the text, which lie at `offsets` in it."""
        first = offsets[0][0] if offsets else 0
        part = text[first : offsets[-1][1]] if offsets else ""
        # A character's first byte: equal to its place where all is ASCII.
        places = np.array(offsets, dtype=np.int64).reshape(-1, 2) - first
        if not part.isascii():
            places = np.cumsum([0, *(len(character.encode()) for character in part)])[places]
        begins, ends = (np.full(len(tokens), OUTSIDE, dtype=np.int32) for _ in range(2))
        inside = slice(before, before + len(offsets))
        begins[inside], ends[inside] = places[:, 0], places[:, 1]
        self._tokens.append(tokens)
        self._rows.append(row)
        self._first.append(first)
        self._cut.append(cut)
        self._segments += segments
        self._begins.append(begins)
        self._ends.append(ends)
        self._texts.append(part.encode())
        self._right.append(_BETWEEN.join(answer.text.encode() for answer in right or ()))
        self._labels.append(_label(offsets, before, right or ()))

    def windows(self, *, labelled: bool) -> Windows:
        labels = np.array(self._labels, dtype=np.int64).reshape(-1, 2) if labelled else None
        arrays = documents_of(self._tokens, np.array(self._rows, dtype=np.int64), labels)
        text, text_offsets = _end_to_end(self._texts)
        right, right_offsets = _end_to_end(self._right)
        return Windows.from_arrays(
            {
                **arrays,
                "cut": np.array(self._cut, dtype=np.int32),
                "segments": np.array(self._segments, dtype=np.int32),
                "begins": np.concatenate(self._begins), "ends": np.concatenate(self._ends),
                "text": text, "text_offsets": text_offsets,
                "first": np.array(self._first, dtype=np.int32),
                "right": right, "right_offsets": right_offsets,
            }
        )  # fmt: skip


def _label(offsets: list[tuple[int, int]], before: int, right: Sequence[Answer]) -> tuple[int, int]:
    """Return the places in the window of the first and last token of the first right answer that stands whole in it.

    0 and 0 if none does.
    """
    for answer in right:
        start = answer.start + len(answer.text) - len(answer.text.lstrip())
        end = start + len(answer.text.strip())
        inside = [place for place, (begin, stop) in enumerate(offsets) if stop > start and begin < end]
        if inside and offsets[0][0] <= start and end <= offsets[-1][1]:
            return before + inside[0], before + inside[-1]
    return 0, 0


def _end_to_end(parts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return np.frombuffer(bytearray(b"".join(parts)), np.uint8), offsets
