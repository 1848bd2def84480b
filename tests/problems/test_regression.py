"""The heads that tell numbers, through all five components, on real images and real texts.

What is told is in `small_numbers`.
The margin was chosen before the first run: at least half of the variance of the test rows is explained. What always
tells the mean of the training rows explains none of it.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import small_numbers
import small_text
import torch

from graftline.cli.app import main
from graftline.dataset import read_schema, read_split
from graftline.errors import InputError, RefusalError
from graftline.gate import Gate, decide, read_decision
from graftline.learning.distributed import World
from graftline.pipelines.compile import compiled, component_params
from graftline.problems.image_regression.parameters import ImageRegressionParams
from graftline.problems.model import load_model, read_facts, read_problem
from graftline.problems.registry import make_problem
from graftline.problems.regression import NumberAnswers, Scale, half_widths
from graftline.problems.regression_parameters import COVERAGE, MAE, R2, RMSE, WIDTH
from graftline.problems.text_regression.parameters import TextRegressionParams
from graftline.report import write_report
from graftline.score import estimate
from graftline.store.opening import open_store

MARGIN = 0.5
EVALUATE = {"lift_labels": [30], "lift_seeds": 2, "lift_epochs": 1, "lift_test_rows": 60, "mistakes": 6}
GATE = {"floors": {"r2": MARGIN, "coverage": 0.5}, "ceilings": {"rmse": 5}, "min_lift": {"30": -1}}
IMAGES: dict[str, Any] = {
    "pretrain": {"epochs": 3, "batch": 64, "trunk": small.TRUNK},
    "finetune": {
        "head": {"name": "image_regression"},
        "epochs": 6,
        "batch": 32,
        "min_steps": 10,
        "learning_rate": 0.01,
    },
    "evaluate": {**EVALUATE, "gate": GATE},
}
TEXTS: dict[str, Any] = {
    "pretrain": small_text.PRETRAIN,
    "finetune": {
        "head": {"name": "text_regression", "precision": "float32", "intervals": "gaussian", "coverage": 0.8},
        "epochs": 3, "batch": 32, "min_steps": 10, "learning_rate": 0.01,
    },
    "evaluate": {**EVALUATE, "gate": GATE},
}  # fmt: skip
DOCUMENTS = {"images": IMAGES, "texts": TEXTS}
COLUMNS = ("label", "predicted", "low", "high")


@pytest.fixture(scope="module", params=["images", "texts"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    return {}


def made(kind: str, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with what the five components made; once for all tests."""
    if kind not in folders:
        folders[kind] = released(kind, tmp_path_factory.getbasetemp())
    return folders[kind]


@pytest.fixture
def folder(kind: str, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(kind, folders, tmp_path_factory)


def released(kind: str, home: Path) -> Path:
    dataset, document = small_numbers.dataset(home, kind), DOCUMENTS[kind]
    trunk = dataset.with_name("trunk")
    small.make("pretrain", document, in_dataset=dataset, out_trunk=trunk)
    return small.release_of(trunk, dataset, document)


def metrics_of(folder: Path) -> Any:
    return json.loads((folder / "evaluation/metrics.json").read_text())


def predictions(folder: Path) -> dict[str, np.ndarray]:
    """Return the columns of predictions.parquet, (n, numbers) each."""
    found = pq.read_table(folder / "evaluation/predictions.parquet").to_pydict()
    return {name: np.array(values).reshape(len(values), -1) for name, values in found.items()}


def test_it_tells_more_than_the_mean_of_the_training_rows_does(folder: Path, kind: str) -> None:
    metrics, facts = metrics_of(folder), read_facts(folder / "model")
    kinds = [type(read_schema(folder / "dataset").feature)]
    label = read_split(folder / "dataset", "train", kinds).label
    assert facts["mean"] == pytest.approx(np.atleast_1d(label.mean(axis=0)).tolist())
    assert facts["deviation"] == pytest.approx(np.atleast_1d(label.std(axis=0)).tolist())
    found = predictions(folder)
    baseline = np.abs(found["label"] - facts["mean"]).mean()
    assert metrics["r2"] > MARGIN and metrics["primary"] == "r2"
    assert metrics["mae"] < 0.8 * baseline
    assert 0.7 < metrics["coverage"] <= 1
    assert {run["examples"] for run in json.loads((folder / "evaluation/lift.json").read_text())["runs"]} == {30}


def test_what_is_measured_is_what_the_predictions_say(folder: Path, kind: str) -> None:
    metrics, found = metrics_of(folder), predictions(folder)
    assert list(found) == ["row", *COLUMNS]
    schema = pq.read_schema(folder / "evaluation/predictions.parquet")
    assert {str(schema.field(name).type) for name in COLUMNS} == {
        "fixed_size_list<element: double>[2]" if kind == "images" else "double"
    }
    label, predicted, low, high = (found[name] for name in COLUMNS)
    errors = label - predicted
    r2 = 1 - (errors**2).sum(axis=0) / ((label - label.mean(axis=0)) ** 2).sum(axis=0)
    assert metrics["r2"] == pytest.approx(r2.mean())
    assert metrics["mae"] == pytest.approx(np.abs(errors).mean())
    assert metrics["rmse"] == pytest.approx(np.sqrt((errors**2).mean(axis=0)).mean())
    assert metrics["coverage"] == pytest.approx(((low <= label) & (label <= high)).mean())
    assert metrics["interval_width"] == pytest.approx((high - low).mean())
    assert metrics["r2_low"] < metrics["r2"] < metrics["r2_high"]
    by_name = json.loads((folder / "evaluation/numbers.json").read_text())
    assert [line["name"] for line in by_name] == (["ink", "slant"] if kind == "images" else ["numbers"])
    assert [line["r2"] for line in by_name] == pytest.approx(r2.tolist())


def test_the_gate_goes_by_these_scores(folder: Path, kind: str) -> None:
    decision = read_decision(folder / "evaluation")
    assert decision.passed and {rule.name for rule in decision.rules} >= {"floors.r2", "ceilings.rmse", "min_lift.30"}
    assert (folder / "release/release.json").is_file()
    high = decide(Gate(floors={"r2": 0.9999}), metrics_of(folder), None)
    with pytest.raises(RefusalError, match=r"floors\.r2 is 0\.\d+, must be >= 0\.9999"):
        high.check("digits")
    scores = read_problem(folder / "model").params.scores
    with pytest.raises(InputError, match="no such score; expected one of r2, mae, rmse, coverage, interval_width"):
        Gate(floors={"accuracy": 0.9}).check_names(scores, "params.yaml")
    Gate(floors={"r2": -3}).check_names(scores, "params.yaml")
    with pytest.raises(InputError, match=r"floors\.r2: 1\.5; expected -inf to 1"):
        Gate(floors={"r2": 1.5}).check_names(scores, "params.yaml")


def test_the_report_shows_predictions_and_the_largest_errors(folder: Path, kind: str) -> None:
    page = write_report(folder, open_store(str(folder / "store")), folder / "report.html").read_text()
    assert "<h2>Predicted and actual</h2>" in page and "<h2>Largest errors</h2>" in page
    assert "test share of the variance explained (R2)" in page
    assert 'alt="Predicted against actual numbers of the test rows"' in page
    found = predictions(folder)
    if kind == "images":
        assert 'alt="Images that are furthest off"' in page
    else:
        worst = np.abs(found["label"] - found["predicted"])[:, 0].argmax()
        assert f"<td>{found['label'][worst, 0]:.4g}</td><td>{found['predicted'][worst, 0]:.4g} ± " in page
    assert "Confusion" not in page and "<h2>Lineage</h2>" in page


def test_a_release_is_asked(
    folder: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    test = pq.read_table(folder / "dataset/test.parquet").sort_by("row").slice(0, 3)
    pq.write_table(test, tmp_path / "asked.parquet")

    def ask(*more: str) -> str:
        arguments = ["predict", "digits", str(tmp_path / "asked.parquet"), "--store", str(folder / "store")]
        monkeypatch.setattr(sys, "argv", ["graftline", *arguments, *more])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with suppress(SystemExit):
            main()
        shown, error = capsys.readouterr()
        cut = "predict: 1 of 3 are longer than the model reads: it saw a part\n"  # the longest of the glosses
        assert error == (cut if kind == "texts" else "")
        return shown

    answers, found = json.loads(ask("--json")), predictions(folder)
    assert sum(answer.get("cut", 0) > 0 for answer in answers) == (kind == "texts")
    for place, answer in enumerate(answers):
        each = list(answer["numbers"].values()) if kind == "images" else [answer]
        if kind == "images":
            assert list(answer["numbers"]) == ["ink", "slant"]
        for name, column in (("number", "predicted"), ("low", "low"), ("high", "high")):
            assert [one[name] for one in each] == pytest.approx(found[column][place].tolist(), abs=1e-4)
    first = f"{found['predicted'][0, 0]:.4g}"
    assert first in ask() and "interval" in ask()


def test_transformers_alone_tells_the_numbers(folders: dict[str, Path], tmp_path_factory: Any) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = made("texts", folders, tmp_path_factory) / "model"
    network = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    assert network.config.problem_type == "regression"
    facts, texts = read_facts(folder), ["any of various herbs", "a dog"]
    given = AutoTokenizer.from_pretrained(folder, local_files_only=True)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = network(**given).logits[:, 0].double().numpy()
    problem, model = read_problem(folder), load_model(folder)
    ours = [answer["number"] for answer in problem.ask(folder, model, texts, read_schema(folder.parent / "dataset"))]
    assert ours == pytest.approx((outputs * facts["deviation"][0] + facts["mean"][0]).tolist(), abs=1e-4)


def test_two_processes_add_up_to_one(folders: dict[str, Path], tmp_path_factory: Any) -> None:
    folder = made("texts", folders, tmp_path_factory)
    params = TextRegressionParams(precision="float32")
    problem = make_problem(params, read_schema(folder / "dataset"))
    train = problem.read(folder / "dataset", "train", folder / "trunk").take(torch.arange(25))
    torch.manual_seed(0)
    model = problem.build(folder / "trunk", read_schema(folder / "dataset"), scratch=False)
    model.begin(train)
    with torch.no_grad():
        alone, *parts = (model.loss(train, 0, 0, part) for part in (None, World(0, 2), World(1, 2)))
    assert float(alone) == pytest.approx(1, abs=1e-5), "the mean explains nothing of what it was taken from"
    assert float(sum(parts)) == pytest.approx(float(alone), abs=1e-6)


def test_few_labels_hold_none_out_and_there_are_no_intervals(
    folders: dict[str, Path], tmp_path_factory: Any, tmp_path: Path
) -> None:
    folder = made("images", folders, tmp_path_factory)
    section = {**IMAGES["finetune"], "labels_per_class": 20, "epochs": 1, "min_steps": 4}
    given = {"in_dataset": folder / "dataset", "in_trunk": folder / "trunk"}
    small.make("finetune", {"finetune": section}, **given, out_model=tmp_path / "model")
    facts, model = read_facts(tmp_path / "model"), load_model(tmp_path / "model")
    assert facts["half_widths"] is None
    assert facts["mean"] != read_facts(folder / "model")["mean"], "of the 20 labels, not of all"
    problem = read_problem(tmp_path / "model")
    test = problem.read(folder / "dataset", "test", tmp_path / "model")
    answers, schema = model.answer(test), read_schema(folder / "dataset")
    assert math.isnan(answers.statistics(COVERAGE).value) and math.isfinite(answers.value)
    assert answers.columns(schema)["low"].null_count == len(test)
    (answer,) = problem.ask(tmp_path / "model", model, list(test.pixels[:1]), schema)
    assert answer["numbers"]["ink"].keys() == {"number"}
    assert problem.line(answer)[1] == "ink unknown, slant unknown"


def test_a_task_of_numbers_compiles() -> None:
    head = {"name": "image_regression", "intervals": "gaussian"}
    changes = {"finetune.head": head, "evaluate.gate": {"floors": {"r2": 0.5}}}
    parameters = json.loads(compiled("mnist", overrides=changes).parameters["finetune_params"])
    assert parameters["finetune"]["head"] == ImageRegressionParams(**head).model_dump(mode="json")
    with pytest.raises(InputError, match=r"gate\.floors\.accuracy: this problem has no such score"):
        component_params("mnist", {"finetune.head": head, "evaluate.gate": {"floors": {"accuracy": 0.5}}})


def answered(labels: Any, predicted: Any, half: Any = None) -> NumberAnswers:
    labels, predicted = np.array(labels, float), np.array(predicted, float)
    half = None if half is None else np.array(half, float)
    scores = ImageRegressionParams.scores
    return NumberAnswers(scores, np.arange(len(labels)), 0.0, labels, predicted, half, Scale.of(labels))


def test_scores_are_those_of_scikit_learns_documentation() -> None:
    """The examples of its user guide (metrics_and_scoring, regression metrics), and of root_mean_squared_error."""
    one = answered([[3], [-0.5], [2], [7]], [[2.5], [0.0], [2], [8]])
    assert one.statistics(R2).value == pytest.approx(0.948, abs=1e-3)
    assert one.statistics(MAE).value == pytest.approx(0.5)
    assert one.statistics(RMSE).value == pytest.approx(0.612, abs=1e-3)
    two = answered([[0.5, 1], [-1, 1], [7, -6]], [[0, 2], [-1, 2], [8, -5]])
    assert two.statistics(R2).value == pytest.approx((0.965 + 0.908) / 2, abs=1e-3)
    assert two.statistics(MAE).value == pytest.approx(0.75)
    assert two.statistics(RMSE).value == pytest.approx(0.822, abs=1e-3)


def test_coverage_and_width_by_hand() -> None:
    found = answered([[0, 0], [1, 1], [2, 2]], [[0.5, 2], [1, 1], [1, 3]], half=[0.5, 1])
    assert found.statistics(COVERAGE).value == pytest.approx(4 / 6)
    assert found.statistics(WIDTH).value == pytest.approx((1 + 2) / 2)


def test_r2_needs_labels_that_differ_and_no_unit() -> None:
    labels = np.random.default_rng(0).normal(size=(200, 1))
    told = labels + np.random.default_rng(1).normal(size=(200, 1))
    plain, far = (answered(labels, told).statistics(R2), answered(labels * 7 + 1e6, told * 7 + 1e6).statistics(R2))
    assert far.value == pytest.approx(plain.value, rel=1e-6)
    drawn = np.zeros((1, 200))
    drawn[0, 3] = 200
    assert math.isnan(plain.values(drawn)[0]), "one row, drawn again and again"
    assert estimate(plain, resamples=1000, seed=0).low < plain.value


def test_conformal_intervals_hold_what_they_promise_whatever_the_errors() -> None:
    """Split conformal: at least the share asked for, and at most 1 / (n + 1) more, on average over draws."""
    params = ImageRegressionParams(coverage=0.9)
    generator, n, inside = np.random.default_rng(0), 39, []
    for _ in range(2000):
        errors = generator.pareto(1.5, size=(n, 1)) * generator.choice([-1, 3], size=(n, 1))
        half = half_widths(errors, params)
        fresh = generator.pareto(1.5, size=50) * generator.choice([-1, 3], size=50)
        inside.append((np.abs(fresh) <= half).mean())
    assert 0.9 - 0.005 < np.mean(inside) < 0.9 + 1 / (n + 1) + 0.005


def test_half_widths_by_hand() -> None:
    errors = np.array([[3.0], [-1], [2], [-5]])
    assert half_widths(errors, ImageRegressionParams(coverage=0.5)).tolist() == [3], "the ceil(5 * 0.5)-th of 1 2 3 5"
    assert half_widths(errors, ImageRegressionParams(coverage=0.9)) is None, "4 rows cannot promise 0.9"
    normal = half_widths(errors, ImageRegressionParams(coverage=0.9, intervals="gaussian"))
    assert normal.tolist() == pytest.approx([1.6448536 * math.sqrt(39 / 4)])


def test_numbers_that_do_not_differ_are_refused(
    folders: dict[str, Path], tmp_path_factory: Any, tmp_path: Path
) -> None:
    folder = made("texts", folders, tmp_path_factory)
    shutil.copytree(folder / "dataset", tmp_path / "dataset")
    table = pq.read_table(folder / "dataset/val.parquet")
    same = pa.array([4.5] * len(table))
    pq.write_table(
        table.set_column(table.column_names.index("numbers"), "numbers", same), tmp_path / "dataset/val.parquet"
    )
    with pytest.raises(InputError, match=r"val\.parquet: number 0 of the label is 4\.5 in all \d+ rows"):
        read_problem(folder / "model").read(tmp_path / "dataset", "val", folder / "model")
