"""The importer of WordNet's glosses on a real package made of its format, and on the shipped data.

The download is not tested, nor that Debian's files have the expected digests: the command checks that.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from graftline.digests import sha256_bytes
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.importers import glosses
from graftline.importers.packages import AR_MAGIC

RAW = ROOT / "data" / "glosses" / "raw" / "glosses.parquet"
LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[str | None]]:
    if not RAW.is_file():
        pytest.fail(f"{RAW} is missing: run `dvc pull`")
    columns: dict[str, list[str | None]] = pq.read_table(RAW).to_pydict()
    return columns


@pytest.fixture(scope="module")
def files(shipped: dict[str, list[str | None]]) -> dict[str, bytes]:
    """WordNet's data files as wndb(5WN) lays them out, with the shipped glosses."""
    numbers = {name: number for number, name in glosses.NOUN_FILES.items()}
    small = {"n": 3, "v": 29, "a": 0, "s": 0, "r": 2}  # noun.Tops, and files that are no class
    names = {"n": "data.noun", "v": "data.verb", "a": "data.adj", "s": "data.adj", "r": "data.adv"}
    made = {name: [LICENCE] for name in glosses.FILES}
    for text, label, synset in zip(shipped["text"], shipped["label"], shipped["synset"], strict=True):
        assert synset is not None
        offset, kind = synset.split("-")
        number = numbers[label] if label else small[kind]
        made[names[kind]].append(f"{offset} {number:02d} {kind} 01 word 0 001 @ 00001740 n 0000 | {text}  \n")
    return {name: "".join(lines).encode("ascii") for name, lines in made.items()}


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> dict[str, bytes]:
    monkeypatch.setattr(glosses, "FILES", {name: sha256_bytes(data) for name, data in files.items()})
    return files


def deb(files: dict[str, bytes]) -> bytes:
    """Return a Debian package, deb(5), packed quickly."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:xz", preset=0) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{glosses.FOLDER}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": tar.getvalue()}
    made = AR_MAGIC
    for name, data in members.items():
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        made += data + b"\n" * (len(data) % 2)
    return made


def test_a_package_gives_the_bytes_of_the_shipped_raw_data(pinned: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "wordnet.deb").write_bytes(deb(pinned))
    made = glosses.write(tmp_path / "out", tmp_path / "wordnet.deb")
    assert made.read_bytes() == RAW.read_bytes()


def test_a_folder_gives_the_same_files_as_a_package(pinned: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in pinned.items():
        (tmp_path / name).write_bytes(data)
    assert glosses.fetch(tmp_path) == pinned
    (tmp_path / "data.adv").unlink()
    with pytest.raises(InputError, match=r"data\.adv: no such file"):
        glosses.fetch(tmp_path)


def test_the_shipped_rows_are_those_that_the_datasheet_counts(shipped: dict[str, list[str | None]]) -> None:
    labels = Counter(label for label in shipped["label"] if label)
    assert len(shipped["text"]) == len(set(shipped["synset"])) == 117_659
    assert len(labels) == 24 and labels.total() == 82_022 and min(labels.values()) > glosses.MIN_MEMBERS
    assert all(text and text == text.strip() for text in shipped["text"])


def test_the_notice_that_the_licence_asks_for_ships_with_the_data() -> None:
    notice = (RAW.parents[1] / "LICENSE").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University." in notice and 'PROVIDED "AS IS"' in notice


def test_a_package_with_other_files_is_refused(tmp_path: Path) -> None:
    def refusal(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as refused:
            glosses.write(tmp_path / "out", tmp_path / name)
        return str(refused.value)

    other = deb(dict.fromkeys(glosses.FILES, LICENCE.encode()))
    assert "other.deb: usr/share/wordnet/data.noun: sha256 " in refusal("other.deb", other)
    assert "expected fea17d2f" in refusal("other.deb", other)
    assert "no usr/share/wordnet/data.noun in it" in refusal("empty.deb", deb({}))
    assert "not a Debian package; expected a .deb file" in refusal("page.deb", b"<!doctype html>")
    assert "a damaged Debian package" in refusal("cut.deb", other[: len(other) // 2])
    assert "no data.tar in it" in refusal("short.deb", other[:100])
    with pytest.raises(InputError, match="no such file"):
        glosses.write(tmp_path / "out", tmp_path / "nowhere.deb")
    assert not (tmp_path / "out").exists()


def test_a_package_packed_in_a_way_that_python_does_not_read_says_what_to_do(tmp_path: Path) -> None:
    data = deb({}).replace(b"data.tar.xz     ", b"data.tar.zst    ")
    (tmp_path / "new.deb").write_bytes(data)
    with pytest.raises(InputError, match=r"packed as data\.tar\.zst.*dpkg-deb --extract"):
        glosses.write(tmp_path / "out", tmp_path / "new.deb")


def test_without_apt_get_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match="no apt-get here; fetch it on Debian or Ubuntu and give"):
        glosses.write(tmp_path / "out")


def test_a_line_that_is_no_synset_is_refused(pinned: dict[str, bytes]) -> None:
    with pytest.raises(InputError, match=r"data\.noun: line 2: 'no bar here'"):
        list(glosses.synsets({**pinned, "data.noun": LICENCE.encode() + b"no bar here\n"}))
