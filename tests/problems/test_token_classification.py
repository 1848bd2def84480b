"""The head token_classification: real tagged sentences; each word has one answer, whatever its tokens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_tags
import torch

from graftline.dataset import read_schema
from graftline.problems.documents import IGNORED
from graftline.problems.model import load_model, read_problem
from graftline.problems.token_classification.parameters import TokenClassificationParams
from graftline.problems.token_classification.problem import TokenClassification
from graftline.text.tokenizer import load_tokenizer
from graftline.values.splits import read_tagged


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def dataset(home: Path) -> Path:
    return small_tags.dataset(home)


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    return small_tags.model(home)


def test_a_model_that_has_learned_answers_each_word(model: Path, dataset: Path) -> None:
    test = read_tagged(dataset, "test")
    examples = read_problem(model).read(dataset, "test", model)
    answers, units = load_model(model).answer(examples), examples.units()
    assert np.array_equal(answers.labels, np.concatenate(test.tags))
    assert units["row"].tolist() == [int(r) for r, tags in zip(test.rows, test.tags, strict=True) for _ in tags]
    assert units["word"].tolist() == [word for tags in test.tags for word in range(len(tags))]
    most_common = np.bincount(answers.labels).max() / len(answers.labels)
    assert answers.value > most_common + 0.05, "always the same tag is no learning"


def test_the_label_stands_at_a_words_first_token_only(model: Path, dataset: Path) -> None:
    tokenizer, head = load_tokenizer(model), read_problem(model)
    words = ["kitapların", "okunması", "."]
    encoded = head.encode(model, [words], np.array([3]), [np.array([5, 6, 7])])
    pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    assert len(pieces[0]) > 1, "else the test shows nothing"
    ids = [token for piece in pieces for token in piece]
    assert encoded.ids.tolist() == [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
    inside = [[label] + [IGNORED] * (len(p) - 1) for label, p in zip((5, 6, 7), pieces, strict=True)]
    assert encoded.tags.tolist() == [IGNORED, *chain.from_iterable(inside), IGNORED]


def test_transformers_alone_opens_it_and_gives_the_same_logits(
    model: Path, dataset: Path, alone: Callable[..., Any]
) -> None:
    sentences = read_tagged(dataset, "test").words[:3]
    examples = read_problem(model).encode(model, sentences, np.arange(3))
    ours = load_model(model).logits(examples).numpy()
    padded, single, labels = alone(model, "AutoModelForTokenClassification", sentences)
    first = [part.nonzero()[:, 0] for part in examples.first.split(examples.lengths.tolist())]
    for found in (padded, single):
        at_words = np.concatenate([found[place][tokens.numpy()] for place, tokens in enumerate(first)])
        assert np.allclose(at_words, ours, atol=1e-5)
    assert list(labels.values()) == list(read_schema(dataset).classes)


def test_a_long_sentence_is_read_in_parts_and_every_word_is_answered(model: Path) -> None:
    head = TokenClassification(TokenClassificationParams(max_tokens=12))
    words = [f"kelime{n}" for n in range(20)] + ["a" * 300]
    tags = np.arange(21) % 5
    examples = head.encode(model, [["ve"], words], np.array([4, 9]), [np.array([1]), tags])
    assert int(examples.lengths.max()) <= 12
    assert examples.units()["word"].tolist() == [0, *range(21)]
    assert examples.tags[examples.first].tolist() == [1, *tags.tolist()]
    assert set(examples.rows.tolist()) == {4, 9}


def test_an_answer_is_the_same_in_any_order_and_company(model: Path, dataset: Path) -> None:
    loaded, test = load_model(model), read_problem(model).read(dataset, "test", model)
    together = loaded.probabilities(test)
    backwards = torch.arange(len(test)).flip(0)
    counts = [int(part.sum()) for part in test.first.split(test.lengths.tolist())]
    parts = np.split(loaded.probabilities(test.take(backwards)), np.cumsum(counts[::-1])[:-1])
    assert np.allclose(np.concatenate(parts[::-1]), together, atol=1e-5)


def test_what_is_shown_of_an_answer_is_its_word_with_its_neighbours(model: Path, dataset: Path) -> None:
    examples, words = read_problem(model).read(dataset, "test", model), read_tagged(dataset, "test").words
    place = len(words[0]) + 1  # the second word of the second sentence
    (shown,) = read_problem(model).show(dataset, "test", examples, np.array([place]))
    assert shown.startswith(f"{words[1][0]} »{words[1][1]}« ".rstrip())
