"""The head pair_classification: pairs of real glosses, from the raw data to a release that is asked.

Two glosses of noun.plant and noun.person (WordNet 3.0, data/glosses) are `same` or `other`, half of the test pairs
each: whoever sees one of the texts, or answers always the same, is right in half of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import small
import small_pairs
import small_text
import torch

from graftline.cli.app import main
from graftline.dataset import read_schema
from graftline.pipelines.compile import compiled
from graftline.problems.pair_classification.parameters import PairClassificationParams
from graftline.problems.pair_classification.problem import PairClassification, PairClassifier, kept
from graftline.problems.pair_classification.scores import AVERAGE_PRECISION, ranked_pairs
from graftline.problems.pairs import pair_frame
from graftline.problems.reading import lost_tokens
from graftline.report import write_report
from graftline.store.opening import open_store
from graftline.text.tokenizer import load_tokenizer

TRIVIAL, MARGIN = 0.5, 0.2
"""How often the better of the two trivial answers is right, and by how much the model must be better."""
LIFT = {"lift_labels": [10], "lift_seeds": 2, "lift_epochs": 1, "lift_test_rows": 50, "mistakes": 5}
LOW = {"floors": {"accuracy": TRIVIAL + MARGIN, "average_precision": TRIVIAL + MARGIN}, "min_lift": {}}
HIGH = {"floors": {"average_precision": 0.9999}}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of all five components, and the store with digits@1."""
    home = tmp_path_factory.getbasetemp()
    document = {"finetune": small_pairs.FINETUNE, "evaluate": {**LIFT, "gate": LOW}}
    return small.release_of(small_pairs.trunk(home), small_pairs.dataset(home), document)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_learns_what_no_single_text_tells(released: Path) -> None:
    metrics = read(released / "evaluation/metrics.json")
    assert metrics["primary"] == "accuracy" and metrics["accuracy"] > TRIVIAL + MARGIN
    assert sorted(metrics["scores"]) == [
        "accuracy", "accuracy_at_80", "auroc", "average_precision", "ece", "macro_f1", "min_class_recall",
    ]  # fmt: skip
    assert min(metrics[name] for name in ("macro_f1", "auroc", "average_precision")) > TRIVIAL + MARGIN
    lift = read(released / "evaluation/lift.json")
    assert lift["amount"] == "labels a class"
    assert {run["examples"] for run in lift["runs"]} == {20}


def test_no_gloss_stands_in_two_splits(released: Path) -> None:
    splits = [pq.read_table(released / f"dataset/{name}.parquet") for name in small_pairs.PAIRS]
    glosses = [{*table["gloss"].to_pylist(), *table["beside"].to_pylist()} for table in splits]
    assert sum(map(len, glosses)) == len(set().union(*glosses)) > 1500
    for table in splits:
        assert table["relation"].to_pylist().count("same") == len(table) / 2


def test_the_trunk_learned_from_both_texts(released: Path) -> None:
    pairs = small_pairs.PAIRS["train"] + small_pairs.PAIRS["val"]
    assert read(released / "trunk/metrics.json")["documents"] == 2 * pairs - small_pairs.PRETRAIN["held_out"]


def test_the_table_of_predictions_says_what_was_cut(released: Path) -> None:
    table = pq.read_table(released / "evaluation/predictions.parquet")
    assert table.column_names == ["row", "cut", "label", "predicted", "confidence", "probabilities"]
    second = np.array(table["probabilities"].to_pylist())[:, 1]
    same = np.array([label == "same" for label in table["label"].to_pylist()])
    assert read(released / "evaluation/metrics.json")["average_precision"] == pytest.approx(
        precision_by_definition(second, same)
    )
    assert len(table) == small_pairs.PAIRS["test"]


def test_a_gate_by_average_precision_refuses(released: Path, tmp_path: Path) -> None:
    document = {"finetune": small_pairs.FINETUNE, "evaluate": {**LIFT, "gate": HIGH}}
    inputs: dict[str, Path | str] = {f"in_{name}": released / name for name in ("dataset", "trunk", "model")}
    inputs["store"] = released / "store"
    small.make("evaluate", document, **inputs, out_evaluation=tmp_path / "evaluation")
    decision = read(tmp_path / "evaluation/decision.json")
    assert not decision["passed"] and "floors.average_precision: 0." in decision["reason"]
    inputs["in_evaluation"] = tmp_path / "evaluation"
    assert small.run("publish", document, **inputs, out_release=tmp_path / "release") == 3


def test_the_report_shows_both_texts_of_a_mistake(released: Path, tmp_path: Path) -> None:
    page = write_report(released, open_store(str(released / "store")), tmp_path / "report.html").read_text()
    assert "average precision of the second class" in page
    (worst, *_) = read(released / "evaluation/mistakes.json")["worst"]
    assert worst["text"].startswith("gloss: ") and " · beside: " in worst["text"]
    assert "<td>gloss: " in page and " · beside: " in page


def test_a_release_is_asked_about_pairs(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pq.read_table(released / "dataset/test.parquet").sort_by("row").slice(0, 40).to_pylist()
    long = {"gloss": "a tall tree " * 30, "beside": "a king"}
    asked = tmp_path / "pairs.jsonl"
    lines = [json.dumps({name: row[name] for name in ("gloss", "beside")}) for row in [*rows, long]]
    asked.write_text("\n".join(lines), encoding="utf-8")

    def predict(*arguments: str) -> str:
        torch.set_num_threads(1)
        command = ["graftline", "predict", "digits@champion", str(asked), "--store", str(released / "store")]
        monkeypatch.setattr(sys, "argv", [*command, *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr().out

    found = json.loads(predict("--json"))
    table = pq.read_table(released / "evaluation/predictions.parquet").sort_by("row").slice(0, 40)
    assert [answer["label"] for answer in found[:-1]] == table["predicted"].to_pylist()
    assert [answer["cut"] for answer in found[:-1]] == table["cut"].to_pylist()
    assert found[-1]["cut"] > 3 * 30 - small_text.ENCODER["max_length"], "words of 90, and more tokens"
    assert found[-1]["probabilities"].keys() == {"other", "same"}
    assert "tokens cut" in predict()


def test_the_longer_text_is_cut_first_as_the_tokenizers_library_does_and_it_is_said(released: Path) -> None:
    trunk, words = released / "trunk", ["a", "plant", "of", "the", "person", "who", "a", "small", "tree"]
    tokenizer = load_tokenizer(trunk)
    texts = [" ".join(words[place % 9] for place in range(length)) for length in range(1, 24)]
    pairs = [(one, two) for one in texts for two in texts]
    for limit in (8, 13, 20):
        problem = PairClassification(PairClassificationParams(max_tokens=limit))
        found = problem.encode(trunk, pairs, np.arange(len(pairs)))
        one, two = zip(*pairs, strict=True)
        theirs = tokenizer(list(one), list(two), truncation="longest_first", max_length=limit)["input_ids"]
        ours = [ids.tolist() for ids in found.ids.split(found.lengths.tolist())]
        assert ours == theirs
        whole = tokenizer(list(one), list(two))["input_ids"]
        assert found.cut.tolist() == [len(a) - len(b) for a, b in zip(whole, theirs, strict=True)]
    assert kept(3, 9, 8) == (3, 5) and kept(9, 9, 9) == (4, 5) and kept(2, 3, 8) == (2, 3)
    examples = problem.read(released / "dataset", "test", trunk)
    lost, cut = lost_tokens(examples), int((examples.cut > 0).sum())
    assert lost is not None and lost.share == int(examples.cut.sum()) / int(examples.cut.sum() + examples.lengths.sum())
    assert lost.told("pairs").startswith(f"{cut} of 400 pairs are longer than the 20 tokens that the model reads: ")


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_other_architectures_tell_the_texts_apart_and_open_with_transformers_alone(
    architecture: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """BERT has segments, a decoder's tokenizer no separator."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    objective = small_text.PRETRAIN if architecture == "bert" else small_text.CAUSAL
    section = {**objective, "trunk": {**small_text.ENCODER, "architecture": architecture}, "epochs": 0.01}
    dataset = small_pairs.dataset(tmp_path_factory.getbasetemp())
    small.make("pretrain", {"pretrain": section}, in_dataset=dataset, out_trunk=tmp_path / "trunk")
    problem, schema = PairClassification(PairClassificationParams()), read_schema(dataset)
    model = problem.build(tmp_path / "trunk", schema, scratch=False).eval()
    assert isinstance(model, PairClassifier)
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.3)
    pairs = [("a tall tree", "a king of the people"), ("a king", "a tree"), ("a tree", "a king")]
    model.save(tmp_path)
    found = problem.encode(tmp_path, pairs, np.arange(3))
    ours = model.logits(found)
    assert not torch.allclose(ours[1], ours[2], atol=1e-3), "the order of the texts counts"
    alone = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).eval()
    tokenizer, frame = (
        AutoTokenizer.from_pretrained(tmp_path, local_files_only=True),
        pair_frame(load_tokenizer(tmp_path)),
    )
    with torch.inference_mode():
        for place, pair in enumerate(pairs):
            if architecture == "bert":
                inputs = tokenizer(*pair, return_tensors="pt")
                assert set(inputs["token_type_ids"][0].tolist()) == {0, 1}
            else:
                assert frame.between == [tokenizer.eos_token_id]
                inputs = {"input_ids": found.take(torch.tensor([place])).ids[None].long()}
            assert torch.allclose(alone(**inputs).logits[0], ours[place], atol=1e-4)


def test_a_task_of_pairs_is_compiled() -> None:
    made = compiled("glosses", overrides={"finetune.head": {"name": "pair_classification", "max_tokens": 64}})
    head = json.loads(str(made.parameters["finetune_params"]))["finetune"]["head"]
    assert (head["name"], head["max_tokens"], head["pooling"]) == ("pair_classification", 64, "cls")


def precision_by_definition(scores: np.ndarray, positive: np.ndarray) -> float:
    """Sum over the thresholds of the rise of recall times the precision there."""
    total = recall = 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        now = positive[chosen].sum() / positive.sum()
        total, recall = total + (now - recall) * positive[chosen].mean(), now
    return total


def test_average_precision_is_that_of_scikit_learns_documentation() -> None:
    """https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html: 0.83..."""
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    found = ranked_pairs(np.arange(4), labels, np.stack([1 - scores, scores], axis=1))
    assert found.score == AVERAGE_PRECISION
    assert found.value == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_average_precision_of_rows_drawn_is_that_of_rows_written_out() -> None:
    draw = np.random.default_rng(0)
    scores, labels = draw.integers(0, 8, 40) / 8, draw.integers(0, 2, 40)
    weights = draw.integers(0, 3, (5, 40))
    found = ranked_pairs(np.arange(40), labels, np.stack([1 - scores, scores], axis=1))
    for value, times in zip(found.values(weights.astype(float)), weights, strict=True):
        rows = np.repeat(np.arange(40), times)
        assert value == pytest.approx(precision_by_definition(scores[rows], labels[rows] == 1))
    three = ranked_pairs(np.arange(3), np.arange(3), np.eye(3))
    assert np.isnan(three.value), "of three classes there is no second one against the first"
