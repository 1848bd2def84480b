"""The component pretrain, through its entry point."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from graftline.learning.metrics import read_metrics
from graftline.records.folder import verify
from graftline.trunks import CONFIG, WEIGHTS
from graftline.trunks.image_training import OBJECTIVE_WEIGHTS
from graftline.trunks.images import load_trunk


def pretrain(dataset: Path, out: Path, **section: Any) -> int:
    document = {"pretrain": {**small.PARAMS["pretrain"], **section}}
    return small.run("pretrain", document, in_dataset=dataset, out_trunk=out)


def test_a_trunk_with_its_metrics_and_pictures_comes_out(trunk: Path) -> None:
    record = verify(trunk)
    files = ["loss.png", "metrics.json", "metrics.jsonl", OBJECTIVE_WEIGHTS, "reconstructions.png"]
    assert [file.path for file in record.files] == [*files, CONFIG, WEIGHTS]
    metrics, lines = json.loads((trunk / "metrics.json").read_text()), read_metrics(trunk / "metrics.jsonl")
    assert metrics == record.metrics
    assert len(lines) == metrics["steps"] == 10 * metrics["images"] // 64
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert record.environment.keys() == {"threads", "dtype", "torch", "isa"}
    for name in ("loss.png", "reconstructions.png"):
        assert (trunk / name).read_bytes().startswith(b"\x89PNG")
    assert load_trunk(trunk).config() == json.loads((trunk / CONFIG).read_text())["trunk"]
    assert not list(trunk.parent.glob(".trunk.work")), "checkpoints go when the run succeeds"


@pytest.fixture(scope="module")
def short(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trunk of a short run, whose digest others are compared with."""
    out = tmp_path_factory.mktemp("short") / "trunk"
    assert pretrain(dataset, out, epochs=2) == 0
    return out


def test_equal_runs_have_equal_digests_and_another_seed_has_not(short: Path, dataset: Path, tmp_path: Path) -> None:
    assert pretrain(dataset, tmp_path / "again", epochs=2) == 0
    assert pretrain(dataset, tmp_path / "other", epochs=2, seed=1) == 0
    assert verify(tmp_path / "again").content == verify(short).content
    assert verify(tmp_path / "other").content != verify(short).content


def test_labels_are_not_looked_at(short: Path, dataset: Path, tmp_path: Path) -> None:
    """Only the pool without labels decides: train, val and test may hold anything."""
    from graftline.digests import RECORD
    from graftline.records.folder import Draft, write_record

    bare = tmp_path / "dataset"
    shutil.copytree(dataset, bare)
    for name in ("train.parquet", "val.parquet", "test.parquet"):
        (bare / name).write_bytes(b"")
    (bare / RECORD).unlink()
    write_record(bare, Draft("validate", small.TASK, "dataset"))
    assert pretrain(bare, tmp_path / "trunk", epochs=2) == 0
    assert verify(tmp_path / "trunk").content == verify(short).content


@pytest.mark.parametrize("patch", [1, 64])
def test_any_patch_size_works(dataset: Path, tmp_path: Path, patch: int) -> None:
    objective = {"name": "masked_autoencoder", "patch": patch}
    assert pretrain(dataset, tmp_path / "trunk", objective=objective, epochs=1) == 0


def test_the_autoencoder_is_an_objective_too(dataset: Path, tmp_path: Path) -> None:
    assert pretrain(dataset, tmp_path / "trunk", objective={"name": "autoencoder"}, epochs=1) == 0
    config = json.loads((tmp_path / "trunk" / CONFIG).read_text())
    assert config["objective"]["name"] == "autoencoder"


def test_contrast_is_an_objective_too(dataset: Path, tmp_path: Path) -> None:
    trunk, again = small.contrastive_trunk(dataset.parents[1]), tmp_path / "again"
    assert [file.path for file in verify(trunk).files] == [
        "loss.png", "metrics.json", "metrics.jsonl", OBJECTIVE_WEIGHTS, CONFIG, WEIGHTS, "views.png"
    ]  # fmt: skip
    config = json.loads((trunk / CONFIG).read_text())
    assert config["objective"]["name"] == "contrastive"
    assert load_trunk(trunk).config() == config["trunk"], "a trunk as of any other objective"
    assert pretrain(dataset, again, objective={"name": "contrastive"}, epochs=2, batch=48) == 0
    assert verify(again).content == verify(trunk).content


def test_a_diverged_run_is_one_line_that_names_the_step_and_leaves_no_output(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels that are no numbers stand for any way to a loss that is none."""
    from graftline.trunks import image_pool as module
    from graftline.values.pixels import Pixels
    from graftline.values.splits import Images, read_images

    def broken(folder: Path, split: str) -> Images:
        images = read_images(folder, split)
        numbers = images.pixels.numpy()
        numbers[3] = float("nan")
        return replace(images, pixels=Pixels.of_numbers(numbers))

    monkeypatch.setattr(module, "read_images", broken)
    assert pretrain(dataset, tmp_path / "trunk") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pretrain:")]
    assert "the loss is nan at step " in line
    assert not (tmp_path / "trunk").exists()
    assert not list(tmp_path.glob(".trunk.aside-*"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"epochs": -1}, "pretrain.epochs: -1"),
        ({"batch": 10.5}, "pretrain.batch: 10.5"),
        ({"objective": {"name": "masked_autoencoder", "mask_ration": 0.5}}, "did you mean 'mask_ratio'?"),
        ({"objective": {"name": "jigsaw"}}, "pretrain.objective"),
        ({"trunk": {"channels": [0, 4, 8]}}, "pretrain.trunk.conv.channels.0: 0"),
    ],
)
def test_a_bad_parameter_is_one_line_and_2(
    dataset: Path, tmp_path: Path, section: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(dataset, tmp_path / "trunk", **section) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "trunk").exists()


def test_threads_are_part_of_what_is_recorded(trunk: Path) -> None:
    assert verify(trunk).environment["threads"] == 1
    assert verify(trunk).environment["torch"] == torch.__version__
