"""What a model does not see of real glosses, and which of them it cannot tell apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small
import small_tags
import small_text
import torch

from graftline.dataset import read_schema
from graftline.problems.embedding import embed
from graftline.problems.model import load_model, read_problem
from graftline.problems.reading import alike, lost_tokens, read_examples
from graftline.problems.registry import make_problem
from graftline.tasks.finetune import FinetuneParams
from graftline.text.tokenizer import document_marks, load_tokenizer
from graftline.values.splits import read_texts

MOST = 16


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def head(name: str, home: Path) -> tuple[Any, Path]:
    """Return the problem that reads 16 tokens, and the trunk that it reads for."""
    trunk = small_text.causal_trunk(home) if name == "text_generation" else small_text.trunk(home)
    schema = read_schema(small_text.dataset(home))
    return make_problem(FinetuneParams(head={"name": name, "max_tokens": MOST}).head, schema), trunk


def lengths(folder: Path, texts: list[str]) -> list[int]:
    tokenizer = load_tokenizer(folder)
    marks = sum(map(len, document_marks(tokenizer)))
    return [len(ids) + marks for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]


@pytest.mark.parametrize("name", ["sequence_classification", "text_generation"])
def test_documents_longer_than_the_model_reads_are_counted(name: str, home: Path) -> None:
    dataset, (problem, trunk) = small_text.dataset(home), head(name, home)
    whole = lengths(trunk, read_texts(dataset, "val").texts)
    longer = [length - MOST for length in whole if length > MOST]
    assert 0 < len(longer) < len(whole)
    found = lost_tokens(read_examples(problem, dataset, "val", trunk))
    assert found is not None
    assert (found.examples, found.of, found.most) == (len(longer), len(whole), MOST)
    assert found.share == pytest.approx(sum(longer) / sum(whole))
    said = f"{len(longer)} of {len(whole)} documents are longer than the {MOST} tokens that the model reads"
    assert found.told("documents").startswith(said)


def test_sentences_are_read_in_parts_and_lose_nothing(home: Path) -> None:
    params = FinetuneParams(head={"name": "token_classification", "max_tokens": MOST})
    problem = make_problem(params.head, read_schema(small_tags.dataset(home)))
    examples = read_examples(problem, small_tags.dataset(home), "val", small_tags.trunk(home))
    assert len(examples) > len(set(examples.rows.tolist())) and lost_tokens(examples) is None


def test_finetune_and_predict_say_what_is_cut_off(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, trunk = small_text.dataset(home), small_text.trunk(home)
    section = {**small_text.FINETUNE, "epochs": 1, "head": {"name": "sequence_classification", "max_tokens": MOST}}
    small.make("finetune", {"finetune": section}, in_dataset=dataset, in_trunk=trunk, out_model=tmp_path / "model")
    metrics, said = json.loads((tmp_path / "model/metrics.json").read_text()), capsys.readouterr().err
    for split in ("train", "val"):
        whole = lengths(trunk, read_texts(dataset, split).texts)
        assert metrics[f"{split}_cut"] == sum(length > MOST for length in whole)
        assert 0 < metrics[f"{split}_tokens_cut"] < 1
        assert f"{split}: {metrics[f'{split}_cut']} of {len(whole)} documents are longer than the {MOST} tokens" in said
    model = tmp_path / "model"
    texts = ["a dog", " ".join(["a dog"] * 20)]
    found = read_problem(model).ask(model, load_model(model), texts, read_schema(dataset))
    assert [answer["cut"] for answer in found] == [0, lengths(model, texts)[1] - MOST]
    capsys.readouterr()
    embed(model, [" ".join(["a dog"] * 100)])
    assert "embed: 1 of 1 texts are longer than the 48 tokens that the model reads" in capsys.readouterr().err


def test_texts_that_a_model_cannot_tell_apart_are_counted(home: Path) -> None:
    problem, trunk = head("sequence_classification", home)
    found = read_texts(small_text.dataset(home), "train")
    texts = list(dict.fromkeys(text for text in found.texts if text.isascii()))[:30]
    apart = problem.encode(trunk, texts, torch.arange(30).numpy(), torch.zeros(30, dtype=torch.int64).numpy())
    here = len({row.tobytes() for row in (apart.take(torch.tensor([n])).ids.numpy() for n in range(30))})
    others = [
        *(text.upper() for text in texts[:10]),  # the tokenizer takes case away
        "☃ a dog", "☂ a dog",  # both are unknown characters
        " ".join(["a dog"] * 20), " ".join(["a dog"] * 20 + ["cat"]),  # the end is cut off
        "one of a kind",
    ]  # fmt: skip
    labels = torch.tensor([0] * 7 + [1] * 3 + [0, 1] + [0, 0] + [0])
    more = problem.encode(trunk, others, torch.arange(15).numpy(), labels.numpy())
    met = alike(more, apart)
    assert met is not None and (met.examples, met.conflicts) == (10, 3)
    assert met.metrics("seen") == {"seen": 10, "seen_conflicts": 3}
    own = alike(more)
    assert own is not None and (own.examples, own.conflicts) == (2, 1)
    first = alike(apart)
    assert first is not None and first.examples == 30 - here


def test_images_are_compared_by_validate_alone(home: Path) -> None:
    problem = make_problem(FinetuneParams().head, read_schema(small.dataset(home)))
    examples = read_examples(problem, small.dataset(home), "val", small.trunk(home))
    assert alike(examples) is None and lost_tokens(examples) is None
