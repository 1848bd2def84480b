"""What a person is shown of answers: questions with the places marked, and what simple rules would have answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from graftline.dataset import read_split
from graftline.problems.question_answering.answers import Found, QuestionAnswers
from graftline.problems.question_answering.scores import ANSWERED_F1, EXACT_MATCH, F1, words
from graftline.problems.sections import Section, write_sections
from graftline.values.span import Answer
from graftline.values.text import TextColumn

KINDS = (TextColumn, TextColumn)
_WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*")
_NOTHING = "(no answer)"
_AROUND = 60
"""Characters of the text that are shown on each side of the answers."""
_ROWS = 12
"""Questions answered right that are shown beside the mistakes."""


def write(answers: QuestionAnswers, dataset: Path, out: Path, mistakes: int) -> None:
    """Write the report's sections about the answers on the test rows."""
    test = read_split(dataset, "test", KINDS)
    asked = list(zip(*test.features, strict=True))
    write_sections([*_shown(answers, asked, test.label, mistakes), _baselines(answers, asked, dataset)], out)


def _shown(
    answers: QuestionAnswers, asked: Sequence[tuple[str, str]], right: Sequence[Sequence[Answer]], mistakes: int
) -> list[Section]:
    probable = np.array([one.probability for one in answers.found])
    order = np.argsort(-probable, kind="stable")
    wrong, good = (order[(answers.f1[order] < 1) == side] for side in (True, False))
    marks = "The right answer stands between [ ], the given one between \u00bb \u00ab."
    some = good[:: max(1, len(good) // _ROWS)][:_ROWS]
    parts = (
        (
            "Mistakes",
            f"{len(wrong):,} of {len(answers):,} questions are not answered right; the surest.",
            wrong[:mistakes],
        ),
        ("Right answers", f"Some of the {len(good):,} questions that are answered right.", some),
    )
    return [
        Section(
            title, f"{note} {marks}", header=("question", "text", "right", "given", "F1"),
            lines=tuple(_line(answers, place, asked[place], right[place]) for place in chosen.tolist()),
        )
        for title, note, chosen in parts
    ]  # fmt: skip


def _line(answers: QuestionAnswers, place: int, asked: tuple[str, str], right: Sequence[Answer]) -> tuple[str, ...]:
    question, text = asked
    given = answers.given[place]
    marked = _marked(text, right, answers.found[place].best if given else None)
    first = right[0].text if right else ""
    return question, marked, first or _NOTHING, given or _NOTHING, f"{answers.f1[place]:.2f}"


def _marked(text: str, right: Sequence[Answer], given: Answer | None) -> str:
    """Return the part of a text that holds the answers, with marks around them."""
    marks = [(answer, "[", "]") for answer in right[:1]] + ([(given, "\u00bb", "\u00ab")] if given else [])
    if not marks:
        return text[: 2 * _AROUND] + ("..." if len(text) > 2 * _AROUND else "")
    put: list[tuple[int, int, str]] = []
    for number, (answer, before, after) in enumerate(marks):
        put += [(answer.start + len(answer.text), number, after), (answer.start, 9 - number, before)]
    low = max(0, min(place for place, _, _ in put) - _AROUND)
    high = min(len(text), max(place for place, _, _ in put) + _AROUND)
    shown, at = ["..." if low else ""], low
    for place, _, mark in sorted(put):
        shown += [text[at:place], mark]
        at = place
    return "".join([*shown, text[at:high], "..." if high < len(text) else ""])


def _baselines(answers: QuestionAnswers, asked: Sequence[tuple[str, str]], dataset: Path) -> Section:
    known = _answer_words(dataset)
    rules: list[tuple[str, Callable[[str, str], str]]] = [
        ("no answer, always", lambda question, text: ""),
        ("the longest word that question and text share", _longest_common),
        ("the first word behind it that is in an answer of train", lambda q, t: _first_known(q, t, known)),
    ]
    lines = [("this model", *_measured(answers))]
    for name, rule in rules:
        found = [
            Found(Answer(given, 0) if (given := rule(*one)) else None, 1.0 if given else -1.0, 1.0) for one in asked
        ]
        lines.append((name, *_measured(replace(answers, found=found, threshold=0.0))))
    return Section(
        "Against simple rules", "What is answered without learning to read, on the same test rows.",
        header=("answers", F1.title, EXACT_MATCH.title, ANSWERED_F1.title), lines=tuple(lines),
    )  # fmt: skip


def _measured(answers: QuestionAnswers) -> tuple[str, ...]:
    return tuple(f"{answers.measured(score).value:.1%}" for score in (F1, EXACT_MATCH, ANSWERED_F1))


def _answer_words(dataset: Path) -> frozenset[str]:
    """Return the words of all answers of the training rows."""
    found = read_split(dataset, "train", KINDS)
    return frozenset(word for answers in found.label for answer in answers for word in words(answer.text))


def _common(question: str, text: str) -> re.Match[str] | None:
    """Return the longest word of the text that the question has too, at its last place: a text is about it there."""
    asked = {word.lower() for word in _WORD.findall(question)}
    shared = [word for word in _WORD.finditer(text) if word[0].lower() in asked]
    return max(shared, key=lambda word: (len(word[0]), word.start()), default=None)


def _longest_common(question: str, text: str) -> str:
    common = _common(question, text)
    return common[0] if common else ""


def _first_known(question: str, text: str, known: frozenset[str]) -> str:
    common = _common(question, text)
    behind = _WORD.finditer(text, common.end() if common else 0)
    return next((word[0] for word in behind if word[0].lower() in known), "")
