"""The average of models by hand, the weights of sites, and what an update holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from graftline.errors import InputError
from graftline.federated.averaging import Weights, average, difference, shares

START = {
    "a": np.array([1.0, 2.0, 3.0], np.float32),
    "b": np.array([[0.5]], np.float32),
    "batches": np.array(4, np.int64),
}


def model(folder: Path, tensors: dict[str, np.ndarray], name: str = "model.safetensors") -> Weights:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return Weights.of(folder)


def test_fedavg_is_the_mean_weighted_by_rows(tmp_path: Path) -> None:
    start = model(tmp_path / "start", START)
    one = model(tmp_path / "one", {"a": np.array([2.0, 2.0, 7.0], np.float32), "batches": np.array(9, np.int64)})
    two = model(tmp_path / "two", {"a": np.array([5.0, 1.0, 3.0], np.float32), "batches": np.array(6, np.int64)})
    given = shares({"one": 300, "two": 100}, None)
    assert given == {"one": 0.75, "two": 0.25}
    (tmp_path / "out").mkdir()
    average(start, [(one, given["one"]), (two, given["two"])], tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert made["a"].tolist() == [0.75 * 2 + 0.25 * 5, 0.75 * 2 + 0.25 * 1, 0.75 * 7 + 0.25 * 3]
    assert made["b"].tolist() == [[0.5]], "what no update holds is as it was"
    assert made["batches"] == round(0.75 * 9 + 0.25 * 6)
    assert {name: tensor.dtype for name, tensor in made.items()} == {n: t.dtype for n, t in START.items()}


def test_the_sum_is_made_in_float64(tmp_path: Path) -> None:
    start = model(tmp_path / "start", {"a": np.zeros(1, np.float32)})
    large, small = np.array([2.0**25], np.float32), np.array([1.0], np.float32)
    parts = [(large, 0.25), (small, 0.25), (small, 0.25), (-large, 0.25)]
    updates = [(model(tmp_path / str(n), {"a": of}), share) for n, (of, share) in enumerate(parts)]
    (tmp_path / "out").mkdir()
    average(start, updates, tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["a"].tolist() == [0.5], "float32 would lose the small ones"


def test_a_model_of_several_files_stays_one(tmp_path: Path) -> None:
    model(tmp_path / "start", {"a": np.zeros(2, np.float32)})
    start = model(tmp_path / "start", {"h": np.ones(2, np.float32)}, "head.safetensors")
    update = model(tmp_path / "update", {"h": np.full(2, 3.0, np.float32)}, "update.safetensors")
    (tmp_path / "out").mkdir()
    average(start, [(update, 1.0)], tmp_path / "out")
    assert load_file(tmp_path / "out" / "head.safetensors")["h"].tolist() == [3.0, 3.0]
    assert load_file(tmp_path / "out" / "model.safetensors")["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        ({"a": 10, "b": 30}, None, {"a": 0.25, "b": 0.75}),
        ({"a": 100, "b": 100, "c": 10**12}, 0.5, {"a": 0.25, "b": 0.25, "c": 0.5}),
        ({"a": 100, "b": 300, "c": 10**12, "d": 10**12}, 0.4, {"a": 0.05, "b": 0.15, "c": 0.4, "d": 0.4}),
        ({"a": 1, "b": 99}, 0.3, {"a": 0.5, "b": 0.5}),
    ],
)
def test_no_site_weighs_more_than_the_largest_share(
    rows: dict[str, int], most: float | None, expected: dict[str, float]
) -> None:
    given = shares(rows, most)
    assert given == pytest.approx(expected, abs=1e-9)
    assert sum(given.values()) == pytest.approx(1)


def test_an_update_holds_only_what_changed(tmp_path: Path) -> None:
    start = model(tmp_path / "start", START)
    after = model(tmp_path / "after", START | {"b": np.array([[0.75]], np.float32)})
    difference(start, after, tmp_path / "update.safetensors")
    assert list(load_file(tmp_path / "update.safetensors")) == ["b"]
    with pytest.raises(InputError, match="other tensors"):
        difference(start, model(tmp_path / "less", {"a": START["a"]}), tmp_path / "none.safetensors")
