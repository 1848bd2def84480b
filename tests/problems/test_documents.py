"""Documents as tokens: taking some, padding, and batches with little padding that are a pure function of the step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftline.problems.documents import Documents, by_length, documents_of, padded
from graftline.problems.token_classification.problem import Sentences


def documents(count: int, longest: int = 60) -> Documents:
    lengths = np.random.default_rng(0).integers(1, longest, count)
    encoded = [[10 * place + token for token in range(length)] for place, length in enumerate(lengths)]
    return Documents.from_arrays(documents_of(encoded, np.arange(count) + 7, np.arange(count) % 3))


def listed(found: Documents) -> list[list[int]]:
    return [part.tolist() for part in found.ids.split(found.lengths.tolist())]


def test_taken_documents_are_whole_and_in_the_order_asked_for() -> None:
    every = documents(9)
    taken = every.take(torch.tensor([7, 0, 3]))
    assert listed(taken) == [listed(every)[place] for place in (7, 0, 3)]
    assert (taken.rows.tolist(), taken.labels.tolist()) == ([14, 7, 10], [1, 0, 0])


def test_what_belongs_to_tokens_is_taken_with_them() -> None:
    arrays = documents_of([[1, 2, 3], [4], [5, 6]], np.arange(3), None)
    words, tags = np.array([-1, 0, 1, 0, -1, 0]), np.array([-100, 4, 5, 6, -100, 7])
    taken = Sentences.from_arrays({**arrays, "words": words, "tags": tags}).take(torch.tensor([2, 0]))
    assert taken.words.tolist() == [-1, 0, -1, 0, 1]
    assert taken.tags.tolist() == [-100, 7, -100, 4, 5]
    assert taken.units() == {"row": pytest.approx([2, 0, 0]), "word": pytest.approx([0, 0, 1])}


def test_arrays_bring_the_same_documents_back() -> None:
    every = documents(5)
    again = Documents.from_arrays(every.arrays())
    assert again.digest() == every.digest() != documents(6).digest()


def test_shorter_documents_are_filled_up() -> None:
    table = padded(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 3]), fill=9)
    assert table.tolist() == [[1, 9, 9], [2, 3, 4]]


def test_answers_come_in_batches_below_the_limit_that_cover_all_once() -> None:
    lengths = documents(200).lengths
    batches = list(by_length(lengths, limit=300))
    assert torch.cat(batches).sort().values.tolist() == list(range(200))
    assert all(len(b) * int(lengths[b].max()) <= 300 for b in batches)
    assert [b.tolist() for b in by_length(torch.tensor([500, 2]), limit=300)] == [[1], [0]]


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    every = documents(100)
    first = every.draw(3, 5, 8)
    torch.rand(10)
    assert torch.equal(every.draw(3, 5, 8), first)
    assert not torch.equal(every.draw(4, 5, 8), first)
    assert not torch.equal(every.draw(3, 6, 8), first)


@pytest.mark.parametrize(("count", "size"), [(100, 8), (1000, 16), (9, 9), (7, 4)])
def test_no_document_comes_twice_in_an_epoch_and_all_come_in_some(count: int, size: int) -> None:
    every, batches = documents(count), count // size
    seen = set()
    for epoch in range(12):
        drawn = torch.cat([every.draw(0, epoch * batches + step, size) for step in range(batches)])
        assert len(set(drawn.tolist())) == batches * size
        seen |= set(drawn.tolist())
    assert seen == set(range(count))


def test_batches_hold_documents_of_similar_length_in_random_order() -> None:
    every, size = documents(2000), 16
    drawn = [every.lengths[every.draw(0, step, size)] for step in range(125)]
    padding = 1 - sum(int(batch.sum()) for batch in drawn) / sum(size * int(batch.max()) for batch in drawn)
    assert padding < 0.1, "a random batch of 16 is half padding"
    longest = [int(batch.max()) for batch in drawn]
    assert longest != sorted(longest)
