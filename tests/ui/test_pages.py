"""The pages of a store: the same served and exported, whole, and safe whatever the records say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from page_sites import MARK, Shown, site_of

from graftline.errors import InputError
from graftline.store.opening import open_store
from graftline.ui.card import read_card, spans
from graftline.ui.charts import NEWEST, Sample, draw
from graftline.ui.export import MARKER, export
from graftline.ui.site import ASSETS, POLICY


class Parsed(HTMLParser):
    """Tags, links, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def addresses(self) -> list[str]:
        found = [a.get("href" if tag in ("a", "link") else "src") for tag, a in self.tags if tag != "form"]
        return [address for address in found if address]


def page(shown: Shown, path: str, **query: str) -> Parsed:
    answer = shown.site.answer(path, query)
    assert answer.status == 200, answer.data.decode()
    return Parsed(answer.data.decode())


def html_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.html")) if "files" not in path.relative_to(folder).parts]


def test_every_link_of_an_exported_site_leads_to_a_file_of_it(plain: Shown) -> None:
    checked = 0
    for path in html_files(plain.folder):
        parsed = Parsed(path.read_text())
        assert "There is no such page" not in parsed.text and "cannot be shown" not in parsed.text, path
        for address in parsed.addresses():
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc, f"{path}: {address} leaves the site"
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
                assert target.is_relative_to(plain.folder) and target.is_file(), f"{path}: {address}"
                checked += 1
    assert checked > 1000


def test_what_is_served_is_what_is_exported(plain: Shown) -> None:
    still = replace(plain.site, served=False)
    for path in ("index.html", "task/digits.html", "graph/digits.html", "ledger.html", "files/digits/8/confusion.png"):
        assert (plain.folder / path).read_bytes() == still.answer(path).data == plain.site.answer(path).data


def test_models_are_listed_with_champion_and_interval(plain: Shown) -> None:
    text = page(plain, "index.html").text
    assert "digits@7" in text and "digits@8" in text and "glosses@4" in text
    assert "0.9420 0.9310 to 0.9510" in text
    assert "12 releases" in text and "rollback" in text
    assert "perplexity 56 55 to 57" in text, "the primary score, though accuracy has an interval too"


def test_a_task_shows_each_metric_over_its_releases(plain: Shown) -> None:
    found = page(plain, "task/digits.html")
    links = [a["href"] for tag, a in found.tags if tag == "a" and "aria-label" in a]
    assert [link for link in links if link == "../release/digits/3.html"], "a point leads to its release"
    assert sum(tag == "figure" for tag, _ in found.tags) == 6
    assert sum(tag == "polygon" for tag, _ in found.tags) == 3, "accuracy and two lifts have intervals"
    assert "What changed" not in found.text and "what changed" in found.text
    figures = page(plain, "task/glosses.html").text
    assert figures.index("perplexity") < figures.index("accuracy")


def test_a_release_shows_metrics_card_report_and_how_it_was_made(plain: Shown) -> None:
    found = page(plain, "release/digits/8.html")
    assert "accuracy 0.9480 0.9370 to 0.9570 0.9420 +0.0060" in found.text, "beside the champion's"
    assert "For tests." in found.text and "two code" in found.text, "the card"
    frames = [a for tag, a in page(plain, "release/digits/7.html").tags if tag == "iframe"]
    assert [(frame["sandbox"], frame["src"]) for frame in frames] == [("", "../../files/digits/7/report.html")]
    for step in ("validate", "pretrain", "finetune", "evaluate"):
        assert step in found.text
    assert "a-run : SUCCEEDED at 2026-11-28T23:10:21Z" in found.text and "commit main" in found.text, "the run"
    assert "evaluate 1 2026-11-28 23:10 21 75 pre-empted pod-0 n" in found.text, "its steps"
    assert "model came from the cache: run earlier made it" in found.text
    assert not [tag for tag, _ in found.tags if tag == "iframe"]


def test_a_verdict_is_given_when_it_is_asked_for(plain: Shown) -> None:
    assert "Verify now" in page(plain, "release/digits/8.html").text
    assert "Nothing has changed" in page(plain, "release/digits/8.html", verify="1").text
    assert "Nothing has changed" in page(plain, "verify.html", verify="1").text
    assert "when this site was written" in (plain.folder / "release/digits/8.html").read_text()


def test_a_changed_file_is_found_by_the_verdict_and_never_handed_out(plain: Shown, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(plain.store.url, tmp_path / "store"))
    picture = copy / "releases/digits/8/confusion.png"
    picture.write_bytes(picture.read_bytes() + b" ")
    (copy / "releases/digits/6/README.md").write_text("# another\n")
    site = site_of(open_store(str(copy)))
    assert site.answer("files/digits/8/confusion.png").status == 400
    found = Parsed(site.answer("release/digits/8.html", {"verify": "1"}).data.decode()).text
    assert "tampered" in found and "releases/digits/8/confusion.png" in found
    assert "does not hold this release as it was published" in site.answer("release/digits/6.html").data.decode()
    export(replace(site, newest=3), tmp_path / "site")
    assert "tampered" in (tmp_path / "site/release/digits/8.html").read_text()
    assert "tampered" not in (tmp_path / "site/release/digits/7.html").read_text()


def test_two_models_are_compared(plain: Shown) -> None:
    found = page(plain, "diff/digits@5..digits@6.html")
    assert "raw" in found.text and "accuracy 0.9300 0.9360 +0.0060" in found.text
    asked = plain.site.answer("compare.html", {"a": "digits@2", "b": "digits"})
    assert (asked.status, asked.location) == (303, "diff/digits@2..digits@7.html")
    unknown = plain.site.answer("compare.html", {"a": "digits@99", "b": "digits"})
    assert unknown.status == 400 and b"no release &#39;99&#39;" in unknown.data


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    site = site_of(open_store(str(tmp_path / "none")))
    for path in ("index.html", "graph.html", "compare.html", "ledger.html"):
        answer = site.answer(path)
        assert answer.status == 200 and b"graftline run" in answer.data, path


@pytest.mark.parametrize(
    "path",
    [
        "release/digits/9.html", "release/digits/0.html", "release/nothing/1.html", "task/nothing.html",
        "record/" + "0" * 64 + ".html", "graph/nothing.html", "diff/digits@1..digits@99.html", "ledger/9.html",
        "static/../views.py", "static/views.py", "files/digits/1/../../../ledger/00000001.json",
        "files/digits/1/model.safetensors", "files/digits/1/manifest.json", "files/digits/8/report.html",
        "../index.html", "impact/" + "0" * 64 + ".html",
    ],
)  # fmt: skip
def test_what_is_not_there_is_a_page_that_says_so(plain: Shown, path: str) -> None:
    answer = plain.site.answer(path)
    assert answer.status == 404
    assert b"There is no such page" in answer.data


def test_an_export_replaces_an_earlier_one_and_nothing_else(plain: Shown, tmp_path: Path) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="something other than an exported site"):
        export(plain.site, out)
    assert (out / "mine.txt").read_text() == "mine"
    (out / MARKER).write_text("{}")
    count = export(replace(plain.site, newest=1), out, verify=False)
    assert not (out / "mine.txt").exists()
    assert json.loads((out / MARKER).read_text())["pages"] == count
    assert not (out / "release/digits/7.html").exists(), "the newest of each task only"


def test_markup_in_records_is_text_on_every_page(planted: Shown) -> None:
    """Every page: no tag, attribute or link comes out of a value, and the values are there to be read."""
    named = 0
    for path in html_files(planted.folder):
        found = Parsed(path.read_text())
        named += found.text.count("<script>window.owned=1</script>")
        scripts = [a.get("src") for tag, a in found.tags if tag == "script"]
        assert all(source and Path(source).name in ASSETS for source in scripts), path
        assert {a.get("src") for tag, a in found.tags if tag == "img"} - {None} and "x" not in found.addresses()
        for tag, attributes in found.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (path, tag)
            assert not str(attributes.get("href", "")).lower().startswith(("javascript:", "data:"))
        assert "49" not in [text.strip() for text in found.texts], "no value is a template"
    assert named > 200


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("index.html", ["actor"]),
        ("release/digits/3.html", ["metric", "card", "run", "file"]),
        ("graph/digits.html", ["node"]),
    ],
)
def test_marked_values_are_shown_where_they_belong(planted: Shown, path: str, places: list[str]) -> None:
    assert page(planted, path).text.count(" ".join(MARK.split())) >= len(places)


def test_the_policy_lets_nothing_run_but_the_sites_own_files(plain: Shown) -> None:
    assert "unsafe" not in POLICY and "default-src 'none'" in POLICY
    for path in html_files(plain.folder):
        metas = [a for tag, a in Parsed(path.read_text()).tags if tag == "meta" and "http-equiv" in a]
        assert [(a["http-equiv"], a["content"]) for a in metas] == [("Content-Security-Policy", POLICY)], path
    framed = (plain.folder / "files/digits/7/report.html").read_text()
    assert framed.startswith('<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src \'none\';')


def test_a_card_is_read_as_blocks_and_no_html() -> None:
    text = "---\nlicense: x\n---\n# Name\n\nOne `two`\n<b>three</b>\n\n| a | b |\n| --- | --- |\n| 1 \\| 2 | 3 |"
    blocks = read_card(text + "\n\n- x\n- y\n\n![plot](plot.png)\n\n![no](http://example.org/x.png)")
    assert [block.kind for block in blocks] == ["heading", "paragraph", "table", "list", "picture", "paragraph"]
    assert blocks[2].rows == [["a", "b"], ["1 | 2", "3"]]
    assert spans(blocks[1].text) == [("One ", False), ("two", True), (" <b>three</b>", False)]


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0], [1e30, -1e30], [5e-324, 0.0], [0.97, 0.9700000001], [3.0, 7.0] * NEWEST]
)
def test_a_chart_stays_in_its_box(values: list[float]) -> None:
    samples = [Sample(str(number), "", "", {"m": value}) for number, value in enumerate(values)]
    chart = draw("m", samples)
    assert chart is not None
    assert len(chart.marks) == min(len(values), NEWEST) and chart.left_out == len(values) - len(chart.marks)
    assert all(chart.left <= mark.x <= chart.right and 0 <= mark.y <= chart.bottom for mark in chart.marks)
    assert 2 <= len(chart.y_ticks) <= 40 and len({label for _, label in chart.y_ticks}) == len(chart.y_ticks)
    assert draw("other", samples) is None
