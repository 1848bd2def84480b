"""The report of a task of text: mistakes as a table, samples, and no place for pictures that there are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from graftline.report import write_report
from graftline.store.opening import open_store

HOSTILE = "<script>alert(1)</script> \u05e9\u05dc\u05d5\u05dd \U0001f600"


def page(released: Path, outputs: Path) -> str:
    shutil.copytree(released, outputs)
    (outputs / "trunk/reconstructions.png").unlink()
    (outputs / "evaluation/mistakes.png").unlink()
    line = {"row": 1, "text": HOSTILE, "label": "noun.act", "predicted": "noun.event", "confidence": 0.875}
    (outputs / "evaluation/mistakes.json").write_text(json.dumps({"wrong": 7, "worst": [line]}))
    samples = [{"prompt": "a <b>", "text": "of " + HOSTILE}]
    (outputs / "evaluation/samples.json").write_text(json.dumps(samples))
    lift = json.loads((outputs / "evaluation/lift.json").read_text())
    (outputs / "evaluation/lift.json").write_text(json.dumps({**lift, "amount": "sentences", "unit": "word"}))
    store = open_store(str(released / "store"))
    return write_report(outputs, store, outputs / "report.html").read_text()


def test_texts_are_shown_and_escaped(released: Path, tmp_path: Path) -> None:
    shown = page(released, tmp_path / "outputs")
    assert "The 1 most confident of 7 wrong answers." in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \u05e9\u05dc\u05d5\u05dd \U0001f600" in shown
    assert "<script>alert" not in shown
    assert "<b>a &lt;b&gt;</b>of " in shown
    assert ">87.5%<" in shown


def test_what_is_counted_is_named_and_missing_pictures_have_no_section(
    released: Path, tmp_path: Path
) -> None:
    shown = page(released, tmp_path / "outputs")
    assert "points of lift at 2 sentences" in shown
    assert "test accuracy a word" in shown
    assert "Reconstructions" not in shown
    assert "Quality and budget" not in shown
