"""Outputs of earlier components that changed, are incomplete, or are not what they are given for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from harness import Call, Parts, call
from safetensors.torch import load_file, save_file

from graftline.components import finetune, pretrain, publish
from graftline.digests import RECORD
from graftline.records.folder import Draft, read_record, write_record

Refused = Callable[..., Any]
Copy = Callable[[str], Path]
INPUTS = {
    "pretrain": pretrain.COMPONENT.inputs,
    "finetune": finetune.COMPONENT.inputs,
    "evaluate": ("dataset", "trunk", "model"),
    "publish": publish.COMPONENT.inputs,
}


@dataclass(frozen=True)
class Case:
    """A component, which of its inputs is damaged, how, and what the refusal says."""

    component: str
    part: str
    damage: Callable[[Path], object]
    says: tuple[str, ...]
    params: dict[str, Any] | None = None


def command(component: str, parts: Parts, folder: Path, task: str = "digits", **given: Path) -> Call:
    """Return the call of `component` on whole parts, but for those that are `given`."""
    inputs = {name: given.get(name, getattr(parts, name)) for name in INPUTS[component]}
    uses_store = component in ("evaluate", "publish")
    options = ("--store", str(folder / "store")) if uses_store else ()
    return call(
        component,
        json.dumps({"task": task}),
        folder / "outputs" / "out",
        "--threads",
        "1",
        *options,
        inputs=(folder / "store",),
        **inputs,
    )


# Ways to damage a folder


def flip(name: str) -> Callable[[Path], object]:
    """Flip one bit in the middle of a file."""

    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 16
        (folder / name).write_bytes(content)

    return damage


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def delete(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def edit_record(change: Callable[[Any], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        record = json.loads((folder / RECORD).read_text())
        change(record)
        (folder / RECORD).write_text(json.dumps(record))

    return damage


def and_record(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Damage a folder, and write the record that fits the damage: its digests are right then."""

    def both(folder: Path) -> None:
        record = read_record(folder)
        damage(folder)
        write_record(folder, Draft(record.component, record.task, record.name))

    return both


def other_width(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: torch.cat([tensor, tensor]) for name, tensor in tensors.items() if tensor.dim()},
        folder / "model.safetensors",
    )


def without_tensor(folder: Path) -> None:
    tensors = load_file(folder / "trunk.safetensors")
    tensors.popitem()
    save_file(tensors, folder / "trunk.safetensors")


def without_label(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "train.parquet").drop(["label"]), folder / "train.parquet")


def empty_split(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "unlabelled.parquet").slice(0, 0), folder / "unlabelled.parquet")


def other_subject(record: Any) -> None:
    record["subject"][0]["digest"]["sha256"] = "0" * 64


AGAIN = "run the stage that makes it again"
CASES = {
    "a flipped bit in the dataset": Case(
        "pretrain",
        "dataset",
        flip("unlabelled.parquet"),
        ("dataset: content differs from its record: unlabelled.parquet has sha256", "its record says", AGAIN),
    ),
    "a flipped bit in another split": Case(
        "finetune",
        "dataset",
        flip("test.parquet"),
        ("dataset: content differs from its record: test.parquet has sha256", AGAIN),
    ),
    "a flipped bit in the trunk": Case(
        "finetune",
        "trunk",
        flip("trunk.safetensors"),
        ("trunk: content differs", "trunk.safetensors has sha256", AGAIN),
    ),
    "a flipped bit in a config": Case(
        "finetune", "trunk", flip("trunk.json"), ("trunk: content differs", "trunk.json has sha256", AGAIN)
    ),
    "a flipped bit in the model": Case(
        "evaluate", "model", flip("model.safetensors"), ("model: content differs", "model.safetensors", AGAIN)
    ),
    "a flipped bit in the decision": Case(
        "publish", "evaluation", flip("decision.json"), ("evaluation: content differs", "decision.json", AGAIN)
    ),
    "an extra file": Case(
        "finetune", "trunk", write("notes.txt", b"mine"), ("trunk: content differs", "extra file notes.txt", AGAIN)
    ),
    "a missing file": Case(
        "finetune", "trunk", delete("metrics.json"), ("trunk: content differs", "missing file metrics.json", AGAIN)
    ),
    "a file renamed": Case(
        "publish",
        "model",
        lambda folder: (folder / "curve.png").rename(folder / "graph.png"),
        ("model: content differs", "extra file graph.png; missing file curve.png"),
    ),
    "a file cut to nothing": Case(
        "pretrain", "dataset", write("schema.json", b""), ("dataset: content differs", "schema.json has sha256 e3b0c4")
    ),
    "a record of other content": Case(
        "pretrain",
        "dataset",
        edit_record(other_subject),
        ("record.json: its list of files does not give the digest that it names", AGAIN),
    ),
    "a record that is not JSON": Case(
        "pretrain", "dataset", write(RECORD, b"{'type'"), ("record.json: not JSON (", "line 1 column 2", AGAIN)
    ),
    "a record that is not UTF-8": Case(
        "pretrain", "dataset", write(RECORD, b'{"\xe9\xff'), ("record.json: not JSON (", AGAIN)
    ),
    "a record of 0 bytes": Case("pretrain", "dataset", write(RECORD, b""), ("record.json: not JSON (", AGAIN)),
    "a record nested 100,000 deep": Case(
        "pretrain", "dataset", write(RECORD, b"[" * 100_000), ("record.json: nested too deeply", AGAIN)
    ),
    "a record that is a list": Case(
        "pretrain", "dataset", write(RECORD, b"[]"), ("record.json: not a record (", AGAIN)
    ),
    "a record of another type": Case(
        "pretrain",
        "dataset",
        edit_record(lambda record: record.update(predicateType="https://slsa.dev/provenance/v0.2")),
        ("record.json: an unknown type of statement; expected https://in-toto.io/Statement/v1",),
    ),
    "a record without its subject": Case(
        "pretrain",
        "dataset",
        edit_record(lambda record: record.pop("subject")),
        ("record.json: not a record (KeyError('subject'))", AGAIN),
    ),
    "a record whose files have odd names": Case(
        "pretrain",
        "dataset",
        edit_record(
            lambda r: r["predicate"]["runDetails"]["byproducts"][2]["annotations"]["files"][0].update(path=["x"])
        ),
        ("record.json: not a record (TypeError(", AGAIN),
    ),
    "no record": Case(
        "pretrain", "dataset", delete(RECORD), ("record.json: the file is missing; run the stage that makes it",)
    ),
    "weights that do not fit the config": Case(
        "evaluate", "model", and_record(other_width), ("model.safetensors: ", "run finetune again")
    ),
    "a trunk without one of its tensors": Case(
        "finetune", "trunk", and_record(without_tensor), ("trunk.safetensors: ", "run pretrain again")
    ),
    "weights that are no safetensors": Case(
        "finetune",
        "trunk",
        and_record(write("trunk.safetensors", b"\x80\x04pickle")),
        ("trunk.safetensors: ", "run pretrain again"),
    ),
    "a config without its keys": Case(
        "finetune", "trunk", and_record(write("trunk.json", b"{}")), ("trunk.json: ", "run pretrain again")
    ),
    "a model's config without its keys": Case(
        "evaluate",
        "model",
        and_record(write("head.json", b'{"head": {"name": "image_classification"}}')),
        ("head.json: ", "run finetune again"),
    ),
    "a dataset of which a split lacks its column": Case(
        "finetune",
        "dataset",
        and_record(without_label),
        ("train.parquet: not as schema.json says", "label", "run validate again"),
    ),
    "a dataset of which a split has no rows": Case(
        "pretrain", "dataset", and_record(empty_split), ("unlabelled.parquet: no rows", "split fractions")
    ),
    "a schema without its keys": Case(
        "pretrain", "dataset", and_record(write("schema.json", b"{}")), ("schema.json: ", "run validate again")
    ),
    "a table that is none": Case(
        "pretrain",
        "dataset",
        and_record(write("unlabelled.parquet", b"row,image\n")),
        ("unlabelled.parquet: ", "run validate again"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_input_is_refused(name: str, parts: Parts, copy: Copy, tmp_path: Path, refused: Refused) -> None:
    case = CASES[name]
    damaged = copy(case.part)
    case.damage(damaged)
    refused(command(case.component, parts, tmp_path, **{case.part: damaged}), *case.says)


def test_an_output_of_another_task_is_refused(parts: Parts, tmp_path: Path, refused: Refused) -> None:
    bad = command("finetune", parts, tmp_path, task="mnist")
    refused(bad, "--in-dataset: made for task 'digits'; expected task 'mnist'", "outputs of one task")


def test_a_trunk_given_as_a_dataset_is_refused(parts: Parts, tmp_path: Path, refused: Refused) -> None:
    bad = command("pretrain", parts, tmp_path, dataset=parts.trunk)
    refused(bad, "--in-dataset: a trunk; expected a dataset; give the right folder")


def test_an_input_that_is_not_there_or_no_folder_is_refused(parts: Parts, tmp_path: Path, refused: Refused) -> None:
    for place in (tmp_path / "nowhere", parts.dataset / "train.parquet"):
        bad = command("pretrain", parts, tmp_path, dataset=place)
        refused(bad, f"{place}: no such folder; run the stage that makes it")


def test_a_damaged_input_is_refused_by_a_real_process(
    parts: Parts, copy: Copy, tmp_path: Path, refused: Refused
) -> None:
    damaged = copy("trunk")
    flip("trunk.safetensors")(damaged)
    bad = command("finetune", parts, tmp_path, trunk=damaged)
    refused(bad, "trunk.safetensors has sha256", process=True, older=(True,))
