"""The data report: one HTML page with everything in it and nothing fetched."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.values.contract import Contract, Image
from graftline.values.identity import TRAIN
from graftline.values.profile import LENGTHS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from graftline.components.validate.scan import Tally

TEMPLATE = "report.html.j2"
QUARANTINE_ROWS = 50
"""How many lines of the quarantine the report shows."""
SAMPLES = 10
"""How many images of each class the report shows."""
MAX_CLASSES = 20
"""Of how many classes."""
TEXTS = 3
"""How many documents of each class the report shows."""
MAX_TEXT_CLASSES = 30
"""Of how many classes."""
SENTENCES = 12
"""How many sentences, or documents without classes, the report shows."""
TAGGED_WORDS = 40
"""How many words of a sentence."""
TEXT_SHOWN = 240
"""How many characters of a document."""
WORDS_SHOWN = 50
"""How many of the most frequent words."""


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
class ImageSamples:
    """The first images of each class in train."""

    contract: Contract
    images: dict[int, list[np.ndarray]] = field(default_factory=dict)
    kind: str = "images"

    def add(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        import numpy as np

        pixels = columns[self.contract.feature[0]].flatten().to_numpy().reshape(len(labels), -1)
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
        from PIL import Image as Picture

        image = self.contract.feature[1]
        assert isinstance(image, Image)
        grey = (pixels.astype(np.float64) - image.min) / (image.max - image.min) * 255
        file = io.BytesIO()
        Picture.fromarray(np.rint(grey).astype(np.uint8).reshape(image.shape)).save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass
class TextSamples:
    """The first documents of each class in train; without classes, of train."""

    contract: Contract
    texts: dict[int, list[str]] = field(default_factory=dict)
    kind: str = "texts"

    def add(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        import numpy as np

        texts = columns[self.contract.feature[0]]
        numbers = range(min(MAX_TEXT_CLASSES, len(self.contract.classes))) if self.contract.classes else [-1]
        for number in numbers:
            kept = self.texts.setdefault(number, [])
            limit = TEXTS if number >= 0 else SENTENCES
            if len(kept) < limit:
                places = np.flatnonzero((labels == number) & (splits == TRAIN))[: limit - len(kept)]
                kept.extend(_begin(texts[int(place)].as_py()) for place in places)

    def rows(self) -> list[tuple[str, list[str]]]:
        """Return each class's name (empty without classes) and its texts."""
        return [
            ("" if number < 0 else str(self.contract.classes[number]), kept)
            for number, kept in self.texts.items()
            if kept
        ]


@dataclass
class TaggedSamples:
    """The first sentences of train, each word with its tag (empty without tags)."""

    contract: Contract
    sentences: list[list[tuple[str, str]]] = field(default_factory=list)
    kind: str = "tagged"

    def add(self, columns: dict[str, pa.Array], labels: np.ndarray, splits: np.ndarray) -> None:
        import numpy as np

        words = columns[self.contract.feature[0]]
        for place in np.flatnonzero(splits == TRAIN)[: SENTENCES - len(self.sentences)]:
            sentence = words[int(place)].as_py()[:TAGGED_WORDS]
            tags = [""] * len(sentence)
            if self.contract.label is not None:
                tags = columns[self.contract.label[0]][int(place)].as_py()[:TAGGED_WORDS]
            self.sentences.append(list(zip(map(_begin, sentence), tags, strict=True)))

    def rows(self) -> list[list[tuple[str, str]]]:
        """Return sentences of (word, tag)."""
        return self.sentences


Samples = ImageSamples | TextSamples | TaggedSamples


def samples_of(contract: Contract) -> Samples:
    """Return the collector of samples for the contract's feature."""
    kinds: dict[str, type[Samples]] = {"image": ImageSamples, "text": TextSamples, "tokens": TaggedSamples}
    return kinds[contract.feature[1].type](contract)


def _begin(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 3] + "..."


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
    return environment.get_template(TEMPLATE).render(
        page=page, histograms=histograms(page.profile), words=frequent_words(page.profile), sum=sum
    )


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
        if list(bins) == LENGTHS:  # up to 8 million: without the empty end
            last = max((place for place, count in enumerate(counts) if count), default=0)
            bins, counts = bins[: last + 2], counts[: last + 1]
        peak = max(1, *counts)
        ranges = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(bins)]
        bars = [
            (text, count, round(100 * count / peak, 2)) for text, count in zip(ranges, counts, strict=True)
        ]
        found.append(Histogram(name, bars, f"{bins[0]:g}", f"{bins[-1]:g}"))
    return found


def frequent_words(profile: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Return the most frequent words: each with its count and its share of all words; empty for images."""
    return [
        (word, count, count / histogram["total"])
        for histogram in profile["histograms"].values()
        if "total" in histogram
        for word, count in list(zip(histogram["bins"], histogram["counts"], strict=True))[:WORDS_SHOWN]
    ]
