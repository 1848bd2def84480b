"""Exact match and F1 of answers, as SQuAD defines them, and how well "no answer" is told; without torch.

P. Rajpurkar et al., "SQuAD: 100,000+ questions for machine comprehension of text", EMNLP 2016, section 6.1, and for
questions without an answer "Know what you don't know", ACL 2018: an answer counts by its words, in lower case, without
punctuation and the articles `a`, `an`, `the`; of several right answers by the one that is nearest.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from graftline.score import Score, ratio

F1 = Score("f1", "F1 of the answers' words", ratio)
EXACT_MATCH = Score("exact_match", "exact match of answers", ratio)
ANSWERED_F1 = Score("answered_f1", "F1 where there is an answer", ratio)
NO_ANSWER = Score("no_answer_auroc", "area under the ROC curve of 'no answer'")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(answer: str) -> list[str]:
    """Return what counts of an answer."""
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()


def exact_match(answer: str, right: Sequence[str]) -> float:
    """Return 1 if the answer has the words of one of the right ones, else 0; no answer is the empty one."""
    return max(float(words(answer) == words(one)) for one in _counted(right))


def f1(answer: str, right: Sequence[str]) -> float:
    """Return the harmonic mean of the shares of words that the answer has in common with the nearest right one."""
    return max(_f1(words(answer), words(one)) for one in _counted(right))


def _counted(right: Sequence[str]) -> Sequence[str]:
    """Return the right answers of which something counts; the empty one if there are none."""
    return [one for one in right if words(one)] or [""]


def _f1(one: list[str], other: list[str]) -> float:
    if not one or not other:
        return float(one == other)
    common = (Counter(one) & Counter(other)).total()
    return 2 * common / (len(one) + len(other))
