"""The data report: one HTML page with everything in it and nothing fetched."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.components.validate.contract import Contract
from graftline.components.validate.identity import TRAIN

if TYPE_CHECKING:
    import numpy as np

    from graftline.components.validate.scan import Tally

TEMPLATE = "report.html.j2"
QUARANTINE_ROWS = 50
"""How many lines of the quarantine the report shows."""
SAMPLES = 10
"""How many images of each class the report shows."""
MAX_CLASSES = 20
"""Of how many classes."""


@dataclass(frozen=True)
class RuleLine:
    """A rule in the report; one for the whole table has no counts: it passed, or there would be no report."""

    name: str
    text: str
    expectation: str
    passed: int | None
    rows: int | None

    @property
    def failed(self) -> int:
        return 0 if self.passed is None or self.rows is None else self.rows - self.passed


@dataclass
class Samples:
    """The first images of each class in train."""

    contract: Contract
    images: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def add(self, pixels: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> None:
        import numpy as np

        for number in range(min(MAX_CLASSES, len(self.contract.classes))):
            kept = self.images.setdefault(number, [])
            if len(kept) < SAMPLES:
                places = np.flatnonzero((labels == number) & (splits == TRAIN))[: SAMPLES - len(kept)]
                kept.extend(pixels[places].copy())

    def rows(self) -> list[tuple[str, list[str]]]:
        """Return each class's name and its images as data URIs."""
        return [
            (str(self.contract.classes[number]), list(map(self._png, kept)))
            for number, kept in self.images.items()
            if kept
        ]

    def _png(self, pixels: np.ndarray) -> str:
        import numpy as np
        from PIL import Image

        image = self.contract.image[1]
        grey = (pixels.astype(np.float64) - image.min) / (image.max - image.min) * 255
        file = io.BytesIO()
        Image.fromarray(np.rint(grey).astype(np.uint8).reshape(image.shape)).save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class Page:
    """What the report shows."""

    task: str
    tally: Tally
    rules: Sequence[RuleLine]
    classes: dict[str, dict[str, int]]
    split_rows: dict[str, int]
    samples: Samples
    profile: dict[str, Any]
    warnings: Sequence[str]
    contract: Contract


def render(page: Page) -> str:
    """Return the page. Every value is escaped: data may hold HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["n"] = lambda number: f"{number:,}"
    environment.filters["pct"] = lambda share: f"{share:.2%}"
    return environment.get_template(TEMPLATE).render(page=page, histograms=histograms(page.profile), sum=sum)


@dataclass(frozen=True)
class Histogram:
    """Bars for the page."""

    name: str
    bars: list[tuple[str, int, float]]
    """Each bar's range, count, and height from 0 to 100."""
    low: str
    high: str


def histograms(profile: dict[str, Any]) -> list[Histogram]:
    """Return the histograms over intervals; those over classes are shown as the class balance."""
    found = []
    for name, histogram in profile["histograms"].items():
        bins, counts = histogram["bins"], histogram["counts"]
        if len(bins) != len(counts) + 1:
            continue
        peak = max(1, *counts)
        ranges = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(bins)]
        bars = [
            (text, count, round(100 * count / peak, 2)) for text, count in zip(ranges, counts, strict=True)
        ]
        found.append(Histogram(name, bars, f"{bins[0]:g}", f"{bins[-1]:g}"))
    return found
