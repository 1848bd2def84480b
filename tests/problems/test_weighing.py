"""Weights of rows and balanced classes, on real digits, glosses and sentences: in the loss, in batches, in scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import small_tags
import small_text
import torch

from graftline.canonical import read_json
from graftline.dataset import SCHEMA, read_schema
from graftline.errors import InputError
from graftline.jsonfile import write_json
from graftline.learning.distributed import World
from graftline.problems.fit import Data, fit, training
from graftline.problems.reading import read_examples
from graftline.problems.registry import make_problem
from graftline.problems.weighing import BalancedDraw, answer, for_training
from graftline.tasks.finetune import FinetuneParams

STILL = {"augmentation": {"shift": 0}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def parts(home: Path, kind: str) -> tuple[Path, Path, dict[str, Any]]:
    """Return a dataset, its trunk and a head without chance."""
    return {
        "digits": lambda: (small.dataset(home), small.trunk(home), {"name": "image_classification", **STILL}),
        "glosses": lambda: (small_text.dataset(home), small_text.trunk(home), {"name": "sequence_classification"}),
        "sentences": lambda: (small_tags.dataset(home), small_tags.trunk(home), {"name": "token_classification"}),
        "lengths": lambda: (as_numbers(home), small_text.trunk(home), {"name": "text_regression"}),
        "letters": lambda: (as_sets(home), small_text.trunk(home), {"name": "multi_label"}),
    }[kind]()


def relabelled(home: Path, name: str, labels: Any, schema: dict[str, Any]) -> Path:
    """Return the glosses' dataset with other labels: `labels` makes them of the texts."""
    folder = home / f"glosses as {name}"
    if folder.is_dir():
        return folder
    folder.mkdir()
    source = small_text.dataset(home)
    for split in ("train", "val", "test"):
        table = pq.read_table(source / f"{split}.parquet")
        place = table.column_names.index("label")
        pq.write_table(table.set_column(place, "label", labels(table["text"].to_pylist())), folder / f"{split}.parquet")
    write_json({**read_json(source / SCHEMA), **schema}, folder / SCHEMA)
    return folder


def as_numbers(home: Path) -> Path:
    return relabelled(
        home, "numbers", lambda texts: pa.array([float(len(text)) for text in texts]),
        {"label_type": "number", "classes": []},
    )  # fmt: skip


def as_sets(home: Path) -> Path:
    def labels(texts: list[str]) -> pa.Array:
        return pa.array([[letter for letter in "kz" if letter in text] for text in texts], pa.list_(pa.string()))

    return relabelled(home, "sets", labels, {"label_type": "labels", "classes": ["k", "z"]})


def with_weights(dataset: Path, out: Path) -> Path:
    """Return the dataset with a weight of each row, as validate writes it."""
    out.mkdir()
    for split in ("train", "val", "test"):
        table = pq.read_table(dataset / f"{split}.parquet")
        weights = pa.array(0.25 + table["row"].to_numpy() % 7)
        pq.write_table(table.append_column("counts", weights), out / f"{split}.parquet")
    write_json({**read_json(dataset / SCHEMA), "weight": "counts"}, out / SCHEMA)
    return out


KINDS = ("digits", "glosses", "sentences", "lengths", "letters")


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_counts_by_its_weight_in_the_loss_and_in_every_score(kind: str, home: Path, tmp_path: Path) -> None:
    dataset, trunk, head = parts(home, kind)
    params = FinetuneParams(head={**head, "precision": "float32"}, epochs=1, min_steps=4, batch=16, warmup_steps=0)
    weighed, problem = with_weights(dataset, tmp_path / "weighed"), make_problem(params.head, read_schema(dataset))
    train = read_examples(problem, weighed, "train", trunk)
    assert (train.weights.numpy() == 0.25 + train.rows.numpy() % 7).all()
    plain = problem.read(dataset, "train", trunk)
    schema = read_schema(dataset)
    model = fit(trunk, Data(plain, None), params, 0, schema).train()
    model.freeze_trunk()
    model.train()
    some = torch.arange(6)

    def loss(examples: Any, **more: Any) -> float:
        return float(model.loss(examples, 0, 0, **more).detach())

    ours, of_units = for_training(train, "none").take(some), plain.take(some)
    alone = [loss(of_units.take(torch.tensor([place]))) for place in range(6)]
    about = np.searchsorted(ours.rows, ours.units()["row"])  # a sentence counts with each of its words
    expected = np.mean(np.array(alone)[about] * ours.unit_weights().numpy())
    assert loss(ours) == pytest.approx(expected, rel=1e-4)
    assert loss(ours) != pytest.approx(loss(of_units), rel=1e-3)
    both = [loss(ours, part=World(rank=rank, size=2)) for rank in range(2)]
    assert sum(both) == pytest.approx(loss(ours), rel=1e-4)

    test = read_examples(problem, weighed, "test", trunk)
    counted = answer(model.eval(), test)
    repeats = (4 * counted.weights[1]).astype(int)  # weights are quarters: a row that counts 1.25 stands 5 times
    for score in counted.scores:
        found, once = counted.measured(score), counted.statistics(score)
        assert np.array_equal(found.rows, counted.weights[0])
        value = float(once.values(repeats[None].astype(float))[0])
        assert found.value == pytest.approx(value, rel=1e-6, nan_ok=True)
    primary = counted.scores[0]
    assert answer(model, test).value == counted.measured(primary).value
    assert problem.read(dataset, "test", trunk).weights is None


def test_a_head_that_cannot_heed_weights_refuses_them(home: Path, tmp_path: Path) -> None:
    dataset = with_weights(small_text.dataset(home), tmp_path / "weighed")
    problem = make_problem(FinetuneParams(head={"name": "text_generation"}).head, read_schema(dataset))
    with pytest.raises(InputError, match=r"'counts' has the role weight.*this head does not heed them"):
        read_examples(problem, dataset, "train", small_text.trunk(home))


@pytest.mark.parametrize("kind", ["digits", "glosses"])
def test_balanced_batches_hold_all_classes_equally_often(kind: str, home: Path) -> None:
    dataset, trunk, head = parts(home, kind)
    params = FinetuneParams(head=head, epochs=1, batch=20, balance="sampling")
    train = make_problem(params.head, read_schema(dataset)).read(dataset, "train", trunk)
    rare = train.take(torch.cat([(train.classes != 1).nonzero()[:, 0], (train.classes == 1).nonzero()[:3, 0]]))
    schema = read_schema(dataset)
    _, run = training(trunk, Data(rare, None), params, 0, schema)
    place = {int(row): number for number, row in enumerate(rare.rows)}
    batches = [[place[row] for row in run.rows(step)] for step in range(30)]
    drawn = rare.classes[torch.tensor(batches).ravel()].bincount()
    assert int(drawn.max() - drawn.min()) <= 1 and len(drawn) == len(schema.classes)
    _, again = training(trunk, Data(rare, None), params, 0, schema)
    assert [place[row] for row in again.rows(17)] == batches[17], "a step's batch needs no other step"
    assert len({tuple(batch) for batch in batches}) == 30
    common = [n for batch in batches for n in batch if rare.classes[n] == 0]
    assert len(set(common[: int((rare.classes == 0).sum())])) == len(common[: int((rare.classes == 0).sum())])
    _, plain = training(trunk, Data(rare, None), params.model_copy(update={"balance": "none"}), 0, schema)
    assert rare.classes[[place[row] for step in range(30) for row in plain.rows(step)]].bincount()[1] < drawn[1] / 3


@pytest.mark.parametrize("kind", ["digits", "sentences"])
def test_balanced_losses_give_each_class_the_same_weight(kind: str, home: Path, tmp_path: Path) -> None:
    dataset, trunk, head = parts(home, kind)
    problem = make_problem(FinetuneParams(head=head).head, read_schema(dataset))
    for source in (dataset, with_weights(dataset, tmp_path / "weighed")):
        train = read_examples(problem, source, "train", trunk)
        units = for_training(train, "loss")
        weights, classes = units.unit_weights(), units.unit_classes
        shares = torch.bincount(classes, weights)
        assert torch.allclose(shares, shares.mean().expand(len(shares)), rtol=1e-4)
        assert weights.mean() == pytest.approx(1, rel=1e-5)
        part = units.take(torch.arange(5))
        assert torch.equal(part.unit_weights(), weights[: len(part.unit_weights())])
        assert type(train).from_arrays(units.arrays()).digest() == units.digest() != train.digest()
    assert for_training(problem.read(dataset, "train", trunk), "none").unit_weights() is None


@pytest.mark.parametrize(
    ("kind", "balance"), [("sentences", "sampling"), ("lengths", "loss"), ("letters", "sampling"), ("letters", "loss")]
)
def test_what_is_of_no_one_class_cannot_be_balanced(kind: str, balance: str, home: Path) -> None:
    dataset, trunk, head = parts(home, kind)
    params = FinetuneParams(head=head, balance=balance)
    train = make_problem(params.head, read_schema(dataset)).read(dataset, "train", trunk)
    with pytest.raises(InputError, match=rf"finetune.balance: {balance}; expected none"):
        training(trunk, Data(train, None), params, 0, read_schema(dataset))


def test_more_classes_than_a_batch_come_in_turns() -> None:
    classes = torch.arange(40) % 13
    draw = BalancedDraw(classes, seed=3)
    picked = torch.cat([draw(step, 5) for step in range(26)])
    assert classes[picked].bincount().tolist() == [10] * 13
    assert torch.equal(torch.cat([BalancedDraw(classes, seed=3)(step, 5) for step in range(26)]), picked)
    assert not torch.equal(torch.cat([BalancedDraw(classes, seed=4)(step, 5) for step in range(26)]), picked)
