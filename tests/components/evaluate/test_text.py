"""The component on texts: rows, words and tokens are measured, mistakes are a table, samples are kept."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "learning"))

import small
import small_tags
import small_text

from graftline.components.evaluate.champion import compare_with_champion
from graftline.components.evaluate.predict import predict
from graftline.records.folder import verify
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store
from graftline.text.tokenizer import load_tokenizer
from graftline.values.splits import read_tagged, read_texts

LIFT = {"lift_labels": [20], "lift_seeds": 2, "lift_epochs": 1, "lift_test_rows": 30, "mistakes": 5}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def evaluate(
    folder: Path, dataset: Path, trunk: Path, finetune: dict[str, Any], model: Path | None = None, **section: Any
) -> Path:
    """Return the evaluation of a model; one is made where none is given."""
    document = {"finetune": finetune, "evaluate": {**LIFT, **section}}
    inputs: dict[str, Path | str] = {"in_dataset": dataset, "in_trunk": trunk}
    if model is None:
        model = folder / "model"
        small.make("finetune", document, **inputs, out_model=model)
    inputs |= {"in_model": model, "store": folder / "store"}
    small.make("evaluate", document, **inputs, out_evaluation=folder / "evaluation")
    return folder / "evaluation"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def documents(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a trunk with two more to compare it with."""
    folder, dataset = tmp_path_factory.mktemp("documents"), small_text.dataset(home)
    sizes = {
        "narrow": {"trunk": {**small_text.ENCODER, "width": 16}, "epochs": 1},
        "short": {"trunk": small_text.ENCODER, "epochs": 0.2},
    }
    section = {**small_text.PRETRAIN, "sizes": sizes}
    small.make("pretrain", {"pretrain": section}, in_dataset=dataset, out_trunk=folder / "trunk")
    return evaluate(folder, dataset, folder / "trunk", small_text.FINETUNE, budget_labels=20)


@pytest.fixture(scope="module")
def words(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = small_tags.dataset(home), small_tags.trunk(home), small_tags.FINETUNE, small_tags.model(home)
    return evaluate(tmp_path_factory.mktemp("words"), *inputs)


@pytest.fixture(scope="module")
def tokens(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    finetune = {**small_text.FINETUNE, "head": {"name": "text_generation", "samples": 2, "sample_tokens": 4}}
    inputs = small_text.dataset(home), small_text.causal_trunk(home)
    gate = {"ceilings": {"perplexity": 1000}, "floors": {"accuracy": 0.99}}
    return evaluate(tmp_path_factory.mktemp("tokens"), *inputs, finetune, gate=gate)


def test_the_worst_mistakes_are_texts_with_both_labels(documents: Path, home: Path) -> None:
    test, mistakes = read_texts(small_text.dataset(home), "test"), read(documents / "mistakes.json")
    answers = pq.read_table(documents / "predictions.parquet").to_pylist()
    wrong = sorted((a for a in answers if a["label"] != a["predicted"]), key=lambda a: -a["confidence"])
    assert mistakes["wrong"] == len(wrong) >= 5
    for line, answer in zip(mistakes["worst"], wrong[:5], strict=True):
        assert {name: line[name] for name in ("row", "label", "predicted", "confidence")} == {
            name: answer[name] for name in ("row", "label", "predicted", "confidence")
        }
        assert line["text"] == test.texts[test.rows.tolist().index(line["row"])]
    assert not (documents / "mistakes.png").exists()


def test_what_the_model_does_not_see_of_test_rows_is_measured(documents: Path, home: Path) -> None:
    model, metrics = documents.with_name("model"), read(documents / "metrics.json")
    train, test = (read_texts(small_text.dataset(home), split).texts for split in ("train", "test"))
    tokenizer, most = load_tokenizer(model), small_text.ENCODER["max_length"]
    ids = [tokenizer(texts, verbose=False)["input_ids"] for texts in (train, test)]
    longer = [len(one) - most for one in ids[1] if len(one) > most]
    assert metrics["test_cut"] == len(longer) > 0
    assert metrics["test_tokens_cut"] == pytest.approx(sum(longer) / sum(map(len, ids[1])))
    seen = {tuple(one[: most - 1]) for one in ids[0]}
    assert metrics["test_seen"] == sum(tuple(one[: most - 1]) in seen for one in ids[1])


def test_the_lift_is_scored_on_a_fixed_sample_of_the_test_rows(documents: Path) -> None:
    lift = read(documents / "lift.json")
    assert (lift["amount"], lift["score"]) == ("labels a class", "accuracy")
    for run in lift["runs"]:
        assert run["examples"] == 80
        assert run["value"] * 30 == pytest.approx(round(run["value"] * 30)), "a share of 30 rows"


def test_each_word_counts(words: Path, home: Path) -> None:
    tags, metrics = read_tagged(small_tags.dataset(home), "test").tags, read(words / "metrics.json")
    table = pq.read_table(words / "predictions.parquet").to_pydict()
    assert metrics["n_test"] == sum(map(len, tags)) == len(table["word"])
    right = np.mean([a == b for a, b in zip(table["label"], table["predicted"], strict=True)])
    assert metrics["accuracy"] == pytest.approx(right)
    assert len(set(zip(table["row"], table["word"], strict=True))) == len(table["row"])
    assert all("»" in line["text"] for line in read(words / "mistakes.json")["worst"])
    assert read(words / "lift.json")["amount"] == "sentences"
    assert {run["examples"] for run in read(words / "lift.json")["runs"]} == {20}


def test_a_model_that_writes_has_a_perplexity_and_samples_and_no_classes(tokens: Path) -> None:
    metrics, table = read(tokens / "metrics.json"), pq.read_table(tokens / "predictions.parquet").to_pydict()
    assert metrics["perplexity"] == pytest.approx(math.exp(np.mean(table["surprise"])), rel=1e-5)
    assert metrics["n_test"] == len(table["token"])
    assert "macro_f1" not in metrics
    assert [sample.keys() for sample in read(tokens / "samples.json")] == [{"prompt", "text"}] * 2
    assert not {"confusion.png", "classes.json", "mistakes.json"} & {path.name for path in tokens.iterdir()}


def test_the_gate_goes_by_the_scores_of_the_problem(tokens: Path) -> None:
    decision = read(tokens / "decision.json")
    assert not decision["passed"]
    assert decision["reason"].startswith("failed: floors.accuracy: 0.")
    rules = {rule["name"]: rule for rule in decision["rules"]}
    assert rules["ceilings.perplexity"]["passed"]
    assert rules["ceilings.perplexity"]["margin"] == 1000 - read(tokens / "metrics.json")["perplexity"]


def test_a_champion_with_another_vocabulary_reads_the_rows_in_its_own_way(home: Path, tmp_path: Path) -> None:
    dataset, models = small_text.dataset(home), []
    for vocabulary in (512, 300):
        trunk, model = tmp_path / f"trunk{vocabulary}", tmp_path / f"model{vocabulary}"
        tokenizer = {"kind": "wordpiece", "vocabulary": vocabulary}
        section = {**small_text.PRETRAIN, "epochs": 0.2, "tokenizer": tokenizer}
        small.make("pretrain", {"pretrain": section}, in_dataset=dataset, out_trunk=trunk)
        inputs = {"in_dataset": dataset, "in_trunk": trunk}
        small.make("finetune", {"finetune": small_text.FINETUNE}, **inputs, out_model=model)
        models.append(model)
    store = open_store(str(tmp_path / "store"))
    files = {file.path: models[1] / file.path for file in verify(models[1]).files}
    publish(store, ReleaseDraft("digits", files, {}), Publication("first", fresh=True))
    challenger = predict(models[0], dataset).answers
    found = compare_with_champion(store, "digits", dataset, models[0], challenger, resamples=1000, seed=0)
    assert found is not None
    assert found.value == predict(models[1], dataset).answers.value
    assert found.difference.value == pytest.approx(challenger.value - found.value)


def test_a_champion_that_cuts_texts_off_sooner_is_not_compared(home: Path, tmp_path: Path) -> None:
    """It tells fewer tokens, and easier or harder ones."""
    dataset, model, shorter = small_text.dataset(home), tmp_path / "model", tmp_path / "shorter"
    inputs = {"in_dataset": dataset, "in_trunk": small_text.causal_trunk(home)}
    head = {"name": "text_generation", "max_tokens": 32}
    small.make("finetune", {"finetune": {**small_text.FINETUNE, "head": head}}, **inputs, out_model=model)
    shutil.copytree(model, shorter)
    facts = read(shorter / "head.json")
    (shorter / "head.json").write_text(json.dumps({**facts, "head": {**facts["head"], "max_tokens": 8}}))
    store = open_store(str(tmp_path / "store"))
    files = {file.path: shorter / file.path for file in verify(model).files}
    publish(store, ReleaseDraft("digits", files, {}), Publication("first", fresh=True))
    challenger = predict(model, dataset).answers
    found = compare_with_champion(store, "digits", dataset, model, challenger, resamples=1000, seed=0)
    assert found is not None
    assert found.difference is None
    assert "`max_tokens` may differ" in found.obstacle


def test_trunks_of_other_sizes_and_budgets_are_compared(documents: Path) -> None:
    found, lift = read(documents / "budget.json"), read(documents / "lift.json")
    trunks = {line["name"]: line for line in found["trunks"]}
    assert found["labels"] == 20
    assert [line["flops"] for line in found["trunks"]] == sorted(line["flops"] for line in found["trunks"])
    assert set(trunks) == {"main", "narrow", "short"}
    assert trunks["narrow"]["parameters"] < trunks["main"]["parameters"] == trunks["short"]["parameters"]
    assert trunks["main"]["value"] == lift["points"][0]["trunk"], "the same fits as the lift's"
    assert trunks["short"]["value"] != trunks["main"]["value"]
    assert trunks["short"]["held_out"][-1][0] == trunks["short"]["tokens"] < trunks["main"]["tokens"]
    assert (documents / "budget.png").read_bytes().startswith(b"\x89PNG")
