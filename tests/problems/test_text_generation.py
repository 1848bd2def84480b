"""The head text_generation: a causal model goes on learning; an answer is about a token that follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import small_text
import torch

from graftline.dataset import Schema
from graftline.problems.model import load_model, read_problem
from graftline.values.splits import read_texts
from graftline.values.text import TextColumn

LONGEST = small_text.DECODER["max_length"]
FINETUNE: dict[str, Any] = {
    **small_text.FINETUNE,
    "head": {"name": "text_generation", "samples": 3, "sample_tokens": 6, "prompts": ["a", ""]},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def dataset(home: Path) -> Path:
    return small_text.dataset(home)


@pytest.fixture(scope="module")
def model(home: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generation") / "model"
    section = {**FINETUNE, "epochs": 4, "learning_rate": 0.01}
    inputs = {"in_dataset": dataset, "in_trunk": small_text.causal_trunk(home)}
    small.make("finetune", {"finetune": section}, **inputs, out_model=out)
    return out


def test_fine_tuning_makes_the_test_rows_less_surprising(home: Path, dataset: Path, model: Path) -> None:
    head, trunk = read_problem(model), small_text.causal_trunk(home)
    test = head.read(dataset, "test", model)
    from graftline.dataset import read_schema

    before = head.build(trunk, read_schema(dataset), scratch=False).answer(test)
    after = load_model(model).answer(test)
    assert after.surprise.mean() < before.surprise.mean() - 0.1
    assert json.loads((model / "metrics.json").read_text())["val_perplexity"] > 1


def test_answers_are_those_of_transformers_document_by_document(dataset: Path, model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    test = read_problem(model).read(dataset, "test", model).take(torch.arange(12))
    answers, units = load_model(model).answer(test), test.units()
    texts, at = read_texts(dataset, "test"), 0
    for row, text in zip(texts.rows[:12], texts.texts[:12], strict=True):
        ids = [*tokenizer(text)["input_ids"][: LONGEST - 1], tokenizer.eos_token_id]
        with torch.no_grad():
            shares = network(torch.tensor([ids])).logits[0, :-1].log_softmax(dim=1)
        here = slice(at, at + len(ids) - 1)
        surprise = -shares[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()
        assert answers.labels[here].tolist() == ids[1:]
        assert np.allclose(answers.surprise[here], surprise, atol=1e-4)
        assert np.allclose(answers.confidence[here], shares.max(dim=1).values.exp().numpy(), atol=1e-4)
        assert set(units["row"][here]) == {row}
        assert units["token"][here].tolist() == list(range(len(ids) - 1))
        at = here.stop
    assert at == len(answers.labels)


def test_transformers_alone_opens_it_and_gives_the_same_logits(
    dataset: Path, model: Path, alone: Callable[..., Any]
) -> None:
    texts = read_texts(dataset, "test").texts[:3]
    padded, single, _ = alone(model, "AutoModelForCausalLM", texts)
    for place, logits in enumerate(single):
        assert np.allclose(padded[place][: len(logits)], logits, atol=1e-4)
    answers = load_model(model).answer(read_problem(model).read(dataset, "test", model).take(torch.tensor([0])))
    assert answers.predicted.tolist() == single[0].argmax(axis=1).tolist()


def test_samples_are_a_pure_function_of_the_seed(model: Path) -> None:
    head, loaded = read_problem(model), load_model(model)
    first = head.samples(loaded, seed=0)
    torch.rand(5)
    assert head.samples(loaded, seed=0) == first != head.samples(loaded, seed=1)
    assert [sample["prompt"] for sample in first] == ["a", "", "a"]
    assert first[0]["text"] != first[2]["text"]


def test_a_prompt_is_gone_on_with(model: Path) -> None:
    (answer,) = read_problem(model).ask(model, load_model(model), ["any of various"], Schema(TextColumn("text"), None))
    assert answer["prompt"] == "any of various"
    assert isinstance(answer["text"], str)


def test_a_number_of_labels_is_a_number_of_documents(home: Path, dataset: Path, tmp_path: Path) -> None:
    inputs = {"in_dataset": dataset, "in_trunk": small_text.causal_trunk(home)}
    section = {**FINETUNE, "labels_per_class": 40}
    small.make("finetune", {"finetune": section}, **inputs, out_model=tmp_path / "model")
    assert json.loads((tmp_path / "model/metrics.json").read_text())["examples"] == 40
