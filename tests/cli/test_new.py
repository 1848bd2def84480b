"""`graftline new` in a copy of the repository: what it writes, asks, refuses, and leaves behind when it is killed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import forked
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "intake"))

import owned

NEW = [sys.executable, "-c", "from graftline.cli.app import main; main()", "new"]


def environment(fork: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(fork / "build/package"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def new(fork: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*NEW, *map(str, arguments)]
    return forked.run(command, cwd=fork, env=environment(fork), text=True, timeout=300)


def changed(fork: Path) -> list[str]:
    """Return what git sees that was not committed."""
    listed = subprocess.run(
        ["git", "-C", fork, "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True
    )
    return sorted(line[3:] for line in listed.stdout.splitlines())


@pytest.fixture(scope="module")
def fork(shared_checkout: Path) -> Path:
    return shared_checkout


def test_a_task_is_written_whole(checkout: Path, tmp_path: Path) -> None:
    """A folder with a name of two words, a marker and a checksum in it, as Spark and macOS leave them."""
    folder = tmp_path / "my letters ✓"
    folder.mkdir()
    owned.write_csv(folder / "part one.csv", owned.labelled(120), delimiter=";", encoding="utf-8-sig")
    (folder / "_SUCCESS").touch()
    (folder / ".part.crc").write_bytes(b"crc\0")
    done = new(checkout, "letters", folder, "--licence", "CC0-1.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("next: graftline run letters")
    files = ["dvc.yaml", "expectations.yaml", "params.yaml", "raw.dvc", "README.md", ".gitignore"]
    task = checkout / "data/letters"
    made = sorted(f"data/letters/{name}" for name in files)
    assert changed(checkout) == sorted([*made, "data/tasks.yaml", "pipelines/compiled/letters.yaml"])
    assert [path.name for path in (task / "raw").iterdir()] == ["part one.csv"]
    assert (task / "raw/part one.csv").read_bytes() == (folder / "part one.csv").read_bytes()
    assert (task / "dvc.yaml").read_bytes() == (checkout / "data/mnist/dvc.yaml").read_bytes()
    assert (checkout / "data/tasks.yaml").read_text().endswith("  - letters\n")
    for check in (["dvc", "status", "data/letters/raw.dvc"], ["graftline.cli", "compile", "letters", "--check"]):
        checked = forked.run([sys.executable, "-m", *check], cwd=checkout, env=environment(checkout), text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    refused = new(checkout, "letters", folder, "--yes")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "data/letters: exists already" in refused.stderr


def test_a_dry_run_prints_what_it_would_write_and_writes_nothing(fork: Path, tmp_path: Path) -> None:
    path = owned.write_jsonl(tmp_path / "x.jsonl", owned.labelled(60))
    done = new(fork, "letters", path, "--yes", "--dry-run")
    assert done.returncode == 0, done.stderr
    for part in ("looked at all 60 rows", "classes: [ham, spam]", "task: letters", "# letters: 60 rows"):
        assert part in done.stdout
    facts = json.loads(new(fork, "letters", path, "--yes", "--dry-run", "--json").stdout)
    assert facts["columns"]["label"]["classes"] == ["ham", "spam"]
    assert (facts["rows"], facts["head"], facts["licence"]) == (60, "sequence_classification", "unspecified")
    assert changed(fork) == []


def test_what_only_a_person_can_tell_is_named_with_its_flags_where_nobody_can_be_asked(
    fork: Path, tmp_path: Path
) -> None:
    rows = owned.labelled(100, kind=["a", "b"], author=["x", "y", "z"])
    path = owned.write_jsonl(tmp_path / "x.jsonl", [{**row, "label": None, "other": row["label"]} for row in rows])
    done = new(fork, "letters", path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for part in ("kind, other", "--label COLUMN", "--no-label", "--subject 'author'", "--licence ID", "--yes"):
        assert part in line
    guessed = new(fork, "letters", path, "--yes")
    assert guessed.returncode == 2, "no name tells which column is the label"
    assert "--label COLUMN" in guessed.stderr and "--licence" not in guessed.stderr
    said = new(fork, "letters", path, "--dry-run", "--label", "kind", "--no-subject", "--licence", "CC0-1.0", "--json")
    assert json.loads(said.stdout)["columns"]["kind"]["role"] == "label"
    assert changed(fork) == []


def talk(fork: Path, arguments: Sequence[object], answers: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Run the command in a terminal; give each answer once its question is there. Return exit code and screen."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(fork)
        os.execve(sys.executable, [*NEW, *map(str, arguments)], environment(fork))
    screen, waiting, seen = "", list(answers), 0
    while True:
        try:
            screen += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the terminal is closed
            break
        if waiting and waiting[0][0] in screen[seen:]:
            seen = len(screen)
            os.write(terminal, f"{waiting.pop(0)[1]}\n".encode())
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert not waiting, screen
    return os.waitstatus_to_exitcode(status), screen


def test_in_a_terminal_it_asks_and_answers_are_taken(fork: Path, tmp_path: Path) -> None:
    rows = owned.labelled(100, kind=["a", "b"], author=["x", "y", "z"])
    path = owned.write_jsonl(tmp_path / "x.jsonl", [{**row, "label": None, "other": row["label"]} for row in rows])
    answers = [("(a number)", "9"), ("(a number)", "2"), ("id of a person", "n"), ("licence", "CC-BY-4.0")]
    code, screen = talk(fork, ["letters", path, "--dry-run"], answers)
    assert code == 0, screen
    assert "other: {type: string, role: label" in screen
    assert "author: {type: string}" in screen and "subject:" not in screen
    assert "licence: CC-BY-4.0" in screen
    assert changed(fork) == []


def test_a_terminal_that_is_left_writes_nothing(fork: Path, tmp_path: Path) -> None:
    path = owned.write_jsonl(tmp_path / "x.jsonl", owned.labelled(60))
    code, _ = talk(fork, ["letters", path], [("licence", "\x03")])
    assert code != 0
    assert changed(fork) == []


@pytest.mark.parametrize("name", ["../x", "/etc", "X", "mnist", ""])
def test_a_name_that_no_new_task_can_have_is_refused(fork: Path, tmp_path: Path, name: str) -> None:
    done = new(fork, name, owned.write_jsonl(tmp_path / "x.jsonl", owned.labelled(5)), "--yes")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_link_out_of_the_folder_is_refused(fork: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    outside = owned.write_jsonl(tmp_path / "secret.jsonl", owned.labelled(60))
    (folder / "x.jsonl").symlink_to(outside)
    done = new(fork, "letters", folder, "--yes")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"a link to {outside}" in done.stderr
    assert changed(fork) == []


def test_linked_data_has_one_copy_and_the_original_stays_as_it_was(checkout: Path, tmp_path: Path) -> None:
    path = owned.write_jsonl(tmp_path / "x.jsonl", owned.labelled(60))
    before = path.stat()
    done = new(checkout, "letters", path, "--yes", "--link")
    assert done.returncode == 0, done.stderr
    raw = checkout / "data/letters/raw/x.jsonl"
    assert raw.stat().st_nlink == 2, "DVC's cache and raw/ share it"
    assert (path.stat().st_ino, path.stat().st_mode, path.stat().st_nlink) == (before.st_ino, before.st_mode, 1)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, "it ended before"
        time.sleep(0.001)


@pytest.mark.parametrize("place", [".letters.new/params.yaml", ".letters.new/raw", ".letters.new/raw.dvc"])
def test_killed_in_the_middle_it_leaves_no_task_and_the_next_call_cleans_up(
    checkout: Path, tmp_path: Path, place: str
) -> None:
    path = owned.write_jsonl(tmp_path / "x.jsonl", owned.labelled(2_000))
    listed = (checkout / "data/tasks.yaml").read_bytes()
    command = [*NEW, "letters", str(path), "--yes"]
    process = forked.Popen(command, cwd=checkout, env=environment(checkout), stdout=subprocess.DEVNULL)
    wait_for(checkout / "data" / place, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not (checkout / "data/letters").exists():  # the last place may be passed too fast
        assert (checkout / "data/tasks.yaml").read_bytes() == listed
    done = new(checkout, "others", owned.write_jsonl(tmp_path / "y.jsonl", owned.labelled(60)), "--yes")
    assert done.returncode == 0, done.stderr
    assert not list((checkout / "data").glob(".*.new"))


def test_interrupted_it_leaves_nothing(checkout: Path, tmp_path: Path) -> None:
    path = owned.write_jsonl(tmp_path / "x.jsonl", owned.labelled(2_000))
    command = [*NEW, "letters", str(path), "--yes"]
    process = forked.Popen(command, cwd=checkout, env=environment(checkout), stdout=subprocess.DEVNULL)
    wait_for(checkout / "data/.letters.new/raw", process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert changed(checkout) == []
