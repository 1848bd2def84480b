"""A trunk with a dense head on it: images to boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from graftline.durable import write_new
from graftline.learning.augment import Changes, draw
from graftline.learning.device import device, send
from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.problems.detection import opening
from graftline.problems.detection.answers import SceneAnswers
from graftline.problems.detection.boxes import Found, images_of, offsets_of, without_doubles
from graftline.problems.detection.examples import Scenes
from graftline.problems.detection.finder import LEAST, Finder, Sight
from graftline.problems.detection.head import DenseHead, Said, losses
from graftline.problems.detection.parameters import DetectionParams
from graftline.problems.detection.scores import FOUND_IOU, matches
from graftline.problems.detection.targets import Grid, Targets, masks_of, targets, warped, with_masks
from graftline.trunks import load_weights
from graftline.trunks.image_trunk import ImageTrunk
from graftline.values.boxes import Objects
from graftline.values.pixels import Pixels

WEIGHTS = "head.safetensors"
_NUMBERS = 1 << 23
"""Of the pixels that are looked at together where nothing is learned."""


@dataclass(frozen=True)
class Seen(Sight):
    """What a model says of some images, and the boxes in it."""

    said: Said
    places: torch.Tensor
    """(m, 3) image, row and column of each found box."""

    def masks(self, chosen: np.ndarray) -> np.ndarray:
        """Return the (k, height, width) bool masks of the found boxes at these places."""
        if not len(chosen):
            return np.zeros((0, *self.said.prototypes.shape[2:]), np.bool_)
        boxes = torch.from_numpy(self.found.boxes[chosen])
        logits, inside = self.said.masks(self.places[torch.from_numpy(chosen)], boxes)
        found: np.ndarray = ((logits > 0) & inside).numpy()
        return found


class Detector(Finder):
    """Images to boxes with classes and probabilities, and masks if the head has prototypes."""

    def __init__(self, trunk: ImageTrunk, shape: tuple[int, int], channels: int, classes: int, params: DetectionParams):
        """Stand on a trunk with a new head.

        Args:
            trunk: in which torch's global generator has drawn already; the head draws by a seed of its own.
            shape: height and width of the images.
            channels: of the images.
            classes: of objects.
            params: the head's.
        """
        super().__init__(trunk, params)
        self.to(device())
        with torch.no_grad():
            maps = trunk.eval().maps(torch.zeros(1, channels, *shape, device=device()))
        trunk.train()
        rows = Grid.of(*shape, params.stride).rows
        self._first = min(len(maps) - 1, sum(features.shape[2] > rows for features in maps))
        self._classes, self._shape = classes, shape
        self.head = DenseHead([features.shape[1] for features in maps[self._first :]], shape, classes, params)
        self.to(device())

    def forward(self, pixels: torch.Tensor, places: torch.Tensor | None = None) -> Said:
        said: Said = self.head(self.trunk.maps(pixels)[self._first :], places)
        return said

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def begin(self, train: Scenes) -> None:
        """Take the usual size of a box from the training examples: the geometric mean."""
        boxes = train.objects.boxes[~train.objects.crowd]
        if len(boxes):
            sides = np.log((boxes[:, 2:] - boxes[:, :2]).astype(np.float64)).mean(axis=0)
            self.head.size.copy_(torch.from_numpy(np.exp(sides)))

    def loss(self, examples: Scenes, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the loss of a batch over its objects, warped as (seed, step) draws it."""
        place, mine, count = device(), part or World(), len(examples)
        rows = share(torch.arange(count), mine)
        pixels = send(torch.from_numpy(examples.pixels[rows.numpy()]), place)
        changes = draw(self._params.augmentation, generator(seed, step, "augment"), count, pixels.shape[1:])
        wanted, told = self._wanted(examples.objects, changes, rows.numpy())
        with autocast(self.dtype, place):
            said = self(changes.apply(pixels, self._params.augmentation.edge, mine), wanted.cells)
        each = losses(said, wanted)
        if examples.weights is not None:
            each = each * send(share(examples.weights, mine), place)
        return each.sum() / max(1, told)

    def _wanted(self, given: Objects, changes: Changes, rows: np.ndarray) -> tuple[Targets, int]:
        """Return what is to be said of the images at `rows` after `changes`, on the model's device, and how many
        objects all images have.
        """
        objects, left = warped(given, changes, *self._shape)
        mine = objects.take(rows)
        wanted = targets(mine, self._classes, self.head.grid)
        if self._params.prototypes:
            ranges = [np.empty(0, np.int64), *(np.arange(*objects.offsets[row : row + 2]) for row in rows)]
            chosen = left[np.concatenate(ranges)][~mine.crowd]
            maps = changes.maps.numpy()[images_of(given.offsets)[chosen]]
            wanted = with_masks(wanted, masks_of(given, *self._shape, chosen), self.head.grid, maps)
        return wanted.on(device()), int((~objects.crowd).sum())

    @torch.no_grad()
    def see(self, pixels: Pixels, *, fast: bool = False) -> Iterator[Seen]:
        """Yield what is said of some images after the other, on the CPU."""
        self.eval()
        place = device()
        most = max(1, _NUMBERS // int(np.prod(pixels.shape[1:])) // 16)
        for part in pixels.parts(most):
            with autocast(self.dtype if fast else "float32", place):
                said = self(send(torch.from_numpy(part), place)).on(torch.device("cpu"))
            yield self._found(said)

    def _found(self, said: Said) -> Seen:
        """Return the boxes at the peaks of what is said (X. Zhou et al., 2019, section 4.3), without doubles."""
        heat = said.heat.sigmoid()
        peaks = torch.where(F.max_pool2d(heat, 3, stride=1, padding=1) == heat, heat, 0)
        best, cells = peaks.flatten(1).topk(min(2 * self._params.most, peaks[0].numel()))
        classes = cells // peaks[0, 0].numel()
        row, column = cells % peaks[0, 0].numel() // peaks.shape[3], cells % peaks.shape[3]
        limits = np.array([*self._shape[::-1], *self._shape[::-1]], np.float32)
        parts, places, counts = [], [], []
        for image in range(len(best)):
            some = int((best[image] >= LEAST).sum())
            at = row[image, :some], column[image, :some]
            boxes = said.boxes[image, :, at[0], at[1]].T.numpy().clip(0, limits)
            kinds = classes[image, :some].numpy()
            stays = np.flatnonzero(without_doubles(boxes, kinds, self._params.overlap))[: self._params.most]
            parts.append((boxes[stays], kinds[stays], best[image, :some].numpy()[stays]))
            places.append(torch.stack([torch.full((some,), image), *at], dim=1)[torch.from_numpy(stays)])
            counts.append(len(stays))
        found = Found(offsets_of(counts), *(np.concatenate(of) for of in zip(*parts, strict=True)))
        return Seen(found, said, torch.cat(places))

    @torch.no_grad()
    def answer(self, examples: Scenes, *, fast: bool = False) -> SceneAnswers:
        objects, masked = examples.objects, self._params.prototypes > 0
        parts, ious, loss, start = [], [], 0.0, 0
        for seen in self.see(examples.pixels, fast=fast):
            true = objects.take(slice(start, start + len(seen.found)))
            start += len(seen.found)
            wanted = targets(true, self._classes, self.head.grid)
            if masked:
                masks = masks_of(true, *self._shape)
                wanted = with_masks(wanted, masks[~true.crowd], self.head.grid)
                ious.append(self._mask_ious(seen, true, masks > 0))
            loss += float(losses(seen.said, wanted).sum())
            parts.append(seen.found)
        return SceneAnswers(
            self._params.scores, examples.rows.numpy(), loss / max(1, int((~objects.crowd).sum())),
            Found.joined(parts), objects, self._classes, self.threshold, np.concatenate(ious) if masked else None,
        )  # fmt: skip

    def _mask_ious(self, seen: Seen, true: Any, masks: np.ndarray) -> np.ndarray:
        """Return (true boxes,) IoU of each one's mask with that of the answer it is matched with, 0 without."""
        ious = np.zeros(len(true.classes))
        matched = matches(seen.found, true, np.array([FOUND_IOU]))[:, 0]
        chosen = np.flatnonzero((matched >= 0) & (seen.found.probabilities >= self.threshold))
        of = matched[chosen]
        own, wanted = seen.masks(chosen), masks[of]
        both, either = ((each).sum(axis=(1, 2)) for each in (own & wanted, own | wanted))
        ious[of] = both / np.maximum(either, 1)
        return ious

    def save(self, folder: Path) -> dict[str, Any]:
        from safetensors.torch import save

        facts = super().save(folder)
        write_new(folder / WEIGHTS, save({name: t.contiguous() for name, t in self.head.state_dict().items()}))
        opening.write(folder, self.trunk, self.head, self._first)
        return facts

    def restore(self, folder: Path, facts: dict[str, Any]) -> Self:
        """Return the model with the head that `save` wrote. Raises InputError; KeyError, TypeError or ValueError."""
        load_weights(self.head, folder / WEIGHTS, fix="run finetune again")
        return super().restore(folder, facts)
