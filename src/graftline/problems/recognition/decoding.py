"""From the probabilities of each frame to a text and when its words are said.

CTC says a character in one frame or several, and nothing in the others; two equal ones in a row have a frame of nothing
between them (A. Graves et al., "Connectionist temporal classification", ICML 2006). The text is that of the most
probable character of each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from graftline.problems.recognition.spelling import BETWEEN


@dataclass(frozen=True)
class Word:
    """A word, and when it is said."""

    word: str
    start: float
    """Seconds from the clip's beginning to the first frame that says some of it."""
    end: float
    """To the end of the last one."""


@dataclass(frozen=True)
class Heard:
    """What was heard in a clip."""

    text: str
    words: list[Word]


def decoded(best: np.ndarray, tokens: Sequence[str], frame: float) -> Heard:
    """Return what the most probable token of each frame says.

    Args:
        best: (frames,) token numbers; 0 says nothing.
        tokens: by number.
        frame: seconds from one frame to the next.
    """
    bounds = np.flatnonzero(np.diff(best, prepend=-1, append=-1)).tolist()  # where each run of one token begins
    said = [
        (" " if tokens[number] == BETWEEN else tokens[number], start, end)
        for start, end in pairwise(bounds)
        if (number := int(best[start]))
    ]
    words: list[Word] = []
    begun: list[tuple[str, int, int]] = []
    for one in [*said, (" ", 0, 0)]:
        if one[0] != " ":
            begun.append(one)
        elif begun:
            word = "".join(letter for letter, _, _ in begun)
            words.append(Word(word, round(begun[0][1] * frame, 3), round(begun[-1][2] * frame, 3)))
            begun = []
    return Heard("".join(letter for letter, _, _ in said).strip(), words)
