"""Rows that come together: what held-out rows promise then, and the law that what is found is held against."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import torch
from scipy.stats import betabinom

from graftline.dataset import SCHEMA, read_schema
from graftline.errors import InputError
from graftline.problems.conformal import by_group, law, limits
from graftline.problems.groups import INDEX, Groups, read_groups
from graftline.problems.image_regression.parameters import ImageRegressionParams
from graftline.problems.regression import Regressor, half_widths
from graftline.problems.scores import SET_COVERAGE, mean_rows
from graftline.score import Floats, Integers, RowStatistics, estimate
from graftline.tasks.evaluate import EvaluateParams

NINETY = np.array([0.9])
HEAD = {"name": "image_classification", "calibration": {"coverage": 0.8}}
CALIBRATED = {**small.PARAMS, "finetune": {**small.PARAMS["finetune"], "head": HEAD}}


def alike(groups: int, size: int, seed: int) -> tuple[Floats, Integers]:
    """Return scores that are nearly one in each group, and the groups."""
    draw = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(groups), size)
    return draw.normal(size=groups)[numbers] + draw.normal(0, 0.01, len(numbers)), numbers


def uneven(groups: int, seed: int) -> tuple[Floats, Integers]:
    """Return scores of groups of which a third has 40 rows that are easy, the others one that is not."""
    draw = np.random.default_rng(seed)
    large = draw.random(groups) < 1 / 3
    numbers = np.repeat(np.arange(groups), np.where(large, 40, 1))
    return draw.normal(np.where(large, 2, 0)[numbers]), numbers


def kept(scores: Floats, limit: Floats) -> RowStatistics:
    return mean_rows(SET_COVERAGE, np.arange(len(scores)), scores >= limit)


def test_groups_of_one_row_promise_what_rows_do() -> None:
    draw = np.random.default_rng(0)
    scores, weights = draw.normal(size=50), draw.uniform(0.5, 2, 50)
    asked = np.arange(1, 100) / 100
    for heeded in (None, weights):
        plain, single = (limits(scores, asked, heeded, groups) for groups in (None, draw.permutation(50)))
        assert np.array_equal(plain, single) and np.isneginf(plain[98]), "50 rows cannot promise 99%"


def test_limits_of_groups_by_hand() -> None:
    scores, groups = np.array([0.9, 0.8, 0.7, 0.6, 0.1]), np.array([5, 5, 5, 5, 2])
    # Two groups and a new one: 1/3 of 3 needs a whole group, so all four rows of the first; then the second.
    found = limits(scores, np.array([0.08, 1 / 3, 0.5, 2 / 3, 0.67]), groups=groups)
    assert found.tolist() == [0.9, 0.6, 0.1, 0.1, -np.inf]


def test_rows_that_come_together_break_the_promise_of_rows_and_keep_that_of_groups() -> None:
    """15 groups of 20 rows, 400 draws: the mean coverage of a new group lies between the theorem's two bounds."""
    by_rows, by_groups = [], []
    for seed in range(400):
        (scores, groups), (new, _) = alike(15, 20, seed), alike(40, 1, 1000 + seed)
        by_rows.append(float((new >= limits(scores, NINETY)).mean()))
        by_groups.append(float((new >= limits(scores, NINETY, groups=groups)).mean()))
    deviation = np.std(by_groups) / 20
    assert np.mean(by_rows) + 3 * np.std(by_rows) / 20 < 0.9, "the way of rows fails here"
    assert 0.9 - 3 * deviation <= np.mean(by_groups) <= 0.9 + 1 / 16 + 3 * deviation


def test_the_promise_is_of_a_new_group_whatever_its_size() -> None:
    by_rows, by_groups = [], []
    for seed in range(200):
        (scores, groups), (new, of) = uneven(60, seed), uneven(60, 1000 + seed)
        for found, limit in ((by_rows, limits(scores, NINETY)), (by_groups, limits(scores, NINETY, groups=groups))):
            found.append(by_group(kept(new, limit), of, evenly=True).value)
    assert np.mean(by_rows) < 0.8, "the many rows of easy groups speak for all"
    assert np.mean(by_groups) > 0.9 - 3 * np.std(by_groups) / np.sqrt(200)


def test_regressions_intervals_heed_groups() -> None:
    errors, groups = alike(15, 20, 0)
    params = ImageRegressionParams(coverage=0.9)
    plain, grouped = half_widths(errors[:, None], params), half_widths(errors[:, None], params, groups)
    assert plain is not None and grouped is not None and grouped > plain
    assert half_widths(errors[:100, None], params, groups[:100]) is None, "5 groups cannot promise 0.9, nor can 8"
    assert half_widths(errors[:100, None], params) is not None


def test_a_regressor_finds_the_group_of_each_row_of_val() -> None:
    (errors, numbers), rows = alike(15, 20, 0), np.arange(300) * 3
    mixed, params = np.random.default_rng(1).permutation(300), ImageRegressionParams(coverage=0.9)
    val: Any = SimpleNamespace(labels=torch.from_numpy(errors[mixed, None]), rows=torch.from_numpy(rows[mixed]))
    model: Any = SimpleNamespace(numbers=lambda examples: np.zeros((len(examples.rows), 1)), _params=params)
    Regressor.calibrate(model, val, Groups("writer", rows, numbers))
    wanted, without = half_widths(errors[:, None], params, numbers), half_widths(errors[:, None], params)
    assert model.reach == wanted != without


def test_the_law_of_independent_rows_is_beta_binomial() -> None:
    found = law(kept(np.arange(941) % 10, 1.0), 0.9, 485)  # 89.9% hold: a design effect of 1
    rank = int(np.ceil(486 * 0.9))
    assert found == pytest.approx(betabinom.ppf([0.025, 0.975], 941, rank, 486 - rank) / 941, abs=1e-9)
    assert law(kept(np.arange(50) % 10, 1.0), 0.9, 8) == (1.0, 1.0), "every class is in the set"


def test_the_law_of_rows_that_are_all_alike_in_a_group_is_that_of_groups() -> None:
    one = kept(np.arange(90) % 10, 1.0)
    again = kept(np.repeat(np.arange(90) % 10, 7), 1.0)
    numbers = np.repeat(np.arange(90), 7)
    for evenly in (False, True):
        assert law(by_group(again, numbers, evenly=evenly), 0.9, 40) == pytest.approx(law(one, 0.9, 40))
    words = mean_rows(SET_COVERAGE, numbers, np.repeat(np.arange(90) % 10, 7) >= 1)
    assert law(words, 0.9, 40) == pytest.approx(law(one, 0.9, 40)), "words of a sentence likewise"


def test_what_is_found_lies_within_the_law_of_groups_and_not_within_that_of_rows() -> None:
    inside = {"rows": 0, "groups": 0}
    for seed in range(300):
        (scores, groups), (new, of) = alike(60, 8, seed), alike(80, 8, 1000 + seed)
        found = kept(new, limits(scores, NINETY, groups=groups))
        judged = by_group(found, of, evenly=True)
        for name, (low, high) in (("rows", law(found, 0.9, 480)), ("groups", law(judged, 0.9, 60))):
            inside[name] += low <= judged.value <= high
    assert inside["groups"] > 0.9 * 300 and inside["rows"] < 0.7 * 300


def test_weights_of_rows_count_within_their_group() -> None:
    statistics = np.array([[1.0, 1], [0, 1], [1, 1]])
    found = RowStatistics(SET_COVERAGE, np.array([3, 5, 9]), statistics, weights=np.array([3.0, 1, 2]))
    together = by_group(found, np.array([1, 0, 1]))
    assert together.rows.tolist() == [3, 5] and together.statistics.tolist() == [[5, 5], [0, 1]]
    assert together.value == found.value == pytest.approx(5 / 6)
    assert by_group(found, np.array([1, 0, 1]), evenly=True).statistics.tolist() == [[2.5, 2.5], [0, 1]]


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model of digits that come in threes of three classes, by the column `writer`; and its evaluation."""
    home = tmp_path_factory.getbasetemp()
    folder = tmp_path_factory.mktemp("grouped")
    table = pq.read_table(small.dataset(home).parent / "raw" / "images.parquet")
    writers = pa.array([f"w{row % 200}" for row in range(len(table))])
    contract = small.CONTRACT + "  writer: {type: string, role: group}\n"
    dataset = small.validated(folder, contract, table.append_column("writer", writers))
    small.make("pretrain", {"pretrain": {**small.PARAMS["pretrain"], "epochs": 1}}, in_dataset=dataset,
               out_trunk=folder / "trunk")  # fmt: skip
    return small.release_of(folder / "trunk", dataset, CALIBRATED)


def test_a_models_sets_are_promised_and_judged_by_groups(grouped: Path) -> None:
    dataset = grouped / "dataset"
    facts = json.loads((grouped / "model/head.json").read_text())
    val, test = (read_groups(dataset, split) for split in ("val", "test"))
    assert val is not None and test is not None
    assert facts["held_out"] == len(np.unique(val.numbers)) < len(val.rows)
    assert read_schema(dataset).group == "writer" and "group" not in facts, "a model is not asked about groups"
    metrics = json.loads((grouped / "evaluation/metrics.json").read_text())
    table = pq.read_table(grouped / "evaluation/predictions.parquet").to_pydict()
    right = np.array([actual in members for actual, members in zip(table["label"], table["set"], strict=True)])
    assert right.mean() == pytest.approx(metrics["set_coverage"])
    found = mean_rows(SET_COVERAGE, np.array(table["row"]), right)
    asked = EvaluateParams(**CALIBRATED["evaluate"])
    interval, of_rows = (
        estimate(one, resamples=asked.bootstrap_resamples, seed=asked.seed)
        for one in (by_group(found, test.of(found.rows)), found)
    )
    ends = tuple(metrics[f"set_coverage_{end}"] for end in ("low", "high"))
    assert ends == pytest.approx((interval.low, interval.high)) != (of_rows.low, of_rows.high), "groups are drawn anew"
    (section,) = (
        one for one in json.loads((grouped / "evaluation/sections.json").read_text())
        if one["title"] == "Sets of classes"
    )  # fmt: skip
    line, judged = section["lines"][0], by_group(found, test.of(found.rows), evenly=True)
    assert line[0] == "80%" and line[1].startswith(f"{metrics['set_coverage']:.2%}")
    assert line[2].startswith(f"{judged.value:.2%}")
    assert line[3] == "{:.2%} to {:.2%}".format(*law(judged, 0.8, facts["held_out"]))
    counts = f"{facts['held_out']} of val and {len(judged.rows)} of test"
    assert f"groups by writer, each counting alike, {counts}" in section["note"]


def test_groups_are_read_by_row(grouped: Path, tmp_path: Path) -> None:
    groups = read_groups(grouped / "dataset", "test")
    assert groups is not None and groups.column == "writer"
    table = pq.read_table(grouped / "dataset/test.parquet").to_pydict()
    numbers = groups.of(np.array(table["row"]))
    for writer in set(table["writer"]):
        mine = [number for number, of in zip(numbers, table["writer"], strict=True) if of == writer]
        assert len(set(mine)) == 1 and (numbers == mine[0]).sum() == len(mine)
    # a person's id is kept in the row index alone, as a hash; a row of nobody stands by itself
    schema = replace(read_schema(grouped / "dataset"), group="person")
    (tmp_path / SCHEMA).write_text(json.dumps(schema.as_dict()))
    pq.write_table(pa.table({"row": [4, 0, 2, 7]}), tmp_path / "test.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet: no column 'subject', the groups of test"):
        read_groups(tmp_path, "test")
    index = {"row": [0, 2, 4, 7], "subject": pa.array([b"x" * 16, None, b"x" * 16, None], pa.binary(16))}
    pq.write_table(pa.table(index), tmp_path / INDEX)
    found = read_groups(tmp_path, "test")
    assert found is not None and found.rows.tolist() == [0, 2, 4, 7]
    assert found.numbers[0] == found.numbers[2] and len(set(found.numbers.tolist())) == 3
    assert read_groups(small.dataset(grouped.parent), "test") is None
