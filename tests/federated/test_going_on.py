"""A site's fine-tuning begins with the round's model, and ends near it as strongly as it is pulled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small
import small_numbers
import small_text
import torch

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.learning.loop import alone
from graftline.problems.fit import Data, Near, training
from graftline.problems.model import load_model, save_model
from graftline.problems.reading import read_examples
from graftline.problems.registry import make_problem
from graftline.problems.weighing import answer
from graftline.tasks.finetune import FinetuneParams

LORA = {"name": "sequence_classification", "lora": {"rank": 2}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.getbasetemp()


def begun(dataset: Path, trunk: Path, head: dict[str, Any], rows: slice, near: Near | None = None) -> Any:
    """Return the model that a training of some rows begins with, the training, and the test rows."""
    params = FinetuneParams.model_validate({"head": head, "batch": 16, "warmup_steps": 0})
    schema = read_schema(dataset)
    problem = make_problem(params.head, schema)
    train = read_examples(problem, dataset, "train", trunk)
    train = train.take(torch.arange(len(train))[rows])
    model, run = training(trunk, Data(train, None), params, 0, schema, near=near)
    return problem, schema, model, run, read_examples(problem, dataset, "test", trunk)


def saved_after_two_steps(dataset: Path, trunk: Path, head: dict[str, Any], folder: Path) -> tuple[Path, float]:
    """Return the folder of a model that learned a little, and what it answers."""
    problem, schema, model, run, test = begun(dataset, trunk, head, slice(0, 64))
    step = alone(run)
    for number in range(2):
        step(number)
    folder.mkdir()
    save_model(problem, model.eval(), schema, folder)
    return folder, loss_of(load_model(folder), test)


def loss_of(model: Any, test: Any) -> float:
    return float(answer(model.eval(), test).loss)


@pytest.mark.parametrize("kind", ["image_classification", "image_regression", "lora"])
def test_it_begins_with_the_weights_and_all_that_its_head_took_from_its_rows(
    kind: str, home: Path, tmp_path: Path
) -> None:
    """The rows here are others: had it taken their scale, it would answer otherwise."""
    dataset, trunk, head = {
        "image_classification": lambda: (small.dataset(home), small.trunk(home), {"name": kind}),
        "image_regression": lambda: (small_numbers.dataset(home, "images"), small.trunk(home), {"name": kind}),
        "lora": lambda: (small_text.dataset(home), small_text.trunk(home), LORA),
    }[kind]()
    saved, said = saved_after_two_steps(dataset, trunk, head, tmp_path / "model")
    _, _, model, _, test = begun(dataset, trunk, head, slice(64, 96), Near(saved))
    assert loss_of(model, test) == pytest.approx(said, rel=1e-5)
    _, _, fresh, _, _ = begun(dataset, trunk, head, slice(64, 96))
    assert loss_of(fresh, test) != pytest.approx(said, rel=1e-3)


def test_the_proximal_term_is_half_mu_times_the_squared_distance(home: Path, tmp_path: Path) -> None:
    dataset, trunk, head = small.dataset(home), small.trunk(home), {"name": "image_classification"}
    saved, _ = saved_after_two_steps(dataset, trunk, head, tmp_path / "model")
    found = {}
    for mu in (0.0, 3.0):
        _, _, model, run, _ = begun(dataset, trunk, head, slice(0, 64), Near(saved, mu))
        at_first = run.loss(0).item()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01
        found[mu] = at_first, run.loss(0).item()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert found[3.0][0] == found[0.0][0], "where nothing has moved there is no pull"
    assert found[3.0][1] - found[0.0][1] == pytest.approx(3.0 / 2 * count * 0.01**2, rel=1e-3)


def test_a_model_of_another_trunk_is_refused(home: Path, tmp_path: Path) -> None:
    saved, _ = saved_after_two_steps(
        small.dataset(home), small.trunk(home), {"name": "image_classification"}, tmp_path / "model"
    )
    with pytest.raises(InputError, match="a model of another trunk or head"):
        begun(
            small_numbers.dataset(home, "images"),
            small.trunk(home),
            {"name": "image_regression"},
            slice(0, 32),
            Near(saved),
        )
