"""The component finetune, through its entry point; the model that it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.model import FACTS, load_model, read_problem, save_model
from graftline.records.folder import verify
from graftline.trunks.image_trunk import MODEL_WEIGHTS as WEIGHTS
from graftline.values.splits import read_images


def finetune(dataset: Path, trunk: Path, out: Path, **section: Any) -> int:
    document = {"finetune": {**small.PARAMS["finetune"], **section}}
    return small.run("finetune", document, in_dataset=dataset, in_trunk=trunk, out_model=out)


@pytest.fixture(scope="module")
def model(dataset: Path, trunk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetune") / "model"
    assert finetune(dataset, trunk, out) == 0
    return out


def test_a_model_that_has_learned_comes_out(model: Path, dataset: Path) -> None:
    record = verify(model)
    files = ["curve.png", FACTS, "metrics.json", "metrics.jsonl", WEIGHTS]
    assert [file.path for file in record.files] == files
    test = read_images(dataset, "test")
    right = load_model(model).probabilities(test.pixels).argmax(axis=1) == test.labels
    assert right.mean() > 0.6, "chance is 0.1"
    assert record.metrics == json.loads((model / "metrics.json").read_text())
    assert [given.name for given in record.inputs] == ["dataset", "trunk"]


def test_equal_runs_have_equal_digests(model: Path, dataset: Path, trunk: Path, tmp_path: Path) -> None:
    assert finetune(dataset, trunk, tmp_path / "again") == 0
    assert verify(tmp_path / "again").content == verify(model).content


def test_a_saved_model_says_what_it_is(model: Path, dataset: Path) -> None:
    config = json.loads((model / FACTS).read_text())
    assert config.pop("trunk") == {**small.TRUNK, "name": "conv", "shape": [28, 28]}
    assert config == {
        "head": ImageClassificationParams().model_dump(mode="json"),
        "classes": list(range(10)),
        "label": "label",
        "feature": {"type": "image", "name": "image", "shape": [28, 28], "maximum": 255},
    }


def test_a_saved_and_loaded_model_predicts_the_same_bits(model: Path, dataset: Path, tmp_path: Path) -> None:
    pixels = read_images(dataset, "test").pixels
    first = load_model(model)
    save_model(read_problem(model), first, read_schema(dataset), tmp_path)
    assert (tmp_path / FACTS).read_bytes() == (model / FACTS).read_bytes()
    assert (tmp_path / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    before, after = first.probabilities(pixels), load_model(tmp_path).probabilities(pixels)
    assert np.array_equal(before, after)
    assert before.shape == (len(pixels), 10)
    assert np.allclose(before.sum(axis=1), 1, atol=1e-6)


def test_a_model_in_training_mode_predicts_as_in_eval_mode(model: Path, dataset: Path) -> None:
    pixels, loaded = read_images(dataset, "test").pixels, load_model(model)
    assert np.array_equal(loaded.probabilities(pixels), loaded.train().probabilities(pixels))


def test_a_head_that_is_solved_needs_no_step(dataset: Path, trunk: Path, tmp_path: Path) -> None:
    assert finetune(dataset, trunk, tmp_path / "model", labels_per_class=3, probe_below=5) == 0
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert (metrics["examples"], metrics["steps"]) == (30, 0) and metrics["val_accuracy"] > 0.25
    test = read_images(dataset, "test")
    right = load_model(tmp_path / "model").probabilities(test.pixels).argmax(axis=1) == test.labels
    assert right.mean() > 0.25, "chance is 0.1"


def test_labels_a_class_limits_the_examples_and_holds_none_out(dataset: Path, trunk: Path, tmp_path: Path) -> None:
    assert finetune(dataset, trunk, tmp_path / "model", labels_per_class=3, patience=1, min_steps=25) == 0
    metrics = json.loads((tmp_path / "model/metrics.json").read_text())
    assert metrics["examples"] == 30
    assert metrics["steps"] == 25, "no early stop: a validation set would be labels by another name"


def test_the_joint_objective_is_a_parameter(dataset: Path, trunk: Path, model: Path, tmp_path: Path) -> None:
    assert finetune(dataset, trunk, tmp_path / "model", joint_weight=1) == 0
    names = {file.path: file.sha256 for file in verify(model).files}
    joint = {file.path: file.sha256 for file in verify(tmp_path / "model").files}
    assert joint[WEIGHTS] != names[WEIGHTS]
    assert joint[FACTS] == names[FACTS], "the decoder is no part of the model"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"learning_rate": 0}, "finetune.learning_rate: 0"),
        ({"learning_rat": 0.1}, "did you mean 'learning_rate'?"),
        ({"labels_per_class": 5000}, "labels_per_class: 5000, but class number"),
        ({"joint_weight": -1}, "finetune.joint_weight: -1"),
        ({"head": {"name": "regression"}}, "finetune.head: {'name': 'regression'}: input tag"),
    ],
)
def test_a_bad_parameter_is_one_line_and_2(
    dataset: Path, trunk: Path, tmp_path: Path, section: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(dataset, trunk, tmp_path / "model", **section) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "model").exists()


def test_an_unknown_head_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / FACTS).read_text()) | {"head": {"name": "regression"}}
    (tmp_path / "model" / FACTS).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"head\.json: .*'regression' found"):
        load_model(tmp_path / "model")


def test_weights_that_do_not_fit_the_config_are_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / FACTS).read_text()) | {"classes": [0, 1]}
    (tmp_path / "model" / FACTS).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"model\.safetensors: .*; run finetune again"):
        load_model(tmp_path / "model")
