"""Data of any size is looked at in bounded time and memory, all over its files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import owned
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from graftline.errors import InputError
from graftline.intake import look as looking
from graftline.intake.look import look


def read_by_a_process(path: Path) -> tuple[int, list[str]]:
    """Return how many bytes a process reads from files more for looking at `path` than before, and what it says."""
    code = (
        "import re, sys; from pathlib import Path; from graftline.intake.look import look\n"
        "read = lambda: int(re.search(r'rchar: (\\d+)', Path('/proc/self/io').read_text())[1])\n"
        "look(Path(sys.argv[2]))\n"  # what is imported late is imported here
        "before = read(); found = look(Path(sys.argv[1]))\n"
        "print(read() - before, found.rows, found.looked, found.whole, *sorted(found.columns['label'].counts))"
    )
    small = owned.write_csv(path.with_name("small.csv"), owned.labelled(5))
    done = subprocess.run([sys.executable, "-c", code, path, small], capture_output=True, text=True, check=True)
    first, *rest = done.stdout.split()
    return int(first), rest


def test_a_small_file_is_looked_at_whole(tmp_path: Path) -> None:
    found = look(owned.write_csv(tmp_path / "x.csv", owned.labelled(50)))
    assert (found.rows, found.looked, found.whole) == (50, 50, True)
    assert list(found.columns) == ["text", "label"]
    assert found.columns["label"].counts.keys() == {"ham", "spam"}


def test_two_million_rows_are_looked_at_in_places_from_all_over_the_file(tmp_path: Path) -> None:
    """Sorted by label, as files often are: the beginning has one label only."""
    path = tmp_path / "large.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        rows = [f"some words of row {row} that say what it is,label" for row in range(250_000)]
        for label in range(8):
            end = f"{label}\n"
            file.write(end.join(rows) + end)
    read, (rows, looked, whole, *labels) = read_by_a_process(path)
    assert path.stat().st_size > 80 << 20
    assert read < 2 * looking.BYTES + (8 << 20), "what is taken out of the file is read once more"
    assert whole == "False"
    assert abs(int(rows) - 2_000_000) < 100_000
    assert int(looked) > 100_000
    assert labels == [f"label{number}" for number in range(8)]


def test_a_large_parquet_file_is_looked_at_in_all_its_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "BYTES", 1 << 20)
    names = [f"label{row // 20_000}" for row in range(100_000)]
    texts = [f"{row * 7919 % 100_003} {row}" * 3 for row in range(100_000)]
    pq.write_table(pa.table({"text": texts, "label": names}), tmp_path / "x.parquet", row_group_size=5000)
    found = look(tmp_path / "x.parquet")
    assert (found.rows, found.whole) == (100_000, False)
    assert len(found.columns["label"].counts) == 5
    assert found.looked < 90_000


def test_a_small_parquet_file_that_holds_much_is_looked_at_in_bounded_memory(tmp_path: Path) -> None:
    """A text of 200 KB, 40,000 times, is 8 GB, and 200 KB in the file; what is looked at of it was 1.3 GB at once."""
    long = pa.array([np.random.default_rng(0).bytes(100_000).hex()])
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(40_000, np.int32)), long)
    pq.write_table(pa.table({"text": texts}), tmp_path / "x.parquet")
    code = (
        "import resource, sys; from pathlib import Path; from graftline.intake import look as looking\n"
        "looking.BYTES = 1 << 14; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak()\n"
        "print(looking.look(Path(sys.argv[1])).looked, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    looked, kibibytes = map(int, done.stdout.split())
    assert looked > 0 and kibibytes < 2 * looking.KEPT_BYTES >> 10


def test_some_of_many_files_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "BYTES", 1 << 20)
    rows = owned.labelled(200)
    for number in range(200):
        owned.write_jsonl(tmp_path / f"{number:03}.jsonl", [row | {"file": f"f{number}"} for row in rows])
    found = look(tmp_path)
    assert not found.whole
    assert abs(found.rows - 40_000) < 4000
    files = found.columns["file"].counts
    assert {"f0", "f199"} <= files.keys()
    assert 40 < len(files) < 200


def test_a_slice_that_begins_inside_a_quoted_cell_is_not_taken_for_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "BYTES", 256 << 10)
    rows = [row | {"text": row["text"] + "\n one, two\n" * 30} for row in owned.labelled(5000)]
    found = look(owned.write_csv(tmp_path / "x.csv", rows))
    assert not found.whole
    assert set(found.columns["label"].counts) == {"ham", "spam"}


def test_of_a_large_folder_of_pictures_some_of_each_class_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "BYTES", 64 << 10)
    drawn = np.random.default_rng(0)
    for number in range(300):
        folder = tmp_path / f"{number % 6}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / f"{number}.png")
    found = look(tmp_path)
    assert (found.rows, found.whole) == (300, False)
    assert found.columns["label"].counts.keys() == {*"012345"}
    assert 40 < found.looked < 150


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "x.csv"))):
        look(tmp_path / "x.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="an empty folder"):
        look(tmp_path / "folder")
