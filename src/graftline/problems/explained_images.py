"""Answers about images and their parts, the pixels."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from graftline.learning.device import send
from graftline.plots import figure, save, show_image
from graftline.problems.explained import Attention, Explained, Floats, Line, Places, Sets, log_of_target, shades
from graftline.problems.pictures import fit_caption

_BATCH = 1000
_GRADIENT_PIXELS = 1 << 15
"""Of the images whose lines are walked together: some points of each are computed at once."""
_WINDOWS = 7
"""Windows of occlusion side by side; they overlap by half."""


@dataclass(frozen=True, eq=False)
class ExplainedImages(Explained):
    """One class an image."""

    part: ClassVar[str] = "pixel"

    pixels: NDArray[np.float32]
    """(n, channels, height, width)."""
    targets: torch.Tensor
    """(n,) int64: which output is the answer."""

    @classmethod
    def of(cls, model: Any, pixels: NDArray[np.float32], targets: torch.Tensor, answers: list[str]) -> Self:
        """Return what explains the model's answers, of which `targets` are the outputs."""
        parts = np.full(len(pixels), pixels.shape[2] * pixels.shape[3], dtype=np.int64)
        return cls(model, parts, answers, "the picture's median colour", pixels, targets)

    told_of = staticmethod(log_of_target)

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.pixels.shape[2:]
        return int(height), int(width)

    @cached_property
    def _ground(self) -> NDArray[np.float32]:
        """(n, channels, 1, 1): what hidden pixels show. Black alone would be ink in one data set, paper in another."""
        return np.median(self.pixels, axis=(2, 3), keepdims=True).astype(np.float32)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def log_probabilities(self, places: Places, kept: Sets) -> Floats:
        self.model.eval()
        found = []
        with torch.inference_mode():
            for start in range(0, len(places), _BATCH):
                chosen, parts = places[start : start + _BATCH], kept[start : start + _BATCH]
                shown = parts.reshape(len(chosen), 1, *self.shape)
                pixels = torch.from_numpy(np.where(shown, self.pixels[chosen], self._ground[chosen]))
                outputs = self.model(send(pixels, self._device)).cpu()
                found.append(self.told_of(outputs, self.targets[chosen]).numpy())
        return np.concatenate(found).astype(np.float64)

    @cached_property
    def _squares(self) -> Sets:
        height, width = self.shape
        side = max(1, round(min(height, width) / _WINDOWS))
        tops, lefts = (_starts(length, side) for length in (height, width))
        found = np.zeros((len(tops) * len(lefts), height, width), dtype=bool)
        for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
            found[number, top : top + side, left : left + side] = True
        return found.reshape(len(found), -1)

    def windows(self, place: int) -> Sets:
        return self._squares

    def lines(self) -> Iterator[Line]:
        self.model.eval()
        step = max(1, _GRADIENT_PIXELS // self.most)
        for start in range(0, len(self), step):
            places = np.arange(start, min(start + step, len(self)))
            pixels = torch.from_numpy(self.pixels[places])
            ground = torch.from_numpy(self._ground[places]).expand_as(pixels)
            targets = self.targets[places]

            def output(points: torch.Tensor, numbers: torch.Tensor, targets: torch.Tensor = targets) -> torch.Tensor:
                outputs = self.model(points)
                return self.told_of(outputs, targets[numbers.cpu()].to(outputs.device))

            def by_part(found: torch.Tensor) -> Floats:
                sums: Floats = found.double().sum(dim=1).flatten(1).cpu().numpy()
                return sums

            yield Line(places, send(ground.contiguous(), self._device), send(pixels, self._device), output, by_part)

    def attention(self) -> Iterator[Attention] | str:
        with torch.inference_mode():
            first = self.model.trunk.attentions(send(torch.from_numpy(self.pixels[:1]), self._device))
        if first is None:
            return "the trunk has no attention over the whole picture"
        return self._attention()

    def _attention(self) -> Iterator[Attention]:
        self.model.eval()
        for start in range(0, len(self), _BATCH):
            places = np.arange(start, min(start + _BATCH, len(self)))
            with torch.inference_mode():
                found = self.model.trunk.attentions(send(torch.from_numpy(self.pixels[places]), self._device))
            assert found is not None
            layers, rows, columns = found
            tokens = layers[0].shape[-1]
            readers = torch.full((len(places), tokens), 1 / tokens)
            if tokens > rows * columns:  # the first is no patch, and the head reads it
                readers = torch.nn.functional.one_hot(torch.zeros(len(places), dtype=torch.int64), tokens).float()

            def by_part(found: torch.Tensor, rows: int = rows, columns: int = columns) -> Floats:
                patches = found[:, -rows * columns :].unflatten(1, (1, rows, columns))
                of_pixel = torch.nn.functional.interpolate(patches, self.shape, mode="nearest").flatten(1)
                shares: Floats = (of_pixel * (rows * columns / self.most)).double().numpy()
                return shares

            yield Attention(places, [layer.float().mean(dim=1).cpu() for layer in layers], readers, by_part)

    def vectors(self) -> NDArray[np.float32]:
        self.model.eval()
        with torch.inference_mode():
            return np.concatenate(
                [
                    self.model.trunk(send(torch.from_numpy(self.pixels[start : start + _BATCH]), self._device))
                    .float().cpu().numpy()
                    for start in range(0, len(self), _BATCH)
                ]
            )  # fmt: skip

    def told(self, place: int, found: Floats, count: int) -> str:
        """Return the squares of a grid with the largest sums."""
        height, width = self.shape
        side = max(1, round(min(height, width) / _WINDOWS))
        grid = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
        of_pixel = found.reshape(height, width)
        sums = np.array([of_pixel[top : top + side, left : left + side].sum() for top, left in grid])
        named = []
        for number in np.argsort(-sums, kind="stable")[:count]:
            top, left = grid[number]
            rows, columns = (f"{at}-{min(at + side, end) - 1}" for at, end in ((top, height), (left, width)))
            named.append(f"rows {rows} columns {columns} ({sums[number]:+.2f})")
        return ", ".join(named)

    def values(self, place: int, found: Floats) -> list[list[float]]:
        """Return the number of each pixel, row by row."""
        rows: list[list[float]] = found.reshape(self.shape).tolist()
        return rows

    def marked(self, place: int, found: Floats) -> Markup:
        return picture(blend(self.pixels[place], found.reshape(self.shape)))

    def shown(self, place: int) -> Markup:
        return picture(blend(self.pixels[place], np.zeros(self.shape)))

    def draw(self, places: Sequence[int], found: dict[str, Floats], path: Path) -> bool:
        named = {name: [of[place].reshape(self.shape) for place in places] for name, of in found.items()}
        draw_seen([self.pixels[n] for n in places], [self.answers[n] for n in places], named, path, "picture")
        return True


def draw_seen(
    seen: Sequence[NDArray[np.float32]], answers: Sequence[str], found: dict[str, list[Floats]], path: Path, what: str
) -> None:
    """Draw k pictures under their answers, and below by each method's title what it finds.

    Args:
        seen: (channels, height, width) of each.
        answers: of each.
        found: k arrays of (height, width) numbers of each method.
        path: of the PNG.
        what: the name of the first row.
    """
    plot = figure(1.3 * len(seen) + 1.2, 1.35 * (1 + len(found)))
    grid = plot.subplots(1 + len(found), len(seen), squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
    for column, (pixels, answer) in enumerate(zip(seen, answers, strict=True)):
        show_image(grid[0, column], pixels, ink=True)
        fitted, size = fit_caption(answer, inches=1.3)
        grid[0, column].set_title(fitted, loc="center", fontsize=size)
        for row, numbers in enumerate(found.values(), start=1):
            grid[row, column].imshow(blend(pixels, numbers[column]))
    for row, name in enumerate([what, *found]):
        grid[row, 0].set_ylabel(name.replace(" ", "\n"), fontsize=8)
    save(plot, path)


def _starts(length: int, side: int) -> list[int]:
    """Return where windows begin along a side, half over one another; the last ends at the end."""
    step = max(1, side // 2)
    return [*range(0, length - side, step), length - side]


def blend(pixels: NDArray[np.float32], found: Floats) -> NDArray[np.float64]:
    """Return (height, width, 3): the picture in light grey, green where it speaks for the answer, red where against."""
    shade = shades(found)
    grey = pixels.mean(axis=0).clip(0, 1)[..., None]
    paper = 1 - 0.35 * (1 - grey if len(pixels) > 1 else grey)
    colour = np.where(shade[..., None] > 0, np.array([47, 111, 79]) / 255, np.array([180, 83, 42]) / 255)
    strength = np.abs(shade)[..., None]
    blended: NDArray[np.float64] = paper * (1 - strength) + colour * strength
    return blended


def picture(colours: NDArray[np.float64]) -> Markup:
    """Return a picture in a page, each pixel as a square."""
    from PIL import Image

    image = Image.fromarray((colours * 255).round().astype(np.uint8))
    scale = max(1, math.ceil(112 / max(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG")
    return Markup('<img alt="" src="data:image/png;base64,{}">').format(base64.b64encode(file.getvalue()).decode())
