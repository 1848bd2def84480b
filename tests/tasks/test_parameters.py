"""Parameters are the same whatever the order of their keys: a record holds them sorted, and must make the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graftline.canonical import canonical_json
from graftline.cli.new import plots
from graftline.environment import ROOT
from graftline.tasks.documents import parameter_models
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.parameters import load_document, section

TASKS = sorted(path.parent.name for path in (ROOT / "data").glob("*/params.yaml"))


@pytest.mark.parametrize("task", TASKS)
def test_a_records_parameters_are_those_of_the_file_in_order_too(task: str) -> None:
    document, where = load_document(ROOT / "data" / task / "params.yaml")
    for name, model in parameter_models().items():
        values = section(document, where, name, model)
        recorded = json.loads(canonical_json({name: values.model_dump(mode="json")}))
        assert section(recorded, "the record", name, model).model_dump_json() == values.model_dump_json()


@pytest.mark.parametrize("task", TASKS)
def test_a_task_declares_the_plots_that_its_kind_of_head_has(task: str) -> None:
    """As `graftline new` writes them: a confusion of heads that choose one of some classes alone."""
    document, where = load_document(ROOT / "data" / task / "params.yaml")
    head = section(document, where, "finetune", FinetuneParams).head
    text = (ROOT / "data" / task / "dvc.yaml").read_text()
    assert text == plots(head.name)
    assert ("confusion.csv" in text) == ("macro_f1" in {score.name for score in head.scores})


def test_the_order_of_keys_in_a_file_changes_nothing(tmp_path: Path) -> None:
    models = parameter_models()
    dumps = set()
    for lift in ('{"5": 0.1, "10": 0.2, all: 0.3}', '{all: 0.3, "10": 0.2, "5": 0.1}'):
        path = tmp_path / "params.yaml"
        path.write_text(f"task: toy\nevaluate:\n  lift_labels: [5, 10, null]\n  gate:\n    min_lift: {lift}\n")
        document, where = load_document(path)
        dumps.add(section(document, where, "evaluate", models["evaluate"]).model_dump_json())
    assert len(dumps) == 1
