"""The pages in a browser: by pointer and by keyboard, light and dark, served and from files; nothing runs but ours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_graphs import write_large_graph
from page_sites import Shown
from PIL import Image
from playwright.sync_api import expect, sync_playwright

pytestmark = pytest.mark.chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-software-rasterizer"]  # else it emulates a GPU
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        yield browser
        browser.close()


class Watched:
    """A page that remembers what went wrong and what it asked for."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", self._failed)
        self.page.set_default_timeout(20_000)

    def _failed(self, request: Any) -> None:
        if "ERR_ABORTED" not in request.failure:  # the next page was asked for before this one's icon came
            self.wrong.append(f"failed: {request.url}: {request.failure}")

    def check(self, origin: str) -> None:
        """Fail unless nothing went wrong and nothing was asked of anywhere else."""
        self.context.close()
        assert self.wrong == []
        assert self.asked and all(url.startswith(origin) for url in self.asked)


@pytest.fixture
def watched(browser: Any, plain: Shown) -> Iterator[Watched]:
    watched = Watched(browser)
    yield watched
    watched.check(plain.url)


def colours(picture: bytes) -> list[tuple[int, Any]]:
    """Return how many pixels have each colour, the most frequent first."""
    found = Image.open(io.BytesIO(picture)).convert("RGB").getcolors(1 << 24)
    assert found is not None
    return sorted(found, reverse=True)


def is_chosen(page: Any, name: str) -> None:
    """Wait until the node of that name is the chosen one."""
    expect(page.locator("#chosen h2")).to_have_text(name)


def test_from_the_models_to_a_verdict_by_clicks(watched: Watched, plain: Shown) -> None:
    page = watched.page
    page.goto(plain.url)
    page.click("text=digits >> nth=0")
    page.click("figure >> nth=0 >> a >> nth=6")  # the seventh point of accuracy
    expect(page.locator("h1")).to_have_text("digits@7")
    page.click("text=Verify now")
    expect(page.locator("#verify")).to_contain_text("Nothing has changed")
    page.click("text=What changed since digits@6")
    expect(page.locator("h1")).to_have_text("digits@6 to digits@7")
    page.click("nav >> text=Impact")
    page.wait_for_load_state()  # what is typed before the page's script listens is not filtered by
    page.fill("input[name=q]", "raw file digits")
    expect(page.locator("#points tbody tr:visible")).to_have_count(6)
    page.click("#points tbody tr:visible >> nth=0 >> a")
    expect(page.locator(".numbers b").first).to_contain_text("3")


def test_a_table_is_sorted_and_two_models_are_chosen_to_compare(watched: Watched, plain: Shown) -> None:
    page = watched.page
    page.goto(plain.url + "task/digits.html")
    page.click("th >> text=accuracy")
    page.click("th >> text=accuracy")
    column = page.locator("table.sortable tbody tr td:nth-child(4)").all_inner_texts()
    assert column == sorted(column) and len(column) == 8
    page.goto(plain.url + "compare.html")
    page.fill("input[name=a]", "digits@2")
    page.fill("input[name=b]", "digits@5")
    page.keyboard.press("Enter")
    page.wait_for_url("**/diff/digits@2..digits@5.html")


def test_the_graph_is_walked_by_keyboard(watched: Watched, plain: Shown) -> None:
    page = watched.page
    page.goto(plain.url + "graph/digits/8.html")
    is_chosen(page, "digits@8")
    page.focus("#canvas")
    for name in ("evaluation", "model", "trunk", "dataset", "raw"):
        page.keyboard.press("ArrowLeft")
        is_chosen(page, name)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")  # only what the data set went into
    expect(page.locator("#count")).to_contain_text("13")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("digits@6")
    page.keyboard.press("Enter")
    is_chosen(page, "digits@6")
    page.keyboard.press("c")
    expect(page.locator(".node.group.chosen")).to_have_count(1)
    page.keyboard.press("Enter")  # expands it
    expect(page.locator(".node.group")).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("digits@6")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # opens its page
    page.wait_for_url("**/release/digits/6.html")


def test_a_graph_of_1000_nodes_stays_readable(browser: Any, tmp_path: Path) -> None:
    address = write_large_graph(tmp_path / "site", versions=206).as_uri()
    watched = Watched(browser)
    page = watched.page
    page.goto(address)
    rows = page.locator("#nodes tbody tr").count()
    assert rows >= 1000
    expect(page.locator("#count")).to_contain_text(f"of {rows} nodes")
    assert 5 <= page.locator(".node").count() <= 60, "groups are collapsed on opening"
    page.focus("#canvas")
    page.keyboard.press("/")
    page.keyboard.type("models@3")
    page.keyboard.press("Enter")
    is_chosen(page, "models@3")
    page.click("text=Only inputs")
    expect(page.locator(".node:not(.group)")).to_have_count(6)  # release, evaluation, model, trunk, dataset and raw
    page.click("#all")
    for name in page.locator(".node.group").evaluate_all("boxes => boxes.map(box => box.dataset.id)"):
        box = page.locator(f".node.group[data-id={name!r}]")
        if box.count():
            box.dispatch_event("dblclick")
        assert page.locator(".node").count() <= 300
    overlapping = page.evaluate(
        """() => { const seen = new Set(), boxes = [...document.querySelectorAll(".node")];
        boxes.forEach((box) => seen.add(box.getAttribute("transform"))); return boxes.length - seen.size; }"""
    )
    assert overlapping == 0
    watched.check("file://")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_neither_empty_nor_of_the_wrong_brightness(browser: Any, plain: Shown, scheme: str) -> None:
    watched = Watched(browser, color_scheme=scheme)
    for path in ("task/digits.html", "graph/digits.html", "ledger.html"):
        watched.page.goto(plain.url + path)
        found = colours(watched.page.screenshot())
        brightness = sum(found[0][1]) / 3
        assert (brightness > 200) == (scheme == "light") and (brightness < 60) == (scheme == "dark")
        assert len(found) > 60, f"{path}: {len(found)} colours: an empty page has a few"
        assert found[0][0] < 0.97 * 1280 * 800, f"{path} is almost empty"
    watched.check(plain.url)


def test_a_narrow_page_is_not_wider_than_the_screen(browser: Any, plain: Shown) -> None:
    watched = Watched(browser)
    watched.page.set_viewport_size({"width": 380, "height": 800})
    for path in ("index.html", "task/digits.html", "release/digits/7.html", "graph/digits.html", "compare.html"):
        watched.page.goto(plain.url + path)
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 380, path
    watched.check(plain.url)


def test_an_exported_site_works_from_files(browser: Any, plain: Shown) -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto((plain.folder / "index.html").as_uri())
    page.click("text=digits@7")
    page.click("summary >> text=The report that the run wrote")
    report = page.frame_locator("iframe")
    expect(report.locator("p")).to_have_text("The report of digits")
    page.click(".actions >> text=Lineage")
    is_chosen(page, "digits@7")
    page.goto((plain.folder / "compare.html").as_uri())
    page.fill("input[name=a]", "digits@1")
    page.fill("input[name=b]", "digits@8")
    page.keyboard.press("Enter")
    assert page.locator("#no-pair").is_visible()
    page.fill("input[name=a]", "digits@7")
    page.keyboard.press("Enter")
    page.wait_for_url("**/diff/digits@7..digits@8.html")
    watched.check(plain.folder.as_uri())


def test_pages_can_be_read_without_scripts(browser: Any, plain: Shown) -> None:
    watched = Watched(browser, java_script_enabled=False)
    for path, text in (
        ("task/digits.html", "0.9480"),
        ("graph/digits.html", "finetune, digits"),
        ("compare.html", "digits@7 to"),
    ):
        watched.page.goto(plain.url + path)
        assert text in watched.page.inner_text("main")
    watched.check(plain.url)


@pytest.mark.parametrize("kind", ["served", "exported"])
def test_markup_in_records_neither_runs_nor_is_parsed(browser: Any, planted: Shown, kind: str) -> None:
    origin = planted.url if kind == "served" else planted.folder.as_uri() + "/"
    watched = Watched(browser)
    page = watched.page
    with planted.site.open_index() as index:
        record = index.release("digits", 2).records["dataset"]  # type: ignore[union-attr]
    paths = [
        "index.html",
        "task/digits.html",
        "release/digits/1.html",
        f"record/{record}.html",
        "impact.html",
        "ledger.html",
    ]
    for path in [*paths, "diff/digits@1..digits@2.html", "graph.html", "graph/digits/2.html"]:
        page.goto(origin + path)
        # as text, also where it is folded away: no inline script is on any page
        assert "window.owned=1" in str(page.text_content("body")), path
        assert page.evaluate("[window.owned, document.querySelectorAll('main img:not(.plot)').length]") == [None, 0]
    page.focus("#canvas")
    for _ in range(6):  # the panel beside the graph shows marked facts
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("/")
    page.keyboard.type("owned")
    assert "<script>" in page.inner_text("#hits")
    page.keyboard.press("Enter")
    assert "<script>" in page.inner_text("#chosen")
    assert page.evaluate("[window.owned, document.querySelectorAll('#graph img, #graph script').length]") == [None, 0]
    watched.check(origin)
