"""`make gpu-check` prints what its parts found, whatever becomes of one of them. No GPU is needed to see it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bench import gpu
from bench.gpu_checks import _OUTCOME
from bench.gpu_lines import Line, equal, tried

WRITES = """
import sys
from bench.gpu_lines import Line, write_part
sys.argv = ["part", "part", {path!r}]
def part():
    yield Line("rate", "12")
    {then}
write_part({{"part": part}})
"""
THEN = {
    "good": "print('said')",
    "bad": "raise ValueError('no such thing')",
    "dead": "import os; os._exit(3)",
    "slow": "import time; time.sleep(600)",
    "leaves": "import os, subprocess; subprocess.Popen(['sleep', '5417']); os._exit(3)",
}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(name: str, lines: Path, log: Path) -> subprocess.Popen[bytes]:
        code = WRITES.format(path=str(lines), then=THEN[name])
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-c", code], cwd=gpu.ROOT, stdout=file, stderr=file, start_new_session=True
            )

    monkeypatch.setattr(gpu, "_start", start)
    monkeypatch.setattr(gpu, "PARTS", dict.fromkeys(THEN, ("", 600)))


def test_a_part_that_fails_is_a_line_and_the_others_have_theirs(parts: None, tmp_path: Path) -> None:
    found = gpu._run(["good", "bad", "dead"], tmp_path, time.monotonic() + 60)
    rate = Line("rate", "12")
    assert found == [
        rate,
        rate,
        Line("part", "failed: ValueError: no such thing", ok=False),
        rate,
        Line("dead", "failed: exit code 3", ok=False),
    ]
    assert "said" in (tmp_path / "good.log").read_text()
    assert "Traceback" in (tmp_path / "bad.log").read_text()


def test_a_part_that_is_not_done_in_its_time_is_ended(
    parts: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = gpu._run(["slow"], tmp_path, time.monotonic() + 1)
    assert found[-1] == Line("slow", "not done in 1 s", ok=False)
    assert "gpu-check: slow" in capsys.readouterr().err


def test_what_a_part_leaves_does_not_compute_beside_the_next(parts: None, tmp_path: Path) -> None:
    assert gpu._run(["leaves"], tmp_path, time.monotonic() + 60)[-1] == Line("leaves", "failed: exit code 3", ok=False)
    patience = time.monotonic() + 30  # a signal takes its time on a busy machine
    while (left := sleeping()) and time.monotonic() < patience:
        time.sleep(0.01)
    assert left == []


def sleeping() -> list[psutil.Process]:
    """Return what the part `leaves` has started and left, and is not dead yet, whoever is to reap it."""
    found = psutil.process_iter(["cmdline", "status"])
    return [
        one for one in found if one.info["cmdline"] == ["sleep", "5417"] and one.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("PASSED tests/a.py::test_b[x y]", ("PASSED", "test_b[x y]")),
        ("FAILED tests/a.py::test_b - assert 1 == 2", ("FAILED", "test_b - assert 1 == 2")),
        ("ERROR tests/a.py - ImportError: no module", ("ERROR", "tests/a.py - ImportError: no module")),
        ("ERROR tests/a.py", ("ERROR", "tests/a.py")),
    ],
)
def test_each_line_of_pytests_summary_is_read(line: str, said: tuple[str, str]) -> None:
    match = _OUTCOME.match(line)
    assert match is not None and match.groups() == said


def test_digests_that_differ_are_told_and_what_fails_ends_only_its_own_lines() -> None:
    assert equal("bits", "a", "a") == Line("bits", "equal")
    assert equal("bits", "a" * 64, "b" * 64) == Line("bits", "differ: aaaaaaaaaaaa, bbbbbbbbbbbb", ok=False)

    def measure() -> list[Line]:
        raise RuntimeError("out of\nmemory")

    assert list(tried("rate", measure)) == [Line("rate", "failed: RuntimeError: out of memory", ok=False)]
