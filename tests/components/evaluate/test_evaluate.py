"""The component on real digits: what it writes agrees with itself, and the champion is who it says."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom

from graftline.components.evaluate.champion import _obstacle, compare_with_champion
from graftline.components.evaluate.predict import predict
from graftline.evaluation import lift
from graftline.evaluation.lift import Fit, Run, _point
from graftline.gate import Gate, decide
from graftline.lift_names import lift_counts
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.records.folder import verify
from graftline.records.model import Dependency
from graftline.releases.catalogue import Release
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.score import t_interval
from graftline.store.opening import open_store
from graftline.tasks.evaluate import label_name

if TYPE_CHECKING:
    from conftest import Evaluation, Parts

PICTURES = ("confusion.png", "lift.png", "mistakes.png", "reliability.png")


def release(store: Path, model: Path) -> Release:
    """Make `model` the champion."""
    files = {name: model / name for name in ("head.json", "model.safetensors")}
    before = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "ece": 0.1}  # no scores are named
    draft = ReleaseDraft("digits", files, {}, before)
    return publish(open_store(str(store)), draft, Publication("first", fresh=True)).release


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_output_is_the_same_for_one_worker_and_for_two(evaluate: Callable[..., Evaluation]) -> None:
    one, two = (evaluate(threads=threads, out=f"with-{threads}") for threads in (1, 2))
    assert (one.code, two.code) == (0, 0), one.error + two.error
    assert (one.out / "record.json").read_bytes() == (two.out / "record.json").read_bytes()
    check_numbers(one)


def test_where_the_trunk_is_probed_the_arm_from_scratch_is_trained_all_the_same(
    evaluate: Callable[..., Evaluation],
) -> None:
    plain, probed = (
        evaluate({"lift_labels": [3, 12]}, out=out, finetune={"probe_below": below}).json("lift.json")
        for out, below in (("plain", 3), ("probed", 4))
    )
    assert "probed" not in plain and probed["probed"] == ["3"]
    fits = [{(run["labels"], run["arm"], run["seed"]): run for run in found["runs"]} for found in (plain, probed)]
    assert fits[0].keys() == fits[1].keys()
    assert {fit[:2] for fit in fits[0] if fits[0][fit] != fits[1][fit]} == {("3", "trunk")}


def check_numbers(done: Evaluation) -> None:
    """Work the figures out again from the tables beside them."""
    metrics, table = done.json("metrics.json"), pq.read_table(done.out / "predictions.parquet").to_pydict()
    right = [actual == predicted for actual, predicted in zip(table["label"], table["predicted"], strict=True)]
    assert (metrics["n_test"], metrics["n_test_rows"], len(set(table["row"]))) == (300, 300, 300)
    ends = tuple(binom.ppf([0.025, 0.975], 300, sum(right) / 300) / 300)
    assert metrics["accuracy"] == sum(right) / 300
    assert (metrics["accuracy_low"], metrics["accuracy_high"]) == pytest.approx(ends, abs=1.01 / 300)
    assert metrics["primary"] == "accuracy"
    only_if_asked = {"set_coverage", "set_size", "cost"}
    known = {score.name for score in ImageClassificationParams.scores} - only_if_asked
    assert list(metrics["scores"]) == sorted(known)
    for name, told in metrics["scores"].items():
        assert told["value"] == metrics[name]
        assert told["interval"] == [metrics[f"{name}_low"], metrics[f"{name}_high"]]
        assert told["interval"][0] <= told["value"] <= told["interval"][1] or name == "ece"
        assert told["direction"] == ("lower" if name == "ece" else "higher")
    assert table["confidence"] == [max(probabilities) for probabilities in table["probabilities"]]
    assert table["predicted"] == [p.index(max(p)) for p in table["probabilities"]]

    pairs = Counter((int(line["actual"]), int(line["predicted"])) for line in rows(done.out / "confusion.csv"))
    for number, line in enumerate(done.json("classes.json")):
        assert (line["class"], line["support"]) == (number, 30)
        assert line["recall"] == pairs[number, number] / 30
        ends = binom.ppf([0.025, 0.975], 30, line["recall"]) / 30
        assert line["recall_interval"] == pytest.approx(ends, abs=2.1 / 30) or line["recall"] in (0, 1)
        assert line["recall_interval"][0] <= line["recall"] <= line["recall_interval"][1]
    assert metrics["min_class_recall"] == min(line["recall"] for line in done.json("classes.json"))

    runs = {(run["labels"], run["seed"], run["arm"]): run for run in done.json("lift.json")["runs"]}
    assert len(runs) == 8
    for name, examples in (("3", 30), ("all", 300)):
        pairs_of_runs = [(runs[name, seed, "trunk"], runs[name, seed, "scratch"]) for seed in (0, 1)]
        for trunk, scratch in pairs_of_runs:
            assert trunk["examples"] == scratch["examples"] == examples
            assert trunk["subset"] == scratch["subset"]
        lift = t_interval([trunk["value"] - scratch["value"] for trunk, scratch in pairs_of_runs])
        assert [metrics[f"lift_{name}{end}"] for end in ("", "_low", "_high")] == [lift.value, lift.low, lift.high]
    assert runs["3", 0, "trunk"]["subset"] != runs["3", 1, "trunk"]["subset"]
    assert [line["labels"] for line in rows(done.out / "lift.csv")] == ["3", "30.0"]

    record = verify(done.out)
    assert record.metrics == metrics
    assert record.environment["threads"] == 1
    assert {"finetune", "evaluate"} == set(record.parameters)
    for name in PICTURES:
        assert (done.out / name).read_bytes().startswith(b"\x89PNG")


def test_a_significantly_better_champion_blocks_and_scratch_does_not_know_the_trunk(
    evaluate: Callable[..., Evaluation], parts: Parts, tmp_path: Path
) -> None:
    champion = release(tmp_path / "store", parts.good)
    done = evaluate({"lift_labels": [3]}, model=parts.weak)
    assert done.code == 0, done.error
    decision = done.json("decision.json")
    assert not decision["passed"]
    assert decision["reason"].startswith("failed: max_champion_loss: -")
    assert decision["champion"] == {"version": 1, "digest": champion.digest}
    metrics = done.json("metrics.json")
    assert metrics["champion_difference"] == pytest.approx(metrics["accuracy"] - metrics["champion_accuracy"])
    assert Dependency("champion", champion.digest) in verify(done.out).inputs

    other = evaluate({"lift_labels": [3]}, trunk=parts.other_trunk, out="other").json("metrics.json")
    assert other["scratch_3"] == metrics["scratch_3"]
    assert other["trunk_3"] != metrics["trunk_3"]


def compare(parts: Parts, store: Path, challenger: Path):
    predictions = predict(challenger, parts.dataset)
    return compare_with_champion(
        open_store(str(store)), "digits", parts.dataset, challenger, predictions.answers, resamples=2000, seed=0
    ), predictions.answers.value


def test_a_champion_compared_with_itself_differs_by_nothing(parts: Parts, tmp_path: Path) -> None:
    release(tmp_path / "store", parts.good)
    comparison, _ = compare(parts, tmp_path / "store", parts.good)
    difference = comparison.difference
    assert (difference.low, difference.value, difference.high) == (0.0, 0.0, 0.0)


def test_the_champion_that_is_compared_is_the_released_model_and_not_the_challenger(
    parts: Parts, tmp_path: Path
) -> None:
    release(tmp_path / "store", parts.weak)
    comparison, accuracy = compare(parts, tmp_path / "store", parts.good)
    weak = predict(parts.weak, parts.dataset).answers.value
    assert accuracy - weak > 0.1
    assert comparison.value == weak
    assert comparison.difference.value == pytest.approx(accuracy - weak)
    assert comparison.difference.low > 0


def test_a_score_that_the_test_rows_do_not_define_is_not_compared(parts: Parts, tmp_path: Path) -> None:
    release(tmp_path / "store", parts.good)
    undefined = replace(ImageClassificationParams.scores[0], value=lambda sums: np.full(sums.shape[:-1], np.nan))
    answers = replace(predict(parts.good, parts.dataset).answers, scores=(undefined,))
    store = open_store(str(tmp_path / "store"))
    found = compare_with_champion(store, "digits", parts.dataset, parts.good, answers, resamples=50, seed=0)
    assert found.difference is None
    assert found.metrics() == {}
    rule = decide(Gate(), {}, found).rules[0]
    assert (rule.passed, rule.value) == (False, None)
    assert "accuracy is not defined on these test rows" in rule.note


def test_label_counts_without_a_value_are_left_out_and_their_rule_fails(
    evaluate: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    def undefined_with_few(run: object, fits: list[Fit], **how: object) -> list[Run]:
        values = {3: float("nan"), None: 0.5}
        return [Run(label_name(fit.labels), fit.seed, fit.arm, 9, f"{fit.labels}", values[fit.labels]) for fit in fits]

    monkeypatch.setattr(lift, "run_all", undefined_with_few)
    done = evaluate({"gate": {"min_lift": {"3": 0.0, "all": 0.0}}})
    assert done.code == 0, done.error
    assert lift_counts(done.json("metrics.json")) == ["all"]
    assert [point["name"] for point in done.json("lift.json")["points"]] == ["all"]
    assert {run["value"] for run in done.json("lift.json")["runs"]} == {None, 0.5}
    assert done.json("decision.json")["reason"].startswith("failed: min_lift.3: not defined on these test rows")


def test_a_champion_of_other_features_is_not_compared(parts: Parts, tmp_path: Path) -> None:
    model = shutil.copytree(parts.good, tmp_path / "model")
    config = json.loads((model / "head.json").read_text())
    for more in ([], [config["feature"]]):
        (model / "head.json").write_text(json.dumps({**config, "more": more}))
        obstacle = _obstacle(model, release(tmp_path / f"store{len(more)}", model), parts.good)
        assert ("features are ['image', 'image'], the dataset's ['image']" in obstacle) is bool(more)


def test_without_a_release_there_is_no_comparison(parts: Parts, tmp_path: Path) -> None:
    assert compare(parts, tmp_path / "store", parts.good)[0] is None


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("classes", list(range(9)), "classes are"),
        ("feature", {"type": "image", "name": "image", "shape": [14, 14], "maximum": 255}, "image shape is"),
    ],
)
def test_a_champion_of_other_classes_or_shape_is_named_and_not_compared(
    parts: Parts, tmp_path: Path, key: str, value: object, found: str
) -> None:
    model = shutil.copytree(parts.good, tmp_path / "model")
    config = json.loads((model / "head.json").read_text())
    (model / "head.json").write_text(json.dumps({**config, key: value}))
    release(tmp_path / "store", model)
    comparison, _ = compare(parts, tmp_path / "store", parts.good)
    assert comparison.difference is None
    assert f"digits@1: its {found} " in comparison.obstacle
    assert comparison.metrics() == {}


def test_a_changed_champion_is_refused_before_it_is_read(
    evaluate: Callable[..., Evaluation], parts: Parts, tmp_path: Path
) -> None:
    release(tmp_path / "store", parts.good)
    weights = tmp_path / "store" / "releases" / "digits" / "1" / "model.safetensors"
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = evaluate()
    assert done.code == 2
    assert "model.safetensors: sha256" in done.error
    assert not done.out.exists()


def test_more_labels_than_a_class_has_is_bad_input(evaluate: Callable[..., Evaluation]) -> None:
    done = evaluate({"lift_labels": [31]})
    assert done.code == 2
    assert "lift_labels: 31 labels a class; expected at most 30, which class 0 has in train" in done.error
    assert not done.out.exists()


def test_arms_that_learnt_from_different_examples_are_not_compared() -> None:
    def done(arm: str, seed: int, subset: str) -> Run:
        return Run("5", seed, arm, 50, subset, 0.9)

    paired = [done(arm, seed, f"subset {seed}") for arm in ("trunk", "scratch") for seed in (0, 1)]
    score = ImageClassificationParams.scores[0]
    assert _point(score, 5, 5, paired).lift.value == 0
    with pytest.raises(AssertionError, match="different examples"):
        _point(score, 5, 5, [*paired[:3], done("scratch", 1, "another")])


def test_what_the_model_looks_at_is_measured_if_it_is_asked_for(evaluate: Callable[..., Evaluation]) -> None:
    margin = "explain_integrated_gradients_margin"
    few = {"lift_labels": [3]}
    done = evaluate({"explain": {"rows": 20, "shown": 2}, "gate": {"floors": {margin: 0.0}}, **few})
    assert done.code == 0, done.error
    metrics, told = done.json("metrics.json"), done.json("explain.json")
    assert metrics["explain_rows"] == len(told["rows"]) == 20
    assert [one["method"] for one in told["methods"]] == ["random_order", "integrated_gradients", "occlusion"]
    for one in told["methods"]:
        for measure in ("comprehensiveness", "sufficiency", "deletion"):
            assert metrics[f"explain_{one['method']}_{measure}"] == one[measure]["value"]
    assert metrics[margin] > 0, "of a model that tells digits, the pixels are found"
    assert "no attention" in told["missing"]["attention_rollout"]
    assert metrics["explain_nearest_same_class"] > 0.5 > metrics["explain_nearest_same_class_random_weights"] / 2
    rule = next(rule for rule in done.json("decision.json")["rules"] if rule["name"] == f"floors.{margin}")
    assert rule["value"] == metrics[margin] and rule["passed"]
    _, seen, believed = done.json("sections.json")
    assert seen["picture"] == "explanations.png" and (done.out / "explanations.png").is_file()
    assert [line[0] for line in believed["lines"]] == ["random order", "integrated gradients", "occlusion"]
    plain = evaluate(few, out="plain")
    assert not {name for name in plain.json("metrics.json") if name.startswith("explain")}
    assert not (plain.out / "explain.json").exists()


def test_slices_have_scores_of_their_own_and_the_gate_asks_for_them(evaluate: Callable[..., Evaluation]) -> None:
    gate = {"slices": {"label=3": {"accuracy": 0.01}, "label=3 & label=4": {"accuracy": 0.01}}}
    done = evaluate({"slices": {"columns": ["label"], "find": 2}, "gate": gate, "lift_labels": [3]})
    assert done.code == 0, done.error
    recalls = {f"label={line['class']}": line["recall"] for line in done.json("classes.json")}
    slices = {one["name"]: one for one in done.json("slices.json")["slices"]}
    assert {name: slices[name]["value"]["value"] for name in recalls} == pytest.approx(recalls)
    assert slices["label=3 & label=4"]["verdict"] == "too small to judge: fewer than 30 rows"
    rules = {rule["name"]: rule for rule in done.json("decision.json")["rules"]}
    assert rules["slices.label=3.accuracy"]["value"] == pytest.approx(recalls["label=3"])
    assert not rules["slices.label=3 & label=4.accuracy"]["passed"]
    kinds = {gap["kind"]: gap for gap in done.json("slices.json")["gaps"]}
    assert set(kinds) == {"demographic parity"}, "of one label only there is one class in a group"
    assert done.json("metrics.json")["slices_judged"] == 10
    assert [section["title"] for section in done.json("sections.json")][1] == "Whom it fails"
    wrong = evaluate({"slices": {"columns": ["labl"]}, "lift_labels": [3]}, out="wrong")
    assert wrong.code == 2 and "did you mean 'label'" in wrong.error
