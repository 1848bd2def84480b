"""A public detector's own queries as the head: transformers' model, loss and boxes, on the task's classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from graftline.errors import InputError
from graftline.learning.augment import draw
from graftline.learning.device import device, send
from graftline.learning.distributed import World, share
from graftline.learning.precision import autocast
from graftline.learning.randomness import generator
from graftline.problems.detection.answers import SceneAnswers
from graftline.problems.detection.boxes import Found, images_of, offsets_of
from graftline.problems.detection.examples import Scenes
from graftline.problems.detection.finder import LEAST, Finder, Sight
from graftline.problems.detection.parameters import DetectionParams
from graftline.problems.detection.targets import warped
from graftline.trunks.detector.trunk import DetectorTrunk, class_tensors
from graftline.values.boxes import Objects
from graftline.values.pixels import Pixels

_OF_THE_DENSE_HEAD = ("stride", "width", "prototypes", "overlap")
_AT_ONCE = 16
"""Images that are looked at together where nothing is learned."""
Labels = list[dict[str, torch.Tensor]]


class QueryDetector(Finder):
    """Images to the boxes that a detector's queries say."""

    trunk: DetectorTrunk
    clip: ClassVar[float | None] = 0.1  # as DETR and RT-DETR were trained

    def __init__(self, trunk: DetectorTrunk, names: list[str], params: DetectionParams) -> None:
        """Stand on a detector, which tells classes of these names from here on; new ones are drawn from torch's global
        generator.

        Raises:
            InputError: the parameters ask for something of the dense head, such as masks.
        """
        for name in _OF_THE_DENSE_HEAD:
            usual = DetectionParams.model_fields[name].default
            if (given := getattr(params, name)) != usual:
                raise InputError(
                    f"finetune.head.{name}", f"{given} on a detector_rootstock, which finds boxes by its own queries, "
                    "without masks", expected=f"{usual}", fix="leave it out, or choose another trunk",
                )  # fmt: skip
        trunk.lay_classes(names)
        super().__init__(trunk, params)
        self._classes = len(names)
        self._laid = {f"trunk.network.{name}" for name in class_tensors(trunk.network)}
        self.to(device())
        if device().type == "cuda":  # grid_sample's gradient and others have no fixed order there
            torch.set_deterministic_debug_mode("warn")

    def head_parameters(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.named_parameters() if name in self._laid]

    def trunk_parameters(self) -> list[nn.Parameter]:
        if self._frozen:
            return []
        return [parameter for name, parameter in self.named_parameters() if name not in self._laid]

    def freeze_trunk(self) -> None:
        super().freeze_trunk()
        for parameter in self.head_parameters():
            parameter.requires_grad_(True)

    def begin(self, train: Scenes) -> None:
        """Raise InputError for an image with more objects than there are queries: the rest could never be found."""
        objects, queries = train.objects, self.trunk.queries
        counts = np.bincount(images_of(objects.offsets)[~objects.crowd], minlength=len(objects))
        if counts.max(initial=0) > queries:
            row = int(train.rows[int(counts.argmax())])
            raise InputError(
                f"row {row}", f"{counts.max()} objects in an image", expected=f"at most {queries}, the model's queries",
                fix="cut pictures into smaller ones, or choose another checkpoint",
            )  # fmt: skip

    def loss(self, examples: Scenes, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return transformers' own loss of a batch, warped as (seed, step) draws it."""
        if examples.weights is not None:
            raise InputError(
                "finetune.head", "rows with weights on a detector_rootstock",
                expected="none: its loss does not heed them",
                fix="give the column the role metadata, or choose another trunk",
            )  # fmt: skip
        place, mine, count = device(), part or World(), len(examples)
        rows = share(torch.arange(count), mine)
        pixels = send(torch.from_numpy(examples.pixels[rows.numpy()]), place)
        changes = draw(self._params.augmentation, generator(seed, step, "augment"), count, pixels.shape[1:])
        objects, _ = warped(examples.objects, changes, *self.trunk.shape)
        labels = self._labels(objects)
        with autocast(self.dtype, place):
            said = self.trunk(
                changes.apply(pixels, self._params.augmentation.edge, mine), [labels[row] for row in rows.tolist()]
            )
        counts = _counts(labels)
        return self.trunk.addend(said, [counts[row] for row in rows.tolist()], counts)

    def _labels(self, objects: Objects) -> Labels:
        """Return what is to be found in each image, as transformers takes it; crowds are left out."""
        size = np.array([*self.trunk.shape[::-1]] * 2, np.float32)
        sides = objects.boxes / size
        middles = (sides[:, :2] + sides[:, 2:]) / 2
        boxes = np.concatenate([middles, sides[:, 2:] - sides[:, :2]], axis=1).astype(np.float32)
        found = []
        for image in range(len(objects)):
            of = slice(*objects.offsets[image : image + 2].tolist())
            single = ~objects.crowd[of]
            values = {"class_labels": objects.classes[of][single], "boxes": boxes[of][single]}
            found.append({name: send(torch.from_numpy(value), device()) for name, value in values.items()})
        return found

    def see(self, pixels: Pixels, *, fast: bool = False) -> Iterator[Sight]:
        for said in self._said(pixels, None, fast=fast):
            yield Sight(self._found(said))

    @torch.no_grad()
    def answer(self, examples: Scenes, *, fast: bool = False) -> SceneAnswers:
        labels = self._labels(examples.objects)
        counts = _counts(labels)
        parts, loss, start = [], 0.0, 0
        for said in self._said(examples.pixels, labels, fast=fast):
            end = start + len(said.logits)
            loss += float(self.trunk.addend(said, counts[start:end], counts))
            parts.append(self._found(said))
            start = end
        return SceneAnswers(
            self._params.scores, examples.rows.numpy(), loss, Found.joined(parts), examples.objects, self._classes,
            self.threshold,
        )  # fmt: skip

    @torch.no_grad()
    def _said(self, pixels: Pixels, labels: Labels | None, *, fast: bool) -> Iterator[Any]:
        """Yield what the model says of some images after the other."""
        self.eval()
        start = 0
        for part in pixels.parts(_AT_ONCE):
            of = None if labels is None else labels[start : start + len(part)]
            with autocast(self.dtype if fast else "float32", device()):
                yield self.trunk(send(torch.from_numpy(part), device()), of)
            start += len(part)

    def _found(self, said: Any) -> Found:
        """Return the boxes that transformers makes of what is said, cut at the images' border."""
        limits = np.array([*self.trunk.shape[::-1]] * 2, np.float32)
        parts, counts = [], []
        for one in self.trunk.boxes(said, LEAST, self._params.most):
            scores, classes, boxes = (one[name].float().cpu().numpy() for name in ("scores", "labels", "boxes"))
            best = np.argsort(-scores, kind="stable")[: self._params.most]
            parts.append((boxes[best].clip(0, limits), classes[best].astype(np.int64), scores[best]))
            counts.append(len(best))
        return Found(offsets_of(counts), *(np.concatenate(of) for of in zip(*parts, strict=True)))


def _counts(labels: Labels) -> list[int]:
    return [len(of["class_labels"]) for of in labels]
