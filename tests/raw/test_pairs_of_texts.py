"""Pairs of texts as translators have them: translation memories (.tmx), and two files whose lines belong together."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from reading import rows

from graftline.audit.erase.raw import can_rewrite, is_whole
from graftline.errors import InputError
from graftline.raw import limits
from graftline.raw.aligned import Aligned
from graftline.raw.files import look, raw_files, read_batches
from graftline.raw.reader import Asked, Source

HEAD = '<?xml version="1.0" encoding="{}"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4"><header/><body>\n'
UNITS = """\
<tu tuid="1"><prop>x</prop><tuv xml:lang="en">
<seg>Click <bpt i="1">&lt;b&gt;</bpt>OK<ept i="1">&lt;/b&gt;</ept> &amp; go</seg></tuv>
<tuv xml:lang="de"><seg>Klicken Sie auf <hi>OK</hi></seg></tuv></tu>
<tu><tuv lang="en"><seg> Größe </seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="de"><seg>b</seg></tuv><tuv xml:lang="de"><seg>c</seg></tuv></tu>
"""
END = "</body></tmx>"
PAIRS = [("Click OK & go", "Klicken Sie auf OK"), ("Größe", None), (None, None)]
BOMB = '<?xml version="1.0"?>\n<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>\n<tmx><body>'


@pytest.mark.parametrize(("name", "encoding"), [("x.tmx", "utf-8"), ("x.tmx", "utf-16"), ("x.tmx.gz", "iso-8859-1")])
def test_a_translation_memory_is_read_unit_by_unit(tmp_path: Path, name: str, encoding: str) -> None:
    content = (HEAD.format(encoding) + UNITS + END).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert rows(tmp_path, ["en", "de"]) == PAIRS
    (batch,) = read_batches(raw_files(tmp_path), Asked(["en", "de"]))
    assert batch.cells.tolist() == [2, 2, 3]  # a language that stands twice: the row goes to the quarantine
    assert rows(tmp_path, ["de"], others="drop") == [(german,) for _, german in PAIRS]


def test_a_language_that_is_not_asked_for_is_refused_or_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    french = '<tu><tuv xml:lang="fr"><seg>x</seg></tuv></tu>\n'
    (tmp_path / "x.tmx").write_text(HEAD.format("utf-8") + UNITS + french + END, encoding="utf-8")
    with pytest.raises(InputError, match="the languages: unknown column 'fr'"):
        rows(tmp_path, ["en", "de"])
    assert rows(tmp_path, ["en", "de"], others="drop") == [*PAIRS, (None, None)]
    monkeypatch.setattr("graftline.raw.tmx._SEEN", 2)  # one that comes late
    with pytest.raises(InputError, match=r"x\.tmx: line 9: unknown column 'fr'"):
        rows(tmp_path, ["en", "de"])
    assert rows(tmp_path, ["en", "fr"], others="drop")[-1] == (None, "x"), "read on until those asked for have come"
    with pytest.raises(InputError, match="column 'it' is missing"):
        rows(tmp_path, ["en", "it"], others="drop")


def test_a_language_that_is_dropped_may_stand_twice(tmp_path: Path) -> None:
    (tmp_path / "x.tmx").write_text(HEAD.format("utf-8") + UNITS + END, encoding="utf-8")
    assert rows(tmp_path, ["en"], others="drop") == [("Click OK & go",), ("Größe",), ("a",)]
    (batch,) = read_batches(raw_files(tmp_path), Asked(["en"], others="drop"))
    assert batch.cells.tolist() == [1, 1, 1]


@pytest.mark.parametrize("encoding", ["Shift_JIS", "no-such", "rot13"])
def test_an_encoding_that_xml_is_not_read_in_is_refused_with_the_way_out(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "x.tmx").write_text(HEAD.format(encoding) + END)
    with pytest.raises(
        InputError, match=r"x\.tmx: line \d+: an encoding that is not read .* `iconv -t UTF-8`"
    ) as refused:
        rows(tmp_path, ["en"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            BOMB + "<tu><tuv xml:lang='en'><seg>&b;</seg></tuv></tu>" + END,
            "line 2: a DOCTYPE with declarations of its own",
        ),
        (HEAD.format("utf-8") + "<tu><tuv><seg>a</seg></tuv></tu>" + END, "line 4: a <tuv> without a language"),
        (HEAD.format("utf-8") + "<tu><tuv xml:lang='en'><seg>a</tuv>", r"line 4: not XML \(mismatched tag"),
        (
            HEAD.format("utf-8") + "<tu><tuv xml:lang='en'><seg>&b;</seg></tuv></tu>" + END,
            "line 4: the entity '&b;', of which nothing says what it is",
        ),
        (HEAD.format("utf-8") + END, "no unit with a text"),
        ("no XML", r"line 1: not XML \(syntax error"),
    ],
)
def test_what_is_no_translation_memory_ends_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.tmx").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as refused:
        rows(tmp_path, ["en"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: f"<tu><tuv xml:lang='en'><seg>{'a ' * 90_000}</seg></tuv></tu>", "a segment of more than"),
        (lambda: f"<tu tuid='{'a' * 400_000}'/>", "a tag of more than"),
    ],
)
def test_what_would_be_in_memory_at_once_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], str], message: str
) -> None:
    monkeypatch.setattr(limits, "MAX_LINE", 100_000)
    (tmp_path / "x.tmx").write_text(HEAD.format("utf-8") + content() + END, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        rows(tmp_path, ["en"])


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("corpus.en", "corpus.de"), ["en", "de"]),
        (("a.en-US.gz", "b.de"), ["en-US", "de"]),
        (("source.txt", "target.txt"), ["source", "target"]),
    ],
)
def test_two_files_are_read_line_by_line(tmp_path: Path, names: tuple[str, str], columns: list[str]) -> None:
    for name, lines in zip(names, ('one\ntwo, "2"\n\nfour', "eins\r\nzwei\r\ndrei\r\nvier\r\n"), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    assert rows(tmp_path, columns) == [("one", "eins"), ('two, "2"', "zwei"), (None, "drei"), ("four", "vier")]
    found = look(tmp_path)
    assert found.format == "aligned" and found.rows == 4 and found.exact and set(found.schema.names) == set(columns)


def test_a_row_of_two_files_is_no_file_that_could_be_erased(tmp_path: Path) -> None:
    for name in ("x.de", "x.en"):
        (tmp_path / name).write_text("a\n")
    assert not is_whole(tmp_path, Source()) and not can_rewrite(tmp_path / "x.de", Source())


def test_files_of_unequal_length_are_refused_with_both_counts(tmp_path: Path) -> None:
    (tmp_path / "x.de").write_text("eins\nzwei\n" * 700)
    (tmp_path / "x.en").write_text("one\ntwo\n" * 699 + "one\n")
    with pytest.raises(InputError, match=r"x\.en: 1,399 lines, and x\.de has 1,400; expected as many lines in both"):
        rows(tmp_path, ["en", "de"])


def test_two_tables_are_no_pair(tmp_path: Path) -> None:
    for name in ("a.csv", "b.tsv"):
        (tmp_path / name).write_text("text\tlabel\na\tb\n" if name.endswith("tsv") else "text,label\na,b\n")
    assert rows(tmp_path) == [("a", "b")] * 2
    with pytest.raises(InputError, match="unknown format 'alined'; did you mean 'aligned'"):
        rows(tmp_path, source=Source(format="alined"))


@pytest.mark.parametrize("ending", ["txt", "md", "xml", "log", "py", "sh", "yml", "bin", "dat", "db"])
def test_a_language_and_another_file_are_no_pair(ending: str, tmp_path: Path) -> None:
    other = f"README.{ending}"
    for name in ("corpus.en", other):
        (tmp_path / name).write_text("a\n")
    assert not Aligned().takes(tmp_path)
    (tmp_path / other).rename(tmp_path / "corpus.de")
    assert Aligned().takes(tmp_path)
