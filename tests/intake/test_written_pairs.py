"""Pairs of texts to read and write, as `graftline new --text ... --text ... --no-label` takes them."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from graftline.intake.datasheet import datasheet
from graftline.intake.draft import Draft, draft
from graftline.intake.look import look
from graftline.intake.roles import Wishes, propose

PAIRS = [(f"Opens the dialog number {n} & more.", f"Öffnet den Dialog Nummer {n} & mehr.") for n in range(120)]


def aligned(folder: Path) -> tuple[Path, tuple[str, str]]:
    for name, lines in zip(("x.en", "x.de"), zip(*PAIRS, strict=True), strict=True):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder, ("en", "de")


def tsv(folder: Path) -> tuple[Path, tuple[str, str]]:
    (folder / "x.tsv").write_text("german\tenglish\n" + "".join(f"{de}\t{en}\n" for en, de in PAIRS), encoding="utf-8")
    return folder / "x.tsv", ("english", "german")


def tmx(folder: Path) -> tuple[Path, tuple[str, str]]:
    side = '<tuv xml:lang="{}"><seg>{}</seg></tuv>'
    units = (f"<tu>{side.format('de', escape(de))}{side.format('en', escape(en))}</tu>\n" for en, de in PAIRS)
    (folder / "x.tmx").write_text(f"<tmx><body>{''.join(units)}</body></tmx>", encoding="utf-8")
    return folder / "x.tmx", ("en", "de")


def drafted(path: Path, names: tuple[str, ...]) -> Draft:
    found, wishes = look(path), Wishes(label="", features=names, licence="MPL-2.0")
    return draft("trial", found, propose(found, wishes), "MPL-2.0")


@pytest.mark.parametrize("make", [aligned, tsv, tmx])
def test_the_first_text_that_is_named_is_read_and_the_second_written(make: object, tmp_path: Path) -> None:
    path, names = make(tmp_path)  # type: ignore[operator]
    for order in (names, names[::-1]):
        made = drafted(path, order)
        assert made.head == "sequence_to_sequence" and made.contract.features == order
        assert f"| Task | tell '{order[1]}' from '{order[0]}' |" in datasheet(made, "x")
