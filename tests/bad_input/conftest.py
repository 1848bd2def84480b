"""Real outputs of the components, made once of 600 real digits, and the check that all cases share."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "learning")]

from harness import (  # noqa: E402
    CONTRACT,
    EXIT_INPUT,
    TRAINING,
    Call,
    Ended,
    Parts,
    call,
    check,
    leftovers,
    put_old_output,
    remove,
    run_here,
    run_process,
    snapshot,
)
from session import once  # noqa: E402

from graftline.environment import ROOT  # noqa: E402
from graftline.records.folder import Draft, read_record, write_record  # noqa: E402
from graftline.records.model import Dependency  # noqa: E402

RAW = ROOT / "data" / "mnist" / "raw" / "images.parquet"
Refused = Callable[..., Ended]


@pytest.fixture(scope="session")
def digits() -> pa.Table:
    return _digits()


def _digits() -> pa.Table:
    """Return 600 of the shipped digits, 60 a class in turn."""
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    table = pq.read_table(RAW)
    labels = table["label"].to_numpy()
    return table.take(np.stack([np.flatnonzero(labels == c)[:60] for c in range(10)], axis=1).reshape(-1))


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return _parts_in(_made(tmp_path_factory.getbasetemp()))


def _parts_in(folder: Path) -> Parts:
    return Parts(*(folder / name for name in Parts.__dataclass_fields__))


@once
def _made(home: Path) -> Path:
    folder = home / "bad_input"
    made = _parts_in(folder)
    made.raw.mkdir(parents=True)
    pq.write_table(_digits(), made.raw / "digits.parquet")
    made.expectations.write_text(json.dumps(CONTRACT))
    document = json.dumps({"task": "digits", **TRAINING})
    store, threads = ("--store", str(made.store)), ("--threads", "1")
    sources = {"raw": made.raw, "expectations": made.expectations}
    _make(call("validate", document, made.dataset, *store, **sources))
    _make(call("pretrain", document, made.trunk, *threads, dataset=made.dataset))
    _make(call("finetune", document, made.model, *threads, dataset=made.dataset, trunk=made.trunk))
    _write_evaluation(made)
    inputs = {name: getattr(made, name) for name in ("dataset", "trunk", "model", "evaluation")}
    _make(call("publish", document, folder / "release", *store, **inputs))
    return folder


def _make(command: Call) -> None:
    from importlib import import_module

    from graftline.component import main

    main(import_module(f"graftline.components.{command.name}").COMPONENT, list(command.arguments))


def _write_evaluation(parts: Parts) -> None:
    """Write an evaluation that passes: a measured one would take longer than the corpus."""
    parts.evaluation.mkdir()
    rule = {"name": "min_accuracy", "passed": True, "value": 0.99, "limit": 0.9, "comparison": ">="}
    decision = {"passed": True, "reason": "min_accuracy by 0.09", "rules": [rule], "champion": None}
    (parts.evaluation / "decision.json").write_text(json.dumps(decision))
    (parts.evaluation / "metrics.json").write_text(json.dumps({"accuracy": 0.99}))
    inputs = [(path.name, read_record(path)) for path in (parts.dataset, parts.trunk, parts.model)]
    dependencies = [Dependency(name, record.content, record.sha256) for name, record in inputs]
    write_record(parts.evaluation, Draft("evaluate", "digits", "evaluation", dependencies=dependencies))


@pytest.fixture
def copy(parts: Parts, tmp_path: Path) -> Callable[[str], Path]:
    """Return a copy of one of the parts, to be damaged."""

    def copied(name: str) -> Path:
        source = getattr(parts, name)
        return Path((shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name))

    return copied


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Refused]:
    """Run a command that must be refused, twice: without an output of an earlier run, and with one.

    Each time: the exit code, one line on standard error that begins with the component's name and holds all
    fragments, no stack trace, no new output, nothing left beside it but its lock (and the names in
    `allowed`), the inputs and the older output as they were, byte for byte.
    """
    errors = tmp_path / "errors"
    errors.mkdir()

    def run(
        command: Call,
        *fragments: str,
        code: int = EXIT_INPUT,
        process: bool = False,
        allowed: tuple[str, ...] = (),
        older: tuple[bool, ...] = (False, True),
    ) -> Ended:
        ended = Ended(0, "")
        for with_older in older if command.out is not None else (False,):
            if with_older and command.out is not None:
                put_old_output(command.out)
            parent = command.out.parent if command.out is not None else errors
            inputs = [snapshot(path) for path in command.inputs]
            beside = snapshot(parent) if parent.is_dir() else {}
            old = snapshot(command.out) if command.out is not None else None
            assert (old is not None) == with_older
            ended = run_process(command, errors / "stderr") if process else run_here(command, capfd)
            check(command, ended, fragments, code)
            assert [snapshot(path) for path in command.inputs] == inputs
            if command.out is not None:
                assert snapshot(command.out) == old
                assert not parent.is_dir() or not leftovers(command.out, beside, allowed)
                for name in (command.out.name, *allowed):
                    remove(parent / name)
        return ended

    yield run
