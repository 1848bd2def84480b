"""Writing aside: what readers see when a writer fails or is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graftline.durable import output_directory, write_atomic

WRITER = """
from pathlib import Path
from graftline.durable import output_directory
with output_directory(Path({final!r})) as aside:
    (aside / "content").write_text("new")
"""


def test_a_failed_writer_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with output_directory(final) as aside:
        (aside / "content").write_text("old")
    with pytest.raises(RuntimeError), output_directory(final) as aside:
        (aside / "content").write_text("new")
        raise RuntimeError
    assert (final / "content").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_atomic_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(TypeError):
        write_atomic(tmp_path / "a", "not bytes")  # type: ignore[arg-type]
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.strace
@pytest.mark.parametrize("rename", [1, 2])
def test_a_writer_killed_between_its_renames_loses_neither_folder(tmp_path: Path, rename: int) -> None:
    """Killed entering the first rename the old folder stands; entering the second, the next writer puts it back."""
    final = tmp_path / "out"
    with output_directory(final) as aside:
        (aside / "content").write_text("old")
    inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=rename:signal=SIGKILL:when={rename}"]
    done = subprocess.run([*inject, sys.executable, "-c", WRITER.format(final=str(final))], check=False)
    assert done.returncode != 0
    assert final.exists() == (rename == 1)
    with pytest.raises(RuntimeError), output_directory(final):
        assert (final / "content").read_text() == "old"
        raise RuntimeError
    assert (final / "content").read_text() == "old"
