"""How a class is chosen, how far its probability can be believed, and when the answer is that it is not known."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

from commands import on_store
from pydantic import ValidationError

from graftline.errors import InputError
from graftline.problems.classes import ClassAnswers
from graftline.problems.deciding_parameters import Calibration, Cost, DecidingParams, cost_matrix
from graftline.problems.decisions import Decision, fit_temperature, set_limits
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.model import load_model, read_problem
from graftline.problems.scores import ACCURACY_AT_80, COST, ECE, SET_COVERAGE, SET_SIZE, surest_rows
from graftline.records.folder import verify
from graftline.report import write_report
from graftline.store.opening import open_store
from graftline.tasks.finetune import FinetuneParams

CALIBRATED = {**small.PARAMS, "finetune": {**small.PARAMS["finetune"], "head": {
    "name": "image_classification", "calibration": {"coverage": 0.8},
}}}  # fmt: skip


def noisy(count: int, seed: int, sharper: float = 1.0) -> tuple[torch.Tensor, np.ndarray]:
    """Return (count, 4) logits whose softmax is the true chance of each label, times `sharper`; and labels so drawn."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (count, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (shares.cumsum(axis=1) > draw.random((count, 1))).argmax(axis=1)
    return torch.from_numpy(sharper * logits).float(), labels


def answers(decision: Decision, logits: torch.Tensor, labels: np.ndarray) -> ClassAnswers:
    scores = ImageClassificationParams.scores
    return ClassAnswers.of(scores, np.arange(len(labels)), torch.from_numpy(labels), decision.decide(logits))


def fitted(params: DecidingParams, logits: torch.Tensor, labels: np.ndarray) -> Decision:
    rows = np.arange(len(labels))
    return Decision.of(params, range(4)).fitted(params, logits, labels, np.ones(len(labels)), rows)


def cost(actual: str, chosen: str, of: float) -> Cost:
    return Cost(actual=actual, chosen=chosen, cost=of)


def params(**values: Any) -> DecidingParams:
    return ImageClassificationParams(**{"calibration": Calibration(), **values})


def test_the_temperature_of_logits_three_times_too_sharp_is_three_and_ece_falls() -> None:
    decision = fitted(params(), *noisy(4000, 0, sharper=3.0))
    assert decision.temperature == pytest.approx(3.0, rel=0.08)
    logits, labels = noisy(4000, 1, sharper=3.0)
    plain, cooled = answers(Decision(), logits, labels), answers(decision, logits, labels)
    before, after = (of.statistics(ECE).value for of in (plain, cooled))
    assert before > 0.1 and after < 0.03
    assert np.array_equal(plain.predicted, cooled.predicted)
    assert cooled.loss < plain.loss


@given(st.floats(0.05, 20), st.integers(0, 2**16))
def test_a_temperature_never_changes_the_choice(temperature: float, seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 5, (50, 6))).float()
    logits[:, 1] = torch.nextafter(logits[:, 0], torch.tensor(9.0))  # a neighbour: dividing may make them equal
    chosen = Decision(temperature=temperature).decide(logits).chosen
    assert np.array_equal(chosen, logits.softmax(dim=1).numpy().argmax(axis=1))


def test_weights_of_val_are_heeded_by_temperature_and_limits() -> None:
    (one, of_one), (two, of_two) = noisy(1500, 0), noisy(1500, 1, sharper=4.0)
    logits, labels = torch.cat([one, two]).numpy(), np.concatenate([of_one, of_two])
    weights = np.repeat([1.0, 1e-9], 1500)
    assert fit_temperature(logits, labels, weights) == pytest.approx(1.0, rel=0.1)
    right = np.linspace(0, 1, 100)
    assert set_limits(right, np.repeat([1e-9, 1.0], 50))[49] > set_limits(right, np.ones(100))[49] > 0.4


def test_limits_are_the_order_statistics_that_the_theorem_names() -> None:
    right = np.array([0.9, 0.1, 0.5, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4])  # 9 rows: the 10th is asked
    limits = set_limits(right, np.ones(9))
    assert limits[9] == 0.9, "10%: the largest of 9"
    assert limits[49] == 0.5, "50%: the 5th of 10"
    assert limits[50] == 0.4, "51%: the 6th, not less than asked for"
    assert limits[89] == 0.1, "90%: the smallest"
    assert limits[90] == 0.0, "91%: 9 rows cannot promise it, every class is in the set"
    assert (np.diff(limits) <= 0).all()


def test_sets_hold_the_right_class_as_often_as_promised_over_many_draws() -> None:
    """The mean over draws of val and test lies between c and c + 1 / (n + 1), the theorem's two bounds."""
    found = []
    for seed in range(300):
        logits, labels = noisy(100, seed)
        decision = fitted(params(calibration=Calibration(temperature=False)), logits[:60], labels[:60])
        found.append(answers(decision, logits[60:], labels[60:]).statistics(SET_COVERAGE).value)
    deviation = np.std(found) / np.sqrt(len(found))
    assert 0.9 - 3 * deviation <= np.mean(found) <= 0.9 + 1 / 61 + 3 * deviation


def test_the_class_of_least_expected_cost_is_chosen_as_by_hand() -> None:
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]]).log()
    matrix = cost_matrix([cost("a", "b", 4), cost("a", "c", 0.5), cost("b", "a", 10)], ["a", "b", "c"])
    assert matrix is not None and matrix.tolist() == [[0, 4, 0.5], [10, 0, 1], [1, 1, 0]]
    # a: 0.2 * 10 + 0.1 = 2.1; b: 0.7 * 4 + 0.1 = 2.9; c: 0.7 * 0.5 + 0.2 = 0.55. Then a: 9.05, b: 0.25, c: 0.925.
    decided = Decision(matrix).decide(logits)
    assert decided.chosen.tolist() == [2, 1]
    assert decided.confidence.tolist() == pytest.approx([0.1, 0.9])
    found = ClassAnswers.of(ImageClassificationParams.scores, np.arange(2), torch.tensor([0, 2]), decided)
    assert found.statistics(COST).value == pytest.approx((0.5 + 1) / 2)
    assert Decision().decide(logits).chosen.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"finetune.head.costs.1: unknown class 'bb'.*expected one of a, b, c"):
        cost_matrix([cost("a", "b", 1), cost("a", "bb", 1)], ["a", "b", "c"])


def test_accuracy_of_the_surest_by_hand() -> None:
    confidence, right = np.array([0.9, 0.5, 0.8, 0.7, 0.6]), np.array([True, False, True, False, True])
    found = surest_rows(np.arange(5), confidence, right)
    assert found.value == pytest.approx(3 / 4), "0.5 is left out"
    assert found.values(np.array([[0.0, 2, 0, 1, 2]]))[0] == pytest.approx(2 / 4), "0.7, twice 0.6, half of the 0.5s"
    assert surest_rows(np.arange(4), np.full(4, 0.7), right[:4]).value == pytest.approx(0.5), "ties count in part"
    words = surest_rows(np.array([7, 7, 3, 3, 3]), confidence, right)
    assert words.rows.tolist() == [3, 7] and words.value == found.value
    assert words.values(np.array([[0.0, 1.0]]))[0] == pytest.approx(1 / 1.6), "row 7: one of 1.6 words is right"
    assert surest_rows(np.arange(3), np.ones(3), np.zeros(3, bool)).value == 0


def test_weights_count_in_the_curve_of_risk_and_in_the_sets(tmp_path: Path) -> None:
    """As if each row stood there as often as its weight says."""
    decision, (logits, labels) = fitted(params(), *noisy(400, 0)), noisy(60, 1)
    weights = 1 + np.arange(60) % 3
    weighed = replace(answers(decision, logits, labels), weights=(np.arange(60), weights.astype(float)))
    again = np.repeat(np.arange(60), weights)
    repeated = answers(decision, logits[again], labels[again])
    (order, hits, counted), (_, every, one) = weighed.surest(), repeated.surest()
    ends = weights[order].cumsum() - 1
    assert np.array_equal(hits, every[ends]) and np.array_equal(counted, one[ends]) and counted[-1] == len(again)
    told = []
    for number, found in enumerate((weighed, repeated)):
        (tmp_path / str(number)).mkdir()
        found._write_doubt(tmp_path / str(number))
        told.append(json.loads((tmp_path / str(number) / "sections.json").read_text()))
    assert told[0][0]["lines"][0] == told[1][0]["lines"][0], "all answered"
    for one, other in zip(told[0][1]["lines"], told[1][1]["lines"], strict=True):
        assert one[1].split()[0] == other[1].split()[0] and one[3:] == other[3:]
        assert one[2] != other[2], "the law: fewer rows know less"
    assert told[0][1]["note"].replace("60 of test", "120 of test") == told[1][1]["note"]


def test_scores_that_need_a_parameter_are_not_defined_without_it() -> None:
    found = answers(Decision(), *noisy(50, 0))
    assert all(np.isnan(found.statistics(score).value) for score in (SET_COVERAGE, SET_SIZE, COST))
    assert not np.isnan(found.statistics(ACCURACY_AT_80).value)


def test_calibration_without_labels_held_out_is_refused() -> None:
    head = {"name": "image_classification", "calibration": {}}
    with pytest.raises(ValidationError, match=r"head\.calibration needs labels held out"):
        FinetuneParams(head=head, labels_per_class=5)
    assert FinetuneParams(head={"name": "image_classification"}, labels_per_class=5).head.holds_out is None


def test_what_is_off_is_not_in_a_models_facts(home: Path) -> None:
    facts = json.loads((small.released(home) / "model/head.json").read_text())
    assert not facts.keys() & {"temperature", "limits"}
    assert not facts["head"].keys() & {"calibration", "costs"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def calibrated(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of the small task of digits, with a calibrated head."""
    folder = tmp_path_factory.mktemp("calibrated")
    for name, made in (("dataset", small.dataset), ("trunk", small.trunk)):
        shutil.copytree(made(home), folder / name)
    return small.release_of(folder / "trunk", folder / "dataset", CALIBRATED)


def test_on_real_digits_sets_hold_the_right_class_within_the_laws_interval(calibrated: Path) -> None:
    """Of n calibration rows and m test rows, the number of right sets is beta-binomial (arXiv:2107.07511, 3.2)."""
    metrics = json.loads((calibrated / "evaluation/metrics.json").read_text())
    n, m = pq.read_metadata(calibrated / "dataset/val.parquet").num_rows, metrics["n_test_rows"]
    least = int(np.ceil((n + 1) * 0.8))
    low, high = betabinom.ppf([0.005, 0.995], m, least, n + 1 - least) / m
    assert low <= metrics["set_coverage"] <= high < 1
    assert metrics["set_coverage_low"] <= metrics["set_coverage"] <= metrics["set_coverage_high"]
    table = pq.read_table(calibrated / "evaluation/predictions.parquet").to_pydict()
    held = [actual in members for actual, members in zip(table["label"], table["set"], strict=True)]
    assert np.mean(held) == pytest.approx(metrics["set_coverage"])
    assert np.mean([len(members) for members in table["set"]]) == pytest.approx(metrics["set_size"])
    assert metrics["accuracy_at_80"] >= metrics["accuracy"]
    assert "cost" not in metrics["scores"]


def test_weights_are_those_of_the_uncalibrated_model_and_a_loaded_model_answers_alike(
    calibrated: Path, home: Path
) -> None:
    weights = [(of / "model/model.safetensors").read_bytes() for of in (calibrated, small.released(home))]
    plain = json.loads((small.released(home) / "model/metrics.json").read_text())
    told = json.loads((calibrated / "model/metrics.json").read_text())
    assert plain["steps"] == told["steps"] and weights[0] == weights[1]
    facts = verify(calibrated / "model") and json.loads((calibrated / "model/head.json").read_text())
    assert facts["temperature"] > 0 and len(facts["limits"]) == 99
    test = read_problem(calibrated / "model").read(calibrated / "dataset", "test", calibrated / "model")
    again = load_model(calibrated / "model").answer(test)
    table = pq.read_table(calibrated / "evaluation/predictions.parquet").to_pydict()
    assert np.allclose(again.confidence, table["confidence"], atol=1e-6)


def test_costs_are_heeded_by_a_loaded_model(calibrated: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(calibrated / "model", tmp_path / "model"))
    facts = json.loads((folder / "head.json").read_text())
    facts["head"]["costs"] = [{"actual": actual, "chosen": 8, "cost": 1e6} for actual in range(8)]
    (folder / "head.json").write_text(json.dumps(facts))
    test = read_problem(folder).read(calibrated / "dataset", "test", folder)
    found = load_model(folder).answer(test)
    assert 8 in found.labels and 8 not in found.predicted
    assert found.statistics(COST).value == pytest.approx(np.mean(found.predicted != found.labels))


def test_predict_says_when_it_does_not_know(
    calibrated: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = partial(on_store(calibrated / "store", monkeypatch, capsys), "predict", "digits@1")
    rows = calibrated / "dataset/test.parquet"
    code, out, error = predict(rows, "--json", "--coverage", "0.95")
    assert (code, error) == (0, "")
    found = json.loads(out)
    labels = pq.read_table(rows)["label"].to_pylist()
    assert np.mean([label in one["set"] for label, one in zip(labels, found, strict=True)]) > 0.85
    for one in found:
        assert one["known"] == (one["set"] == [one["label"]]) and one["coverage"] == 0.95
        least = min((one["probabilities"][str(name)] for name in one["set"]), default=1)
        assert all(p < least for name, p in one["probabilities"].items() if int(name) not in one["set"])
    assert 0 < sum(one["known"] for one in found) < len(found)
    told = predict(rows, "--coverage", "0.95")[1]
    assert told.count("do not know: ") == sum(not one["known"] for one in found)
    assert "set" not in json.loads(predict(rows, "--json")[1])[0]
    for none in ("0.955", "nan", "inf", "0", "1"):
        assert "0.01 to 0.99, in steps of 0.01" in predict(rows, "--coverage", none)[2]
    code, out, error = predict(rows, "--coverage", "0.9", store=small.released(home) / "store")
    assert (code, out) == (2, "") and "set finetune.head.calibration to {}" in error


def test_the_report_shows_risk_and_sets(calibrated: Path) -> None:
    page = write_report(calibrated, open_store(str(calibrated / "store")), calibrated / "report.html").read_text()
    assert "Knowing when it does not know" in page and "Sets of classes" in page
    sections = json.loads((calibrated / "evaluation/sections.json").read_text())
    assert [line[0] for line in sections[0]["lines"]] == ["100%", "95%", "90%", "80%", "70%", "50%"]
    accuracy = json.loads((calibrated / "evaluation/metrics.json").read_text())["accuracy"]
    assert sections[0]["lines"][0][1] == f"{accuracy:.2%}"
    assert "without it" in sections[1]["note"]
