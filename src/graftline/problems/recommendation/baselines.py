"""What a recommender is to be compared with: popularity, EASE, and for cold items the likeness of words.

They learn from the pool, as pretraining does, and rank all items as the model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from graftline.dataset import UNLABELLED, read_schema
from graftline.problems.recommendation.answers import Rankings, Scorer, rank
from graftline.problems.recommendation.examples import Histories, read
from graftline.problems.recommendation.scores import SCORES
from graftline.trunks.items.vocabulary import Vocabulary
from graftline.values.items import ItemsColumn, open_catalogue

EASE, POPULARITY, WORDS = "EASE", "popularity", "words alike"
MOST_ITEMS = 8000
"""Items up to which EASE is computed: its matrix is inverted, in some 30 s of one CPU. Likewise the likeness of words,
a matrix as large."""
_MOST_WORDS = 20_000
"""Different words up to which their likeness is computed: with MOST_ITEMS a table of 640 MB."""
_PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)
"""What EASE's ridge may be; the best on val is taken."""


@dataclass(frozen=True)
class Baseline:
    """A ranking without a trained network."""

    name: str
    how: str
    """In a few words, for people."""
    rankings: Rankings


def baselines(dataset: Path, test: Histories, vocabulary: Vocabulary) -> tuple[list[Baseline], list[str]]:
    """Return the baselines' rankings of the test examples, and which are left out, each in a sentence."""
    popular = torch.from_numpy(vocabulary.counts).float()
    found = [
        _baseline(POPULARITY, "the most frequent first", lambda part: popular.repeat(len(part), 1), test, vocabulary)
    ]
    left_out = []
    if len(vocabulary) <= MOST_ITEMS:
        weights, penalty = fit_ease(read(dataset, UNLABELLED, vocabulary), read(dataset, "val", vocabulary), vocabulary)
        how = f"a linear model in closed form, ridge {penalty:g}"
        found.insert(0, _baseline(EASE, how, _linear(weights), test, vocabulary))
    else:
        left_out.append(f"EASE is left out: it is computed up to {MOST_ITEMS:,} items, here are {len(vocabulary):,}.")
    column = read_schema(dataset).only(ItemsColumn)
    words = open_catalogue(dataset, column.name).words
    bags = [words.get(item, ()) for item in vocabulary.items]
    different = len({word for bag in bags for word in bag})
    if len(vocabulary) <= MOST_ITEMS and 0 < different <= _MOST_WORDS:
        how = "the cosine of their words with those of what is given"
        found.append(_baseline(WORDS, how, _linear(_likeness(bags)), test, vocabulary))
    elif different:
        left_out.append(
            f"{WORDS.capitalize()} is left out: it is computed up to {MOST_ITEMS:,} items with {_MOST_WORDS:,} words, "
            f"here are {len(vocabulary):,} with {different:,}."
        )
    return found, left_out


def _baseline(name: str, how: str, scorer: Scorer, test: Histories, vocabulary: Vocabulary) -> Baseline:
    return Baseline(name, how, rank(scorer, test, vocabulary, SCORES))


def fit_ease(pool: Histories, val: Histories, vocabulary: Vocabulary) -> tuple[torch.Tensor, float]:
    """Return the (items, items) weights of EASE, and the ridge that was best on val by NDCG@10.

    H. Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019: of all linear models without a diagonal
    the one of least squares, B = I - P / diag(P) with P = (X'X + ridge)^-1.
    """
    seen = torch.zeros(len(vocabulary), len(vocabulary), dtype=torch.float64)
    for part in range(0, len(pool), 4096):
        some = _table(pool.take(torch.arange(part, min(part + 4096, len(pool)))), len(vocabulary)).double()
        seen += some.T @ some
    best: tuple[float, torch.Tensor, float] | None = None
    for penalty in _PENALTIES:
        inverse = torch.linalg.inv(seen + penalty * torch.eye(len(vocabulary), dtype=torch.float64))
        weights = (-inverse / inverse.diagonal()).fill_diagonal_(0).float()
        value = rank(_linear(weights), val, vocabulary, SCORES).value
        if best is None or value > best[0]:
            best = value, weights, penalty
        else:  # one hill: a larger ridge is no better any more
            break
    assert best is not None
    return best[1], best[2]


def _linear(weights: torch.Tensor) -> Scorer:
    return lambda part: _table(part, len(weights)) @ weights


def _table(examples: Histories, items: int) -> torch.Tensor:
    """Return (n, items) float32: 1 for what is given."""
    table = torch.zeros(len(examples), items)
    for row, given in enumerate(examples.given()):
        table[row, given] = 1.0
    return table


def _likeness(bags: Sequence[Sequence[str]]) -> torch.Tensor:
    """Return (items, items): the cosine of their words, rare ones weighing more (tf-idf)."""
    known = sorted({word for bag in bags for word in bag})
    number = {word: place for place, word in enumerate(known)}
    table = torch.zeros(len(bags), len(known))
    for row, bag in enumerate(bags):
        table[row, [number[word] for word in bag]] = 1.0
    table *= torch.log(len(bags) / (1 + table.sum(dim=0)))
    table = torch.nn.functional.normalize(table)
    return table @ table.T
