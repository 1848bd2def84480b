"""`graftline predict` and `graftline embed` on releases of text, made by the real components."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_tags
import small_text
import torch
from commands import Done, on_store

from graftline.problems.model import load_model, read_problem
from graftline.records.folder import verify
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store
from graftline.values.splits import read_tagged, read_texts

GENERATION = {**small_text.FINETUNE, "head": {"name": "text_generation", "sample_tokens": 5}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def store(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with glosses@1, tags@1 and writer@1."""
    folder = tmp_path_factory.mktemp("store")
    dataset = small_text.dataset(home)
    for name, trunk, section in (
        ("glosses", small_text.trunk(home), small_text.FINETUNE),
        ("writer", small_text.causal_trunk(home), GENERATION),
    ):
        inputs = {"in_dataset": dataset, "in_trunk": trunk}
        small.make("finetune", {"finetune": section}, **inputs, out_model=folder / name)
    for name, model in (
        ("glosses", folder / "glosses"),
        ("writer", folder / "writer"),
        ("tags", small_tags.model(home)),
    ):
        files = {file.path: model / file.path for file in verify(model).files}
        publish(open_store(str(folder / "store")), ReleaseDraft(name, files, {}), Publication(name, fresh=True))
    return folder / "store"


@pytest.fixture
def graftline(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    return on_store(store, monkeypatch, capsys)


def answers(done: Done) -> list[dict[str, Any]]:
    code, out, error = done
    assert (code, error) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_every_way_to_give_a_text_gets_the_same_answer(graftline: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a small dog\n\nany of various herbs\n")
    (tmp_path / "b.jsonl").write_text('{"text": "a small dog", "id": 7}\n"any of various herbs"\n')
    pq.write_table(pa.table({"text": ["a small dog", "any of various herbs"]}), tmp_path / "c.parquet")
    found = answers(
        graftline("predict", "glosses", tmp_path, "--text", "a small dog", "--text", "any of various herbs", "--json")
    )
    assert [answer["input"] for answer in found] == [
        f"{tmp_path}/a.txt:1",
        f"{tmp_path}/a.txt:3",
        f"{tmp_path}/b.jsonl:1",
        f"{tmp_path}/b.jsonl:2",
        f"{tmp_path}/c.parquet#0",
        f"{tmp_path}/c.parquet#1",
        "--text 1",
        "--text 2",
    ]
    dogs, herbs = found[::2], found[1::2]
    for same in (dogs, herbs):
        assert all(a["probabilities"] == same[0]["probabilities"] for a in same)
    assert list(dogs[0]["probabilities"]) == list(small_text.CLASSES)
    assert sum(dogs[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert dogs[0]["label"] == max(dogs[0]["probabilities"], key=dogs[0]["probabilities"].get)


def test_answers_are_those_of_the_model_that_was_trained(
    graftline: Callable[..., Done], home: Path, store: Path
) -> None:
    dataset, model = small_text.dataset(home), store.parent / "glosses"
    expected = load_model(model).probabilities(read_problem(model).read(dataset, "test", model))
    code, out, error = graftline("predict", "glosses@1", dataset / "test.parquet", "--json")
    assert (code, error) == (0, "predict: 17 of 105 are longer than the model reads: it saw a part\n")
    found = json.loads(out)
    assert sum(answer["cut"] > 0 for answer in found) == 17
    given = np.array([list(answer["probabilities"].values()) for answer in found])
    order = pq.read_table(dataset / "test.parquet", columns=["row"])["row"].to_numpy()
    assert np.allclose(given[np.argsort(order)], expected, atol=1e-5)


def test_a_release_that_tags_prints_each_word_with_its_tag(graftline: Callable[..., Done], home: Path) -> None:
    sentences = read_tagged(small_tags.dataset(home), "test")
    (answer,) = answers(graftline("predict", "tags", "--text", " ".join(sentences.words[0]), "--json"))
    assert [word["word"] for word in answer["words"]] == sentences.words[0]
    assert {word["label"] for word in answer["words"]} <= set(small_tags.TAGS)
    code, out, _ = graftline("predict", "tags", small_tags.dataset(home) / "test.parquet")
    assert code == 0
    first = answer["words"][0]
    assert f"{first['word']}/{first['label']}" in out


def test_a_release_that_writes_goes_on_with_the_text(graftline: Callable[..., Done]) -> None:
    (answer,) = answers(graftline("predict", "writer", "--text", "any of", "--json"))
    assert answer.keys() == {"input", "prompt", "text"}
    code, out, _ = graftline("predict", "writer", "--text", "[bold]any of")
    assert code == 0
    assert "[bold]any of" in out, "a text is no markup"


def test_a_vector_is_the_mean_of_the_tokens_last_hidden_states(
    graftline: Callable[..., Done], home: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    trunk, texts = small_text.trunk(home), read_texts(small_text.dataset(home), "test").texts[:20]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    for name in ("v.npy", "v.parquet"):
        code, out, error = graftline("embed", trunk, tmp_path / "in.jsonl", "--out", tmp_path / name)
        assert (code, out) == (0, "") and error.startswith("embed: 3 of 20 texts are longer than the 48 tokens")
    found, table = np.load(tmp_path / "v.npy"), pq.read_table(tmp_path / "v.parquet")
    tokenizer, network = AutoTokenizer.from_pretrained(trunk), AutoModel.from_pretrained(trunk).eval()
    for text, vector in zip(texts, found, strict=True):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=small_text.ENCODER["max_length"])
        with torch.no_grad():
            expected = network(**inputs).last_hidden_state[0].mean(dim=0)
        assert np.allclose(vector, expected.numpy(), atol=1e-5)
    assert (found.dtype, found.shape) == (np.float32, (20, 32))
    assert np.array_equal(np.array(table["embedding"].to_pylist(), dtype=np.float32), found)
    assert table["input"][0].as_py() == f"{tmp_path}/in.jsonl:1"


def test_a_release_embeds_too_and_prints_json(graftline: Callable[..., Done]) -> None:
    for release in ("glosses", "writer@1"):
        (answer,) = answers(graftline("embed", release, "--text", "a small dog", "--json"))
        assert (answer["input"], len(answer["embedding"])) == ("--text 1", 32)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("predict", "glosses"), "the command line: no documents"),
        (("predict", "glosses", "nothing.txt"), "nothing.txt: no such file or folder"),
        (("predict", "glosses", "image.png"), "a file of type '.png'; expected a .txt, .jsonl, .parquet file"),
        (("predict", "glosses", "latin.txt"), "latin.txt:2: byte 0xe9 at 3 is no UTF-8; save the file as UTF-8"),
        (("predict", "glosses", "other.jsonl"), "other.jsonl:1: 'None' is no text; expected a string"),
        (("predict", "glosses", "cut.jsonl"), "cut.jsonl:1: not JSON"),
        (("predict", "glosses", "other.parquet"), "expected Parquet with a column 'text'"),
        (("predict", "glosses", "--text", "  "), "--text 1: an empty document"),
        (("embed", "glosses", "--text", "a"), "no place for the vectors; expected --out FILE, or --json"),
        (("embed", "glosses", "--text", "a", "--out", "v.csv"), "a file of type '.csv'; expected .parquet or .npy"),
        (("embed", "glosses@4", "--text", "a", "--json"), "no version 4"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_2(
    graftline: Callable[..., Done],
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("image.png").write_bytes(b"")
    Path("latin.txt").write_bytes(b"a dog\ncaf\xe9\n")
    Path("other.jsonl").write_text('{"words": 3}\n')
    Path("cut.jsonl").write_text('{"text": "a\n')
    pq.write_table(pa.table({"words": ["a"]}), "other.parquet")
    code, out, error = graftline(*arguments)
    assert (code, out) == (2, "")
    (line,) = error.splitlines()
    assert said in line


def test_images_have_no_vectors(graftline: Callable[..., Done], home: Path) -> None:
    code, _, error = graftline("embed", small.trunk(home), "--text", "a", "--json")
    assert code == 2
    assert "expected 'text'" in error
