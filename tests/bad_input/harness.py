"""What every case of the corpus shares: a command that must end badly, and the checks after it."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from graftline.component import main

EXIT_INPUT = 2
OLD_OUTPUT = {"old.bin": b"\0the output of an earlier run\xff", "record.json": b"{}", "deep/er.txt": b"kept"}
CONTRACT = {
    "columns": {
        "image": {"type": "image", "shape": [28, 28]},
        "label": {"type": "integer", "role": "label", "classes": list(range(10))},
    }
}
TRAINING = {
    "pretrain": {"epochs": 1, "trunk": {"name": "conv", "channels": [4, 8, 16], "width": 32}},
    "finetune": {"epochs": 1, "min_steps": 4},
}
HANG_SECONDS = 120
"""A process that runs longer hangs; no case comes near."""


@dataclass(frozen=True)
class Parts:
    """Whole, verified outputs of the task `digits`, and a store with one release of it."""

    raw: Path
    expectations: Path
    dataset: Path
    trunk: Path
    model: Path
    evaluation: Path
    store: Path


@dataclass(frozen=True)
class Call:
    """One command line."""

    name: str
    """A component, or `graftline`: what the error line begins with."""
    arguments: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    """What must be as it was afterwards; also places where nothing may appear."""
    out: Path | None = None

    @property
    def process(self) -> list[str]:
        """The command line as a shell would start it."""
        module = "graftline.cli" if self.name == "graftline" else f"graftline.components.{self.name}"
        return [sys.executable, "-m", module, *self.arguments]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    error: str
    peak_bytes: int = 0
    """Of its own process; 0 if it ran in this one."""


def call(
    component: str, document: str | Path, out: Path, *options: str, inputs: tuple[Path, ...] = (), **given: Path
) -> Call:
    """Return the call of a component; `given` are its `--in-` paths by name."""
    arguments = ["--params", str(document)]
    for name, path in given.items():
        arguments += [f"--in-{name}", str(path)]
    output = importlib.import_module(f"graftline.components.{component}").COMPONENT.output
    arguments += [f"--out-{output}", str(out), *options]
    return Call(component, tuple(arguments), (*given.values(), *inputs), out)


def run_here(command: Call, capture: pytest.CaptureFixture[str]) -> Ended:
    """Run the entry point in this process; what its libraries write to the descriptor counts too."""
    capture.readouterr()
    code = 0
    try:
        if command.name == "graftline":
            _run_cli(command.arguments)
        else:
            component = importlib.import_module(f"graftline.components.{command.name}").COMPONENT
            main(component, list(command.arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    return Ended(code, capture.readouterr().err)


def _run_cli(arguments: tuple[str, ...]) -> None:
    from graftline.cli.app import main as run

    before = sys.argv
    sys.argv = ["graftline", *arguments]
    try:
        run()
    finally:
        sys.argv = before


def run_process(command: Call, error: Path) -> Ended:
    """Run the entry point as an engine does, and measure its memory; `error` takes its standard error."""
    with error.open("wb") as sink:
        process = subprocess.Popen(command.process, stderr=sink, stdout=subprocess.DEVNULL, cwd=error.parent)
        timer = _kill_after(process)
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, error.read_text(), usage.ru_maxrss * 1024)


def _kill_after(process: subprocess.Popen[bytes]):  # type: ignore[no-untyped-def]
    from threading import Timer

    timer = Timer(HANG_SECONDS, process.kill)
    timer.start()
    return timer


def snapshot(path: Path) -> object:
    """Return what lies at `path`: of a folder every name with its content's digest, links not followed."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return {inner.name: snapshot(inner) for inner in path.iterdir()}
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return "special" if path.exists() else None


def put_old_output(out: Path) -> None:
    """Put an output of an earlier run at `out`."""
    for name, data in OLD_OUTPUT.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)


def check(command: Call, ended: Ended, fragments: tuple[str, ...], code: int) -> None:
    """Assert that the command refused with `code` and one line that holds all fragments."""
    # Progress begins with the component and the task: `pretrain digits: 3/10 ...`.
    lines = [line for line in ended.error.splitlines() if not line.startswith(f"{command.name} digits: ")]
    assert "Traceback" not in ended.error, ended.error
    assert len(lines) == 1, ended.error
    assert lines[0].startswith(f"{command.name}: "), ended.error
    for fragment in fragments:
        assert fragment in lines[0], f"{fragment!r} is not in: {lines[0]}"
    assert ended.code == code, ended


def leftovers(out: Path, before: object, allowed: tuple[str, ...]) -> set[str]:
    """Return the new names beside `out`, without its lock, the records kept of earlier outputs, and those allowed."""
    assert isinstance(before, dict)
    own = {f".{out.name}.lock", f".{out.name}.records"}
    return {path.name for path in out.parent.iterdir()} - before.keys() - own - {*allowed}


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
