"""`make gpu-check`: on a machine with a GPU, the tests that need one, its figures, and one table; within 8 minutes.

    python -m bench.gpu [--out FOLDER] [--seconds N] [PART...]

Each part is a process of its own: what one does to a GPU or to its memory is not another's, and a part that fails is a
line of the table that says so. FOLDER (build/gpu) gets gpu.json, the table, and PART.log, all that a part said.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from bench.gpu_lines import Line, read_lines
from graftline.environment import ROOT, code_revision
from graftline.errors import EXIT_INPUT, GraftlineError
from graftline.learning.device import count

_SECONDS = 8 * 60
PARTS = {
    "tests": ("bench.gpu_checks", 200),
    "bits": ("bench.gpu_checks", 200),
    "tokens": ("bench.gpu_rates", 110),
    "images": ("bench.gpu_rates", 70),
    "finetune": ("bench.gpu_rates", 110),
}
"""The parts, the module of each, and the seconds that it may take."""
_TOGETHER = (("tests", "bits"), ("tokens",), ("images",), ("finetune",))
"""Parts that run at once: of the first two nobody asks how fast they are."""
_TOLD = 15
"""Last lines of what a part said that are shown when it has failed."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder (default: build/gpu)")
    parser.add_argument("--seconds", type=int, default=_SECONDS, help="to be done in (default: %(default)s)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"unknown part {unknown[0]!r}; expected some of {', '.join(PARTS)}")
    if not count():
        print("gpu-check: no GPU here; run it on a machine with one", file=sys.stderr)
        raise SystemExit(EXIT_INPUT)
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    lines = [Line("GPU", f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {_code()}")]
    for names in _TOGETHER:
        if chosen := [name for name in names if name in (arguments.parts or PARTS)]:
            lines += _run(chosen, out, began + arguments.seconds)
            _write(lines, out / "gpu.json")
    lines.append(Line("time", f"{time.monotonic() - began:.0f} s"))
    _write(lines, out / "gpu.json")
    _print(lines)
    raise SystemExit(0 if all(line.ok for line in lines) else 1)


def _code() -> str:
    try:
        revision = code_revision()
    except GraftlineError as error:
        return f"code unknown: {error}"
    return f"commit {revision.get('commit', 'unknown')[:12]}{' and changes' if 'dirty' in revision else ''}"


def _run(names: Sequence[str], out: Path, until: float) -> list[Line]:
    """Return the lines of parts that run at once; one that fails, or is not done in its time, has one that says so."""
    lines, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        processes = {name: _start(name, Path(folder, name), out / f"{name}.log") for name in names}
        try:
            for name, process in processes.items():
                seconds = min(PARTS[name][1], until - began)
                failed = _wait(process, began + seconds)
                found = read_lines(Path(folder, name))
                lines += found
                if failed or not all(line.ok for line in found):
                    _tell(name, out / f"{name}.log")
                if failed:
                    lines.append(Line(name, failed.format(seconds=max(0, round(seconds))), ok=False))
                print(f"gpu-check: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        finally:
            for process in processes.values():
                _end(process)
    return lines


def _start(name: str, lines: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", PARTS[name][0], name, str(lines)]
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def _wait(process: subprocess.Popen[bytes], until: float) -> str:
    """Wait for a part; return what went wrong with it, or nothing."""
    try:
        code = process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        _end(process)
        return "not done in {seconds} s"
    return f"failed: exit code {code}" if code else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part, and what it has started and left: that would compute beside the parts that follow."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tell(name: str, log: Path) -> None:
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TOLD:]
    print(*(f"{name}: {line[:300]}" for line in said), sep="\n", file=sys.stderr, flush=True)


def _write(lines: list[Line], path: Path) -> None:
    path.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n", encoding="utf-8")


def _print(lines: list[Line]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "found", "ok")
    for line in lines:
        table.add_row(line.what, line.found, "yes" if line.ok else "NO")
    Console(soft_wrap=True, highlight=False).print(table)


if __name__ == "__main__":
    main()
