"""Parameters that are refused: the file, its YAML, its keys, its values. Nothing in it is ever executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import Call, Parts, call, run_here

MEBI = 1 << 20
Refused = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A parameter document for pretrain or finetune, and what the refusal says."""

    document: str | bytes | dict[str, Any]
    """Text or bytes of params.yaml; a mapping is given as JSON on the command line."""
    says: tuple[str, ...]
    component: str = "pretrain"


def of(component: str, **values: Any) -> dict[str, Any]:
    return {"task": "digits", component: values}


def text(lines: str) -> str:
    return f"task: digits\n{lines}\n"


def bomb(levels: int, width: int) -> str:
    """Return a document that is `width ** levels` values once its aliases are expanded (billion laughs)."""
    lines = ["a0: &a0 [lol]"]
    for level in range(1, levels + 1):
        lines.append(f"a{level}: &a{level} [" + ", ".join([f"*a{level - 1}"] * width) + "]")
    return "\n".join(lines)


def merge_bomb(levels: int, width: int) -> str:
    """Return the same with merge keys."""
    lines = ["a0: &a0 {k: v}"]
    for level in range(1, levels + 1):
        lines.append(f"a{level}: &a{level} {{<<: [" + ", ".join([f"*a{level - 1}"] * width) + "]}")
    return "\n".join(lines)


CASES = {
    "an unknown key": Case(
        of("pretrain", epoch=3),
        ("--params: pretrain.epoch: unknown key; did you mean 'epochs'?", "expected one of batch"),
    ),
    "an unknown key deep inside": Case(
        of("finetune", head={"name": "image_classification", "augmentation": {"shfit": 1}}),
        ("finetune.head.image_classification.augmentation.shfit: unknown key", "expected one of"),
        "finetune",
    ),
    "an unknown section": Case(
        {"task": "digits", "pretain": {}},
        ("--params: unknown key 'pretain'; did you mean 'pretrain'?", "task, validate"),
    ),
    "text for a number": Case(
        of("pretrain", batch="many"), ("pretrain.batch: 'many': input should be a valid integer", "README")
    ),
    "a list for a section": Case(
        {"task": "digits", "pretrain": [1]}, ("--params: pretrain: [1]: input should be a valid dictionary",)
    ),
    "negative epochs": Case(
        text("pretrain: {epochs: -1}"), ("params.yaml: pretrain.epochs: -1: ", "greater than or equal to 0", "README")
    ),
    "10.5 for an integer": Case(
        of("pretrain", batch=10.5),
        ("pretrain.batch: 10.5: input should be a valid integer, got a number with a fractional part",),
    ),
    "a truth value for a rate": Case(
        of("finetune", learning_rate=[True]), ("finetune.learning_rate: [True]:",), "finetune"
    ),
    "NaN for a rate": Case(
        text("pretrain: {learning_rate: .nan}"),
        ("params.yaml: pretrain.learning_rate: nan: input should be a finite number",),
    ),
    "infinity for a rate": Case(
        '{"task": "digits", "pretrain": {"learning_rate": 1e999}}', ("pretrain.learning_rate: ",)
    ),
    "an unknown objective": Case(
        of("pretrain", objective={"name": "jigsaw"}), ("pretrain.objective: ", "'jigsaw'", "'masked_autoencoder'")
    ),
    "an unknown head": Case(
        of("finetune", head={"name": "regression"}),
        ("finetune.head: {'name': 'regression'}: input tag", "'image_classification'"),
        "finetune",
    ),
    "more labels a class than there are": Case(
        of("finetune", labels_per_class=1000),
        ("labels_per_class: 1000, but class number", "ask for at most"),
        "finetune",
    ),
    "seeds beyond 31 bits": Case(of("pretrain", seed=2**31), ("pretrain.seed: 2147483648: input should be less than",)),
    "channels of a negative number": Case(
        of("pretrain", trunk={"name": "conv", "channels": [4, -8, 16]}),
        ("pretrain.trunk.conv.channels.1: -8: ", "greater than or equal to 1"),
    ),
    "not UTF-8": Case(
        text("pretrain: {}").encode() + b"# caf\xe9\n", ("params.yaml: byte 31 is not UTF-8; expected UTF-8 text",)
    ),
    "UTF-16": Case(text("pretrain: {}").encode("utf-16"), ("params.yaml: byte 0 is not UTF-8",)),
    "a NUL byte": Case(text("pretrain: {}").encode() + b"\0\n", ("params.yaml: ", "not YAML")),
    "an empty file": Case("", ("params.yaml: a NoneType; expected a mapping",)),
    "a list": Case("- task: digits\n", ("params.yaml: a list; expected a mapping with one section a component",)),
    "more than 1 MiB": Case(text("#" * (MEBI + 1)), ("params.yaml: 1048591 bytes; expected at most 1048576",)),
    "nested 100,000 deep": Case(
        text("pretrain: " + "[" * 100_000), ("params.yaml: line 2: nested deeper than 32 levels; flatten it",)
    ),
    "a key twice": Case(
        text("pretrain:\n  epochs: 1\n  epochs: 2"), ("params.yaml: line 4: key 'epochs' stands twice; delete one",)
    ),
    "a tab as indentation": Case(
        text("pretrain:\n\tepochs: 1"), ("params.yaml: line 3: not YAML (", "expected YAML of plain values")
    ),
    "an alias in itself": Case(text("pretrain: &a [*a]"), ("params.yaml: an alias refers to the value that it is in",)),
    "an impossible date": Case(
        text("pretrain: {epochs: 2001-13-45}"), ("params.yaml: not YAML (month must be in 1..12)",)
    ),
    "a number of 5,000 digits": Case(
        text("pretrain: {epochs: " + "9" * 5000 + "}"), ("params.yaml: not YAML (", "4300")
    ),
    "JSON that is cut": Case(
        '{"task": "digits", "pretrain": {"epochs": 1',
        ("--params: not JSON (Expecting", "line 1 column 44", "expected a JSON object"),
    ),
    "JSON nested 100,000 deep": Case(
        '{"task": ' + "[" * 100_000, ("--params: nested deeper than 32 levels; flatten it",)
    ),
    "JSON nested 40 deep": Case(
        '{"task": ' + "[" * 39 + "1" + "]" * 39 + "}", ("--params: nested deeper than 32 levels",)
    ),
    "JSON with a key twice": Case(
        '{"task": "digits", "task": "x"}', ("--params: key 'task' stands twice; delete one",)
    ),
    "JSON with half a character": Case('{"task": "\\ud83d"}', ("--params: not JSON (", "surrogates not allowed")),
    "an integer that no record can hold": Case(
        of("pretrain", warmup_steps=10**30), ("--params: pretrain", "give a smaller number")
    ),
    "no task": Case(
        {"pretrain": {}}, ("--params: task: None; expected a name of lower-case letters", "folder under data/")
    ),
    "a task that is a path": Case(
        {"task": "../x", "pretrain": {}}, ("--params: task: '../x'; expected a name of lower-case letters",)
    ),
    "a task that is a number": Case(b"task: 7\n", ("params.yaml: task: 7; expected a name",)),
}


def command(case: Case, parts: Parts, folder: Path) -> Call:
    """Write the document and return the call."""
    document: str | Path
    if isinstance(case.document, dict):
        document, files = json.dumps(case.document), ()
    elif isinstance(case.document, str) and case.document.startswith("{"):
        document, files = case.document, ()
    else:
        document, files = folder / "params.yaml", (folder / "params.yaml",)
        content = case.document
        document.write_bytes(content.encode() if isinstance(content, str) else content)
    given = {"dataset": parts.dataset} | ({"trunk": parts.trunk} if case.component == "finetune" else {})
    out = folder / "outputs" / "out"
    return call(case.component, document, out, "--threads", "1", inputs=files, **given)


@pytest.mark.parametrize("name", CASES)
def test_bad_parameters_are_refused(name: str, parts: Parts, tmp_path: Path, refused: Refused) -> None:
    refused(command(CASES[name], parts, tmp_path), *CASES[name].says)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nowhere.yaml", "nowhere.yaml: the file is missing; check the path"),
        (".", "this is a folder; expected a YAML file"),
        ("x" * 5000, "file name too long"),
    ],
)
def test_a_parameter_file_that_cannot_be_read_is_refused(
    place: str, says: str, parts: Parts, tmp_path: Path, refused: Refused
) -> None:
    refused(call("pretrain", tmp_path / place, tmp_path / "outputs" / "trunk", dataset=parts.dataset), says)


def test_an_endless_parameter_file_is_refused(parts: Parts, tmp_path: Path, refused: Refused) -> None:
    bad = call("pretrain", Path("/dev/zero"), tmp_path / "outputs" / "trunk", dataset=parts.dataset)
    refused(bad, "/dev/zero: not a regular file; expected a YAML file")


@pytest.mark.parametrize("kind", [bomb, merge_bomb])
def test_a_yaml_bomb_is_refused_in_the_memory_of_a_small_file(
    kind: Callable[[int, int], str], parts: Parts, tmp_path: Path, refused: Refused
) -> None:
    says = "params.yaml: more than 100000 values once aliases are expanded; write less"
    bad = command(Case(text(kind(30, 10)), ()), parts, tmp_path)
    of_bomb = refused(bad, says, process=True, older=(False,)).peak_bytes
    small = command(Case(text("pretrain: {epochs: -1}"), ()), parts, tmp_path)
    of_small = refused(small, "-1", process=True, older=(False,)).peak_bytes
    assert of_bomb < of_small + 32 * MEBI


@pytest.mark.parametrize(
    "value",
    [
        '!!python/object/apply:os.system ["touch {}"]',
        '!!python/object/new:os.system ["touch {}"]',
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{}']]",
        "!!python/name:os.system ''",
    ],
)
def test_a_python_tag_is_refused_and_nothing_is_executed(
    value: str, parts: Parts, tmp_path: Path, refused: Refused
) -> None:
    trace = tmp_path / "executed"
    bad = command(Case(text("pretrain: {epochs: " + value.format(trace) + "}"), ()), parts, tmp_path)
    refused(bad, "params.yaml: line 2: not YAML (could not determine a constructor for the tag", "plain values")
    assert not trace.exists()


def test_json_is_read_as_json_where_yaml_differs(
    parts: Parts, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    document = (
        '{\t"task": "digits", "publish": {"licence": "\\ud83d\\ude00"}, "finetune": {"min_steps": 1e0, "epochs": 1}}'
    )
    good = call("finetune", document, tmp_path / "model", dataset=parts.dataset, trunk=parts.trunk)
    ended = run_here(good, capfd)
    assert ended.code == 0, ended.error


def test_a_whole_number_written_as_a_float_is_taken(
    parts: Parts, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    document = json.dumps(of("finetune", epochs=1.0, min_steps=10.0))
    good = call("finetune", document, tmp_path / "model", dataset=parts.dataset, trunk=parts.trunk)
    ended = run_here(good, capfd)
    assert ended.code == 0, ended.error
    record = json.loads((tmp_path / "model" / "record.json").read_text())
    taken = record["predicate"]["buildDefinition"]["externalParameters"]["parameters"]["finetune"]
    assert (taken["epochs"], taken["min_steps"]) == (1, 10)


@pytest.mark.parametrize("threads", ["-1", "0"])
def test_a_number_of_threads_below_1_is_refused(threads: str, parts: Parts, tmp_path: Path, refused: Refused) -> None:
    bad = call("pretrain", '{"task": "digits"}', tmp_path / "trunk", f"--threads={threads}", dataset=parts.dataset)
    refused(bad, f"--threads: {threads}; expected at least 1")
