"""How near a text is to the one that was wanted: chrF, BLEU, and the placeholders and numbers that it keeps.

chrF: M. Popovic, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015. BLEU: K. Papineni et al., ACL
2002. A row's counts are sacrebleu's (M. Post, "A call for clarity in reporting BLEU scores", WMT 2018); a value is what
sacrebleu makes of their sum, here for many resamples at once and from 0 to 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graftline.score import Floats, Integers, RowStatistics, Score, ratio

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

_BETA_SQUARED = 4  # recall counts twice, in chrF as sacrebleu has it
_ORDERS = 4  # of BLEU's runs of words


def _chrf(sums: Floats) -> Floats:
    """Return the F score of the mean precision and recall over runs of 1 to 6 characters, (..., 18) to (...)."""
    written, wanted, both = (sums[..., place::3] for place in range(3))
    counted = (written > 0) & (wanted > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision = np.where(counted, both / np.maximum(written, 1), 0).sum(axis=-1) / orders
    recall = np.where(counted, both / np.maximum(wanted, 1), 0).sum(axis=-1) / orders
    below = _BETA_SQUARED * precision + recall
    score: Floats = np.where(below > 0, (1 + _BETA_SQUARED) * precision * recall / np.where(below > 0, below, 1), 0)
    return score


def _bleu(sums: Floats) -> Floats:
    """Return the mean of the precisions of 1 to 4 words, less where texts are too short, (..., 10) to (...).

    The n-th order without a match counts as half, a quarter, ... of one: sacrebleu's smoothing `exp`.
    """
    written, wanted = sums[..., 0], sums[..., 1]
    right, tried = sums[..., 2 : 2 + _ORDERS], sums[..., 2 + _ORDERS :]
    halvings = (right == 0).cumsum(axis=-1)
    matches = np.where(right > 0, right, 0.5**halvings)
    logarithm = np.log(matches / np.maximum(tried, 1)).mean(axis=-1)
    short = np.where(written < wanted, 1 - wanted / np.maximum(written, 1), 0)
    score: Floats = np.where(right.any(axis=-1) & tried.all(axis=-1), np.exp(logarithm + short), 0)
    return score


CHRF = Score("chrf", "chrF", _chrf)
BLEU = Score("bleu", "BLEU", _bleu)
KEPT = Score("kept", "placeholders and numbers kept", ratio)

_ITEM = re.compile(
    r"%\d*\$?[A-Za-z]\w*|%\d+"  # %PRODUCTNAME, %s, %1$s, %1
    r"|\$\[\w+\]|\$?\{[^{}\s]{1,50}\}"  # $[officename], ${name}, {0}
    r"|</?[A-Za-z][^<>]{0,100}>|&\w+;"  # <em>, </em>, &amp;
    r"|\d+"
)


def items(text: str) -> Counter[str]:
    """Return the placeholders, tags and runs of digits of a text."""
    return Counter(_ITEM.findall(text))


def chrf_rows(rows: Integers, written: Sequence[str], wanted: Sequence[str]) -> RowStatistics:
    """Return each row's runs of 1 to 6 characters: written, wanted, in both."""
    return _counted(CHRF, rows, _metric(CHRF), written, wanted)


def bleu_rows(rows: Integers, written: Sequence[str], wanted: Sequence[str]) -> RowStatistics:
    """Return each row's words, written and wanted, and its runs of 1 to 4 words: right, and written."""
    return _counted(BLEU, rows, _metric(BLEU), written, wanted)


def kept_rows(rows: Integers, read: Sequence[str], written: Sequence[str], wanted: Sequence[str]) -> RowStatistics:
    """Return how many placeholders and numbers of each row are kept, of those that both its texts have: (kept, all)."""
    to_keep = [items(one) & items(other) for one, other in zip(read, wanted, strict=True)]
    kept = [(keep & items(text)).total() for keep, text in zip(to_keep, written, strict=True)]
    return RowStatistics.of_units(KEPT, rows, [np.array(kept), np.array([keep.total() for keep in to_keep])])


def signatures() -> dict[str, str]:
    """Return what sacrebleu calls how it counts, by score: with it, a value can be compared with others."""
    found = {}
    for score in (CHRF, BLEU):
        metric = _metric(score)
        metric.corpus_score(["a"], [["a"]])  # which tells it the number of references
        found[score.name] = str(metric.get_signature())
    return found


def _metric(score: Score) -> Metric:
    from sacrebleu.metrics import bleu, chrf

    return chrf.CHRF() if score == CHRF else bleu.BLEU()


def _counted(
    score: Score, rows: Integers, metric: Metric, written: Sequence[str], wanted: Sequence[str]
) -> RowStatistics:
    # Not public, but the library's version is pinned, and a test holds the values against its public ones.
    counts = np.array(metric._extract_corpus_statistics(written, [wanted]), dtype=np.int64)
    return RowStatistics.of_units(score, rows, list(counts.T))
