"""Which checkpoints a run goes on from: those of the same parameters, inputs and code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftline import environment
from graftline.component import Context
from graftline.components.pretrain import COMPONENT
from graftline.environment import ROOT
from graftline.learning.desk import open_desk
from graftline.records import Draft


def context(work: Path, **parameters: int) -> Context:
    draft = Draft("pretrain", "digits", "trunk", parameters={"pretrain": parameters})
    return Context(
        component=COMPONENT, task="digits", document={}, where="", paths={}, records={}, out=work, work=work,
        threads=1, checkpoint_seconds=0, store_url="", draft=draft,
    )  # fmt: skip


def test_a_run_with_other_parameters_leaves_the_checkpoints_of_the_first_alone(tmp_path: Path) -> None:
    first = open_desk(context(tmp_path, epochs=1), 8)
    first.checkpoints.save(5, {"w": torch.ones(2)}, {})
    other = open_desk(context(tmp_path, epochs=2), 8)
    assert other.checkpoints.load() is None
    other.checkpoints.save(7, {"w": torch.zeros(2)}, {})
    again = open_desk(context(tmp_path, epochs=1), 8).checkpoints.load()
    assert again is not None and again.step == 5 and torch.equal(again.tensors["w"], torch.ones(2))


def test_an_edit_elsewhere_in_the_repository_does_not_lose_the_checkpoints(tmp_path: Path) -> None:
    open_desk(context(tmp_path), 8).checkpoints.save(5, {"w": torch.ones(2)}, {})
    note = ROOT / "build" / "a-note-of-a-test.py"
    note.parent.mkdir(exist_ok=True)
    note.write_text("# not loaded by a component\n")
    try:
        assert open_desk(context(tmp_path), 8).checkpoints.load() is not None
    finally:
        note.unlink()


def test_another_image_or_lock_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_desk(context(tmp_path), 8).checkpoints.save(5, {"w": torch.ones(2)}, {})
    monkeypatch.setenv("GRAFTLINE_IMAGE", "sha256:" + "1" * 64)
    assert open_desk(context(tmp_path), 8).checkpoints.load() is None


def test_an_edit_of_the_stages_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_desk(context(tmp_path), 8).checkpoints.save(5, {"w": torch.ones(2)}, {})
    (tmp_path / "components/pretrain").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {pretrain: {do: {deps: [components/pretrain]}}}\n")
    (tmp_path / "components/pretrain/new.py").write_text("# nobody has loaded it yet\n")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "_components", lambda: tmp_path / "components")
    assert open_desk(context(tmp_path), 8).checkpoints.load() is None
