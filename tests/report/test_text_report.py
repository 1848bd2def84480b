"""The report of a task of text: mistakes as a table, samples, and no place for pictures that there are not."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from graftline.problems.regression_parameters import RegressionParams
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.problems.token_classification.parameters import TokenClassificationParams
from graftline.report import write_report
from graftline.score import Estimate, as_metrics
from graftline.store.opening import open_store

LIFT = {"trunk_2": 0.5, "scratch_2": 0.4, "lift_2": 0.1, "lift_2_low": 0.05, "lift_2_high": 0.15}
HOSTILE = "<script>alert(1)</script> \u05e9\u05dc\u05d5\u05dd \U0001f600"


def page(released: Path, outputs: Path, metrics: dict[str, Any] | None = None) -> str:
    shutil.copytree(released, outputs)
    (outputs / "trunk/reconstructions.png").unlink()
    (outputs / "model/curve.png").unlink()
    (outputs / "evaluation/mistakes.png").unlink()
    line = {"row": 1, "text": HOSTILE, "label": "noun.act", "predicted": "noun.event", "confidence": 0.875}
    (outputs / "evaluation/mistakes.json").write_text(json.dumps({"wrong": 7, "worst": [line]}))
    samples = [{"prompt": "a <b>", "text": "of " + HOSTILE}]
    (outputs / "evaluation/samples.json").write_text(json.dumps(samples))
    lift = json.loads((outputs / "evaluation/lift.json").read_text())
    (outputs / "evaluation/lift.json").write_text(json.dumps({**lift, "amount": "sentences", "probed": ["2"]}))
    if metrics is not None:
        (outputs / "evaluation/metrics.json").write_text(json.dumps(metrics))
    store = open_store(str(released / "store"))
    return write_report(outputs, store, outputs / "report.html").read_text()


def test_texts_are_shown_and_escaped(released: Path, tmp_path: Path) -> None:
    shown = page(released, tmp_path / "outputs")
    assert "The 1 most confident of 7 wrong answers." in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \u05e9\u05dc\u05d5\u05dd \U0001f600" in shown
    assert "<script>alert" not in shown
    assert "<b>a &lt;b&gt;</b>of " in shown
    assert ">87.5%<" in shown


def test_what_is_counted_is_named_and_missing_pictures_have_no_section(released: Path, tmp_path: Path) -> None:
    words = {score: Estimate(0.5, 0.4, 0.6) for score in TokenClassificationParams.scores}
    shown = page(released, tmp_path / "outputs", as_metrics(words) | LIFT)
    assert "points of lift at 2 sentences" in shown
    assert "test accuracy a word" in shown
    assert "95%: 40.00 to 60.00" in shown
    assert "At 2 sentences the pretrained trunk is left as it is" in shown
    assert "Reconstructions" not in shown and "Fine-tuning</h2>" not in shown
    assert "Quality and budget" not in shown


def test_what_the_model_does_not_see_is_said_and_each_class_is_shown(released: Path, tmp_path: Path) -> None:
    whole = page(released, tmp_path / "whole")
    assert "What the model does not see" not in whole
    classes = json.loads((released / "evaluation/classes.json").read_text())
    assert f"<td>{classes[3]['class']}</td>" in whole and f"{100 * classes[3]['recall']:.1f}%</td>" in whole
    low, high = classes[3]["recall_interval"]
    assert f">{100 * low:.1f} to {100 * high:.1f}</td>" in whole
    metrics = json.loads((released / "evaluation/metrics.json").read_text())
    cut = {"test_cut": 1200, "test_tokens_cut": 0.25, "test_seen": 7, "test_seen_conflicts": 2}
    shown = page(released, tmp_path / "cut", {**metrics, **cut})
    assert "1,200 test rows are longer than the model reads: 25.0% of all test tokens are cut off." in shown
    assert "7 test rows are equal to a training row; 2 of them have a label that the others have not." in shown


def test_a_score_of_which_less_is_better_is_no_percentage(released: Path, tmp_path: Path) -> None:
    perplexity, accuracy, _ = TextGenerationParams.scores
    measured = {perplexity: Estimate(41.5, 40.25, 43.0), accuracy: Estimate(0.25, 0.24, 0.26)}
    lift = {"trunk_2": 41.5, "scratch_2": 53.5, "lift_2": 12.0, "lift_2_low": 10.0, "lift_2_high": 14.0}
    shown = page(released, tmp_path / "outputs", as_metrics(measured) | lift)
    assert "<b>41.5</b>test perplexity of the tokens" in shown
    assert "95%: 40.25 to 43" in shown
    assert "<b>+12.0</b>lift at 2 sentences" in shown
    assert "less is better" in shown
    assert "<b>25.00%</b>test accuracy of the next token" in shown


def test_a_primary_score_without_a_value_is_said_to_have_none(released: Path, tmp_path: Path) -> None:
    scores = RegressionParams.scores
    measured = {scores[0]: Estimate(math.nan, math.nan, math.nan), scores[1]: Estimate(0.5, 0.25, 0.75)}
    shown = page(released, tmp_path / "outputs", as_metrics(measured))
    assert "<b>not defined</b>test r2" in shown
    assert "<b>0.5</b>test mean absolute error" in shown
    no_score = page(released, tmp_path / "none", {"primary": "r2", "scores": {}})
    assert "<b>not defined</b>test r2" in no_score


def test_an_evaluation_from_before_scores_were_named_has_a_page(released: Path, tmp_path: Path) -> None:
    before = {"accuracy": 0.975, "accuracy_low": 0.96, "accuracy_high": 0.98, "ece": 0.02, "n_test": 300}
    shown = page(released, tmp_path / "outputs", before | LIFT)
    assert "<b>97.50%</b>test accuracy" in shown
    assert "95%: 96.00 to 98.00" in shown
    assert "points of lift" in shown
