"""Words that a model may not write, and words that it should: of texts, and of models that write."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import small
import small_text
import small_writing

from graftline.dataset import Schema
from graftline.problems.model import load_model, read_facts, read_problem
from graftline.problems.sequence_to_sequence.parameters import SequenceToSequenceParams
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.problems.text_generation.problem import TextGenerator
from graftline.problems.writing import Demands
from graftline.text.tokenizer import load_tokenizer

PROMPTS = ["a", "the", "any of", "someone who", "a small", "an"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def generator(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("writing") / "model"
    section = {**small_text.FINETUNE, "epochs": 4, "learning_rate": 0.01, "head": {"name": "text_generation"}}
    inputs = {"in_dataset": small_text.dataset(home), "in_trunk": small_text.causal_trunk(home)}
    small.make("finetune", {"finetune": section}, **inputs, out_model=out)
    return out


@pytest.fixture(scope="module")
def translator(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("writing") / "model"
    inputs = {"in_dataset": small_writing.dataset(home), "in_trunk": small_writing.trunk(home)}
    small.make("finetune", {"finetune": small_writing.FINETUNE}, **inputs, out_model=out)
    return out


def asked(model: Path, tmp_path: Path, texts: list[str], **head: Any) -> list[dict[str, Any]]:
    """Return what the model says of texts where its parameters are these besides."""
    folder = Path(shutil.copytree(model, tmp_path / f"{len(list(tmp_path.iterdir()))}"))
    facts = json.loads((folder / "head.json").read_text())
    facts["head"] |= head
    (folder / "head.json").write_text(json.dumps(facts))
    schema = Schema.from_dict(read_facts(folder))
    return read_problem(folder).ask(folder, load_model(folder), texts, schema)


def commonest(texts: list[str]) -> str:
    """Return the commonest word of some letters that stands by itself."""
    words = [word for text in texts for word in text.split() if word.isalpha() and len(word) > 1]
    return Counter(words).most_common(1)[0][0]


def test_a_text_holds_a_word_that_stands_by_itself_whatever_its_case() -> None:
    demands = Demands(banned=("cat", "hot dog"), required=("tree", "C++"))
    assert demands.broken("The Cat sat by a tree, in C++.") == {"banned": ["cat"]}
    assert demands.broken("concatenate trees") == {"missing": ["tree", "C++"]}
    assert demands.broken("a HOT DOG; tree C++") == {"banned": ["hot dog"]}
    assert demands.best(["cat tree C++", "dog", "dog tree", "a tree"]) == 2
    assert not Demands((), ())


def test_what_is_off_is_not_in_a_models_facts() -> None:
    for params in (TextGenerationParams, SequenceToSequenceParams):
        assert not params().model_dump().keys() & {"banned", "required"}
        assert params(banned=("a",)).model_dump()["banned"] == ("a",)


def test_a_banned_word_is_not_written(generator: Path, tmp_path: Path) -> None:
    plain = asked(generator, tmp_path, PROMPTS)
    word = commonest([one["text"] for one in plain])
    assert sum("banned" in Demands((word,), ()).broken(one["text"]) for one in plain) > 0
    found = asked(generator, tmp_path, PROMPTS, banned=[word])
    assert not any("banned" in Demands((word,), ()).broken(one["text"]) for one in found)
    assert all(one.keys() == {"prompt", "text"} for one in found)
    tokens = load_tokenizer(generator)(f" {word}", add_special_tokens=False)["input_ids"]
    assert tokens in Demands((word,), ()).settings(load_tokenizer(generator))["bad_words_ids"]


def test_of_several_draws_one_with_the_required_word_is_taken(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = iter(["a bush", "a tree", "never drawn"])
    monkeypatch.setattr(TextGenerator, "_draw", lambda *given: next(written))
    assert asked(generator, tmp_path, ["x"], required=["tree"]) == [{"prompt": "x", "text": "a tree"}]
    written = iter(["a bush, a cat", *["a bush"] * 7, "never drawn"])
    (found,) = asked(generator, tmp_path, ["x"], required=["tree", "cat"])
    assert found == {"prompt": "x", "text": "a bush, a cat", "missing": ["tree"]}
    assert next(written) == "never drawn", "eight draws, and no more"


def test_what_is_drawn_again_is_the_same_each_time(generator: Path, tmp_path: Path) -> None:
    found = [asked(generator, tmp_path, PROMPTS[:2], required=["xylophone"]) for _ in range(2)]
    assert found[0] == found[1] and all(one["missing"] == ["xylophone"] for one in found[0])


def test_a_translation_heeds_both(translator: Path, tmp_path: Path) -> None:
    texts = small_writing.pairs()["english"][:12]
    plain = asked(translator, tmp_path, texts, beams=4)
    word = commonest([one["text"] for one in plain])
    found = asked(translator, tmp_path, texts, banned=[word], beams=4)
    assert not any("banned" in Demands((word,), ()).broken(one["text"]) for one in found)
    demands = Demands((), (word,))
    found = asked(translator, tmp_path, texts, required=[word], beams=4)
    assert all(one.get("missing", []) == demands.broken(one["text"]).get("missing", []) for one in found)
    assert sum("missing" in one for one in found) <= sum(bool(demands.broken(one["text"])) for one in plain)
