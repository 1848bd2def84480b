"""Recommendation at its edges: many items, small vocabularies, nothing given."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from graftline.dataset import SCHEMA, Schema
from graftline.problems.recommendation import answers
from graftline.problems.recommendation import baselines as module
from graftline.problems.recommendation.answers import rank
from graftline.problems.recommendation.examples import UNKNOWN, Histories, of_questions
from graftline.problems.recommendation.scores import SCORES
from graftline.problems.recommendation.showing import _some
from graftline.trunks.items.vocabulary import Vocabulary, build_vocabulary
from graftline.values.items import Catalogue, ItemsColumn, catalogue_file


def vocabulary(items: int) -> Vocabulary:
    return Vocabulary(tuple(f"i{n}" for n in range(items)), (3,) * items, 2)


def asked(given: list[list[int]], out: list[list[int]]) -> Histories:
    whole = of_questions([a + b for a, b in zip(given, out, strict=True)])
    flags = [flag for a, b in zip(given, out, strict=True) for flag in [False] * len(a) + [True] * len(b)]
    return Histories(whole.ids, whole.offsets, whole.rows, asked=torch.tensor(flags, dtype=torch.bool))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a dataset of histories of three items with words."""
    (tmp_path / SCHEMA).write_text(json.dumps(Schema(ItemsColumn("items"), None).as_dict()))
    histories = pa.array([["i0", "i1"], ["i0", "i1", "i2"], ["i1", "i2"]], pa.list_(pa.string()))
    for split in ("train", "val", "test", "unlabelled"):
        pq.write_table(pa.table({"row": [0, 1, 2], "items": histories}), tmp_path / f"{split}.parquet")
    words = pa.table({"item": ["i0", "i1", "i2"], "words": [["red", "new"], ["red"], ["old"]]})
    pq.write_table(words, tmp_path / catalogue_file("items"))
    return tmp_path


@pytest.mark.parametrize(("limit", "told"), [("MOST_ITEMS", ["EASE", "Words alike"]), ("_MOST_WORDS", ["Words alike"])])
def test_what_needs_too_large_a_matrix_is_left_out_and_said_so(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, limit: str, told: list[str]
) -> None:
    test = asked([[0], [1]], [[1], [2]])
    found, left_out = module.baselines(dataset, test, vocabulary(3))
    assert [one.name for one in found] == ["EASE", "popularity", "words alike"] and not left_out
    monkeypatch.setattr(module, limit, 2)
    found, left_out = module.baselines(dataset, test, vocabulary(3))
    assert [line.partition(" is left out")[0] for line in left_out] == told
    assert not {name.lower() for name in told} & {one.name.lower() for one in found}


def test_the_vocabulary_has_the_names_of_its_items_alone(tmp_path: Path) -> None:
    catalogue = Catalogue({"a": "Tea", "b": "Rye", "c": "Oil"}, {})
    made = build_vocabulary(
        [["a", "b"], ["a", "b"], ["a", "c"]], catalogue, tmp_path, min_users=2, words=False, ordered=False
    )
    assert (made.items, made.names) == (("a", "b"), {"a": "Tea", "b": "Rye"})


def test_what_is_given_is_recommended_to_nobody_however_few_items_there_are() -> None:
    test, known = asked([[0, 1], [2]], [[2], [0]]), vocabulary(3)
    found = rank(lambda part: torch.zeros(len(part), 3), test, known, SCORES, top=3)
    assert [sorted(row) for row in found.top.tolist()] == [[UNKNOWN, UNKNOWN, 2], [UNKNOWN, 0, 1]]
    schema = Schema(ItemsColumn("items"), None)
    assert [sorted(row) for row in found.columns(schema)["recommended"].to_pylist()] == [["i2"], ["i0", "i1"]]
    assert [sorted(line[2].split(", ")) for line in _some(found, test, 2).lines] == [["i2 ✓"], ["i0 ✓", "i1"]]


def test_histories_of_which_nothing_is_known_come_in_bounded_batches_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_RANKED", 8 * 3 * 2)
    rows = []

    def scorer(part: Histories) -> torch.Tensor:
        rows.append(len(part))
        return torch.zeros(len(part), 3)

    rank(scorer, of_questions([[], [], [], [], []]), vocabulary(3), SCORES)
    assert rows == [2, 2, 1]
