"""The baselines of heads that no model of transformers has, as the Trainer takes a module.

What learns scenes is head_opened.py's module: the release as others open it, layers and losses the plain way. Controls
are the same with its weights channels last, which PyTorch's documentation advises for convolutions, and Graftline's own
module and loss. Scenes go as in the examples object-detection/run_object_detection.py and instance-segmentation/
run_instance_segmentation.py: each time that a picture is used, it is decoded with the map of its objects' numbers, both
are warped alike, and the boxes after them; the model makes its targets of what comes. The PNGs are in memory. The
examples warp by albumentations, which is not installed; Pillow does the same here. Boxes are moved for the whole batch
at once, and pixels are scaled by the model, both in the Trainer's favour.

Histories go into Graftline's own module, as BERT4Rec's implementations have them (RecBole; transformers4rec, by the
Trainer itself): lists of items in random order, padded to the longest of their batch, or to the longest that there is.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from bench.head_opened import Opened, opened, whole_masks
from bench.rounds import Form
from bench.text_trainer import Collate, Example
from graftline.learning.augment import draw
from graftline.learning.parameters import Augmentation
from graftline.learning.randomness import generator
from graftline.problems.detection.boxes import images_of
from graftline.problems.detection.examples import Scenes
from graftline.problems.detection.head import losses
from graftline.problems.detection.model import Detector
from graftline.problems.detection.targets import masks_of, targets, warped, with_masks
from graftline.problems.recommendation.examples import Histories
from graftline.problems.recommendation.problem import Recommender
from graftline.values.boxes import Objects


class Learned(NamedTuple):
    """What the Trainer asks of a model."""

    loss: torch.Tensor


class Wrapped(nn.Module):
    """A model, and a function of it and of a batch that returns the loss."""

    def __init__(self, model: nn.Module, loss: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, **batch: Any) -> Learned:
        return Learned(self._loss(self.model, **batch))


def detection(
    model: Detector, examples: Scenes, augmentation: Augmentation, form: Form, *, decoded: bool
) -> tuple[Wrapped, list[Example], Collate]:
    """Return scenes with masks, PNGs or pictures that were decoded before, warped as `augmentation` says; and of the
    model what is to be trained.
    """
    _, channels, height, width = examples.pixels.shape
    objects, maps = examples.objects, np.zeros((len(examples), height, width), np.uint8)
    masks = masks_of(objects, height, width).astype(bool)
    for image, number, mask in zip(images_of(objects.offsets), _numbers(objects), masks, strict=True):
        maps[image][mask] = number
    objects, kept = replace(objects, runs=None, run_offsets=None), np.asarray if decoded else _png
    shown = examples.pixels.stored[examples.pixels.positions].squeeze(3 if channels == 1 else ())
    given = [
        {"image": kept(picture), "numbers": kept(of), "place": place}
        for place, (picture, of) in enumerate(zip(shown, maps, strict=True))
    ]
    source = generator(0, 0, "augment")

    def collate(some: list[Example]) -> dict[str, Any]:
        changes = draw(augmentation, source, len(some), (channels, height, width))
        moves = _in_pixels(changes.maps.double().numpy(), height, width)
        pixels = _moved([example["image"] for example in some], moves, Image.Resampling.BILINEAR)
        maps = _moved([example["numbers"] for example in some], moves, Image.Resampling.NEAREST)
        all_of = objects.take(np.array([example["place"] for example in some]))
        left, stays = warped(all_of, changes, height, width)
        return {
            "pixel_values": torch.from_numpy(pixels.reshape(len(some), height, width, channels)),
            "objects": left,
            "masks": torch.from_numpy(maps[images_of(left.offsets)] == _numbers(all_of)[stays, None, None]),
        }

    if form == "own":
        return Wrapped(model, _own_loss), given, collate
    trained = opened(model)
    if form == "channels_last":
        trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Wrapped(trained, _opened_loss), given, collate


def _numbers(objects: Objects) -> np.ndarray:
    """Return (m,) the number of each object in its picture, from 1 on; 0 is the ground."""
    found: np.ndarray = 1 + np.arange(len(objects.classes)) - objects.offsets[images_of(objects.offsets)]
    return found


def _opened_loss(model: Opened, pixel_values: torch.Tensor, objects: Objects, masks: torch.Tensor) -> torch.Tensor:
    said = model(pixel_values.permute(0, 3, 1, 2).contiguous() / 255)
    wanted, single = targets(objects, model.classes, model.grid), ~objects.crowd
    found = losses(said, wanted).sum() + whole_masks(said, wanted, masks[torch.from_numpy(single)].float())
    return found / max(1, int(single.sum()))


def _own_loss(model: Detector, pixel_values: torch.Tensor, objects: Objects, masks: torch.Tensor) -> torch.Tensor:
    single = ~objects.crowd
    wanted = with_masks(targets(objects, model.head.classes, model.head.grid), masks.numpy()[single], model.head.grid)
    said = model(pixel_values.permute(0, 3, 1, 2).contiguous() / 255, wanted.cells)
    return losses(said, wanted).sum() / max(1, int(single.sum()))


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _in_pixels(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the (n, 6) maps that Pillow takes of (n, 2, 3) ones in half images: from new places to old ones."""
    half = np.array([width, height]) / 2
    linear = maps[:, :, :2] * half[:, None] / half
    shift = half * (maps[:, :, 2] + 1) - linear @ half
    return np.concatenate([linear, shift[:, :, None]], axis=2).reshape(-1, 6)


def _moved(pictures: list[Any], moves: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
    """Return the pictures, each moved in its own way; black comes in at the edges."""
    found = []
    for given, move in zip(pictures, moves, strict=True):
        picture = Image.open(io.BytesIO(given)) if isinstance(given, bytes) else Image.fromarray(given)
        found.append(np.asarray(picture.transform(picture.size, Image.Transform.AFFINE, tuple(move), resampling)))
    return np.stack(found)


def recommendation(model: Recommender, examples: Histories, *, filled: bool) -> tuple[Wrapped, list[Example], Collate]:
    """Return histories as lists of items; with `filled` each is padded to the longest of all."""
    padding, steps = model.trunk.vocabulary.padding, count()
    given = [{"input_ids": history.tolist()} for history in examples.whole()]
    wide = [torch.zeros(examples.longest, dtype=torch.int64)] if filled else []

    def collate(some: list[Example]) -> dict[str, torch.Tensor]:
        lists = [torch.tensor(example["input_ids"]) for example in some]
        padded = pad_sequence([*lists, *wide], batch_first=True, padding_value=padding)
        return {"input_ids": padded[: len(some)]}

    def loss(model: Recommender, input_ids: torch.Tensor) -> torch.Tensor:
        return model.objective.loss(list(input_ids), 0, next(steps))

    return Wrapped(model, loss), given, collate
