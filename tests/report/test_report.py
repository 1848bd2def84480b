"""The report: one page with everything in it, whatever stands in the records."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from graftline.digests import RECORD
from graftline.records.folder import Draft, read_record, write_record
from graftline.records.model import Dependency
from graftline.report import write_report
from graftline.store.opening import open_store

MARKUP = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def outputs(released: Path, tmp_path: Path) -> Path:
    """A copy of the outputs that a test may change."""
    return Path(shutil.copytree(released, tmp_path / "outputs"))


def page_of(outputs: Path) -> str:
    return write_report(outputs, open_store(str(outputs / "store")), outputs / "report.html").read_text()


class Addresses(HTMLParser):
    """Collects what a page would load, and the tags that would run something."""

    LOADING = frozenset({"src", "href", "srcset", "data", "action", "poster", "background"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        loading = self.LOADING - {"href"} if tag == "a" else self.LOADING
        self.loaded += [value or "" for name, value in attributes if name.split(":")[-1] in loading]
        self.links += [value or "" for name, value in attributes if tag == "a" and name == "href"]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_is_self_contained(outputs: Path) -> None:
    page = page_of(outputs)
    found = Addresses(page)
    assert len(found.loaded) >= 7, "the pictures"
    assert all(address.startswith("data:image/png;base64,") for address in found.loaded)
    assert not re.search(r"https?://", page)
    assert all((outputs / link).is_file() for link in found.links), "links lead to files beside the page"
    assert not re.search(r"@import|url\((?!#)", page)
    assert not found.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}


def test_a_page_shows_each_part_of_the_run(outputs: Path) -> None:
    found = Addresses(page_of(outputs))
    metrics = json.loads((outputs / "evaluation/metrics.json").read_text())
    assert f"{100 * metrics['accuracy']:.2f}%" in found.text
    assert f"{100 * metrics['lift_2']:+.1f}" in found.text
    assert json.loads((outputs / "evaluation/decision.json").read_text())["reason"] in found.text
    for name in ("dataset", "trunk", "model", "evaluation", "release"):
        record = read_record(outputs / name)
        assert record.content in found.text
        assert record.sha256 in found.text
    assert "digits@1" in found.text
    parts = ("Pretraining", "Fine-tuning", "Reconstructions", "Confusion", "Calibration", "Class balance")
    for heading in parts:
        assert heading in found.text


def test_an_unreleased_run_has_a_page_that_says_so(outputs: Path) -> None:
    shutil.rmtree(outputs / "release")
    path = outputs / "evaluation/decision.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"passed": False, "reason": "too low by 0.1"}))
    found = Addresses(page_of(outputs))
    assert "Not released" in found.text
    assert "too low by 0.1" in found.text


def test_a_gate_without_rules_says_so_in_place_of_an_empty_table(outputs: Path) -> None:
    path = outputs / "evaluation/decision.json"
    rule = {"name": "floors.worst", "value": 0.5, "limit": 0.4, "comparison": ">=", "margin": 0.1, "passed": True}
    for rules in ([], [rule]):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"rules": rules}))
        page = Addresses(page_of(outputs)).text
        assert ("Every release passes" in page) == (not rules)
        assert ("floors.worst" in page) == bool(rules)


def plant(outputs: Path) -> None:
    """Put markup wherever a value on the page can come from."""
    path = outputs / "evaluation/decision.json"
    decision = json.loads(path.read_text()) | {"reason": MARKUP}
    rule = {"name": MARKUP, "value": 0.5, "limit": 0.4, "comparison": MARKUP, "margin": 0.1, "passed": True}
    path.write_text(json.dumps(decision | {"rules": [rule]}))
    inputs = [read_record(outputs / name) for name in ("dataset",)]
    (outputs / "trunk" / RECORD).unlink()
    (outputs / "dataset" / RECORD).unlink()
    write_record(outputs / "dataset", Draft("validate", "digits", "dataset", metrics={MARKUP: MARKUP}))
    dependencies = [Dependency(MARKUP, "0" * 64), Dependency("dataset", inputs[0].content)]
    write_record(outputs / "trunk", Draft(MARKUP, "digits", MARKUP, dependencies=dependencies))
    path = outputs / "release/release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": MARKUP}))


def test_values_are_escaped_wherever_they_come_from(outputs: Path) -> None:
    plant(outputs)
    page = page_of(outputs)
    found = Addresses(page)
    assert "script" not in found.tags
    assert found.handlers == []
    assert found.text.count(MARKUP) >= 6, "they are shown as the text that they are"
    assert all(address.startswith("data:") for address in found.loaded)


def test_equal_outputs_have_equal_pages(outputs: Path) -> None:
    assert page_of(outputs) == page_of(outputs)


@pytest.mark.chromium
@pytest.mark.parametrize("planted", [False, True])
def test_a_page_renders_without_an_error_and_runs_nothing(outputs: Path, tmp_path: Path, planted: bool) -> None:
    if planted:
        plant(outputs)
    page_of(outputs)
    picture = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,3000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--disable-dev-shm-usage"]
    address = f"file://{outputs / 'report.html'}"
    shot = subprocess.run(
        ["chromium", *options, f"--screenshot={picture}", address], capture_output=True, text=True, timeout=120
    )
    assert shot.returncode == 0, shot.stderr
    assert "CONSOLE" not in shot.stderr
    assert picture.stat().st_size > 20_000, "an empty page is smaller"
    dump = subprocess.run(["chromium", *options, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert "<title>Report: digits</title>" in dump.stdout
