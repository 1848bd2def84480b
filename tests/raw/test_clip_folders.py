"""Folders of clips: by class, with a manifest, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from graftline.errors import InputError
from graftline.raw.files import look, raw_files, read_batches
from graftline.raw.reader import Asked, Source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.wav", "a/2.flac", "b/3.ogg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(800), 8000)
    (tmp_path / "a/4.mp3").write_bytes(b"ID3")
    (tmp_path / "a/cover.jpg").write_bytes(b"\xff\xd8")
    return tmp_path


def test_a_folder_a_class(folder: Path) -> None:
    (folder / "a/cover.jpg").unlink()
    (folder / "a/notes.txt").write_text("x")
    found = look(folder)
    assert found.format == "clips" and found.exact and found.rows == 4
    assert found.schema.names == ["audio", "path", "label"]
    (batch,) = read_batches(raw_files(folder), Asked(["audio", "label"]))
    assert batch.columns["label"].to_pylist() == ["a", "a", "a", "b"]
    assert [one["path"] for one in batch.columns["audio"].to_pylist()] == ["a/1.wav", "a/2.flac", "a/4.mp3", "b/3.ogg"]
    assert [tuple(one) for one in batch.left_out] == [("a/notes.txt", "not a clip")]


def test_a_manifest_says_what_each_clip_is(folder: Path) -> None:
    (folder / "a/cover.jpg").unlink()
    lines = [{"file_name": "b/3.ogg", "transcript": "three"}, {"file_name": "gone.wav", "transcript": "none"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert look(folder).schema.names == ["audio", "path", "transcript"]
    (batch,) = read_batches(raw_files(folder), Asked(["audio", "transcript"]))
    assert batch.columns["transcript"].to_pylist() == ["three", "none"]
    assert [one["bytes"] is None for one in batch.columns["audio"].to_pylist()] == [False, True]
    assert {one.name for one in batch.left_out} == {"a/1.wav", "a/2.flac", "a/4.mp3"}
    (folder / "metadata.jsonl").write_text('{"name": "b/3.ogg"}\n')
    with pytest.raises(InputError, match=r"no column that names the clips' files; expected one of .*audio, path"):
        look(folder)


def test_of_a_folder_with_both_the_contract_says_which(folder: Path) -> None:
    assert raw_files(folder)[0].reader.format == "pictures", "as before there were clips"
    (batch,) = read_batches(raw_files(folder, Source(format="clips")), Asked(["audio"], Source(format="clips")))
    assert batch.rows == 4 and [one.name for one in batch.left_out] == ["a/cover.jpg"]
