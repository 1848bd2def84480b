"""Word and character error rate, and where two texts differ; without torch.

A rate is the substitutions, insertions and deletions of the shortest way from what is said to what was heard (V.
Levenshtein, 1966), over the words or characters of what is said: it can be above 1. jiwer finds the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graftline.score import Integers, RowStatistics, Score, ratio

if TYPE_CHECKING:
    from jiwer import AlignmentChunk

CER = Score("cer", "character error rate", ratio, higher=False, bounded=False)
WER = Score("wer", "word error rate", ratio, higher=False, bounded=False)


def error_rows(score: Score, rows: Integers, said: Sequence[str], heard: Sequence[str]) -> RowStatistics:
    """Return each row's edits, and its words or characters: spaces between words are characters too."""
    units = [text.split() if score == WER else list(text) for text in said]
    edits = [sum(map(_size, chunks)) for chunks in ways(score, said, heard)]
    return RowStatistics.of_units(score, rows, [np.array(edits), np.array([len(of) for of in units])])


def ways(score: Score, said: Sequence[str], heard: Sequence[str]) -> list[list[AlignmentChunk]]:
    """Return the shortest way from each text to the other, word by word or character by character."""
    import jiwer

    if not said:
        return []
    process = jiwer.process_words if score == WER else jiwer.process_characters
    return process(list(said), list(heard)).alignments


def _size(chunk: AlignmentChunk) -> int:
    """Return how many edits a part of the way is."""
    if chunk.type == "equal":
        return 0
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)


def marked(said: str, heard: str) -> str:
    """Return both texts as one: `please [-enter-] {+an tar+} your`, what is said and not heard, and the other way."""
    parts, one, other = [], said.split(), heard.split()
    for chunk in ways(WER, [said], [heard])[0]:
        lost = " ".join(one[chunk.ref_start_idx : chunk.ref_end_idx])
        found = " ".join(other[chunk.hyp_start_idx : chunk.hyp_end_idx])
        if chunk.type == "equal":
            parts.append(lost)
        else:
            parts += [f"[-{lost}-]"] if lost else []
            parts += [f"{{+{found}+}}"] if found else []
    return " ".join(parts)
