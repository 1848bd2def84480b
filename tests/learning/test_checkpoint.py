"""Checkpoints: what does not verify is not used, and the one before it is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from graftline.durable import write_new
from graftline.learning.checkpoint import MANIFEST, STATE, Checkpoints

FACTS = {"metrics_bytes": 1234, "stopped": False, "watcher": {"score": [41, -0.1], "waited": 2}}


def state(step: int) -> dict[str, torch.Tensor]:
    return {
        "model.weight": torch.full((300,), float(step)),
        "model.count": torch.tensor(step),
        "optimizer.0.exp_avg": torch.arange(6.0).reshape(2, 3).T,
    }


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(tmp_path / "checkpoints", "identity", every_seconds=0)
    for step in (10, 20, 30):
        made.save(step, state(step), FACTS)
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_comes_back_bit_for_bit(checkpoints: Checkpoints) -> None:
    found = checkpoints.load()
    assert found is not None
    assert (found.step, found.facts) == (30, FACTS)
    assert found.tensors.keys() == state(30).keys()
    for name, tensor in state(30).items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_the_last_two_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert names(tmp_path) == ["00000020", "00000030"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit in the tensors": lambda folder: flip(folder / STATE, -1),
    "a flipped bit in the tensors' header": lambda folder: flip(folder / STATE, 9),
    "truncated tensors": lambda folder: (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-1]),
    "no tensors": lambda folder: (folder / STATE).unlink(),
    "a truncated manifest": lambda folder: (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-9]),
    "an empty manifest": lambda folder: (folder / MANIFEST).write_bytes(b""),
    "a manifest that is a list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_not_used_and_the_one_before_is(
    checkpoints: Checkpoints, tmp_path: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(tmp_path / "checkpoints/00000030")
    found = checkpoints.load()
    assert found is not None
    assert found.step == 20
    assert torch.equal(found.tensors["model.weight"], state(20)["model.weight"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("checkpoint 00000030 is damaged (")
    assert names(tmp_path) == ["00000020"]


def test_a_flipped_bit_anywhere_in_a_manifest_is_seen(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A changed step or file size would still be JSON: the run would go on from the wrong place."""
    whole = (tmp_path / "checkpoints/00000030" / MANIFEST).read_bytes()
    for place in range(len(whole)):
        folder = tmp_path / "checkpoints/00000030"
        folder.mkdir(exist_ok=True)
        (folder / MANIFEST).write_bytes(whole)
        flip(folder / MANIFEST, place)
        (folder / STATE).write_bytes((tmp_path / "checkpoints/00000020" / STATE).read_bytes())
        found = checkpoints.load()
        assert found is not None
        assert found.step == 20, place


def test_a_checkpoint_of_another_run_is_not_used_and_it_is_said(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Checkpoints(tmp_path / "checkpoints", "other parameters", 0).load() is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("of a run with other parameters, inputs, code or threads; it is not used" in line for line in lines)
    assert checkpoints.load() is None, "they were removed: the folder is the other run's now"


def test_the_one_before_is_kept_until_the_new_one_verifies(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that writes other bytes than it was given: the damaged checkpoint costs no good one."""

    def write_and_lose_a_bit(path: Path, data: bytes) -> None:
        write_new(path, data)
        flip(path.with_name(STATE), -1)

    monkeypatch.setattr("graftline.learning.checkpoint.write_new", write_and_lose_a_bit)
    checkpoints.save(40, state(40), FACTS)
    assert names(tmp_path) == ["00000020", "00000030", "00000040"]
    found = checkpoints.load()
    assert found is not None
    assert found.step == 30


def test_half_a_checkpoint_left_by_a_kill_is_removed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    aside = tmp_path / "checkpoints/.00000035.aside-0123"
    aside.mkdir()
    (aside / STATE).write_bytes(b"half")
    found = checkpoints.load()
    assert found is not None
    assert found.step == 30
    assert not aside.exists()


def test_a_write_that_fails_leaves_the_checkpoints_as_they_were(checkpoints: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        checkpoints.save(40, state(40), {"loss": float("nan")})
    assert names(tmp_path) == ["00000020", "00000030"]


def test_a_manifest_is_json_that_a_person_can_check(checkpoints: Checkpoints, tmp_path: Path) -> None:
    manifest = json.loads((tmp_path / "checkpoints/00000030" / MANIFEST).read_text())
    assert manifest["content"]["step"] == 30
    assert manifest["content"]["facts"] == FACTS


def test_an_empty_folder_holds_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nowhere", "identity", 0).load() is None
