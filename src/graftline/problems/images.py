"""What problems on images share: examples, a linear layer on the trunk's embedding, and the joint objective."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import nn

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.learning.augment import augment
from graftline.learning.device import device, send
from graftline.learning.distributed import World, share
from graftline.learning.precision import arithmetic, autocast
from graftline.learning.randomness import batch_indices, generator
from graftline.problems.image_parameters import ImageHeadParams
from graftline.problems.outputs import name_outputs, zero_layer
from graftline.problems.problem import Examples, Joint, Model, Problem
from graftline.trunks.image_pool import Pool
from graftline.trunks.image_trunk import ImageTrunk
from graftline.trunks.images import load_objective, load_trunk, load_with_output, narrows_on_cpu
from graftline.values.pixels import Pixels
from graftline.values.splits import read_images

_BATCH = 1000  # images at once where nothing is learned


class ImageExamples(Examples):
    """Examples of which each is an image."""

    pixels: Pixels
    """n images, read a batch at a time."""


@dataclass(frozen=True)
class LabelledImages(ImageExamples):
    """Images of one split, of one class each."""

    pixels: Pixels
    labels: torch.Tensor | None
    """(n, ...): of classes int64 indices; None of unlabelled images."""
    rows: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def classes(self) -> torch.Tensor | None:
        return self.labels

    def take(self, chosen: torch.Tensor) -> Self:
        labels, weights = (None if of is None else of[chosen] for of in (self.labels, self.weights))
        return type(self)(self.pixels.take(chosen.numpy()), labels, self.rows[chosen], weights)

    def arrays(self) -> dict[str, np.ndarray]:
        given = {"rows": self.rows, "labels": self.labels, "weights": self.weights}
        return {**self.pixels.arrays(), **{name: of.numpy() for name, of in given.items() if of is not None}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        named = ("rows", "labels", "weights")
        of = {name: torch.from_numpy(arrays[name]) for name in named if name in arrays}
        return cls(Pixels.from_arrays(arrays), of.get("labels"), of["rows"], of.get("weights"))

    def digest(self) -> str:
        sha = hashlib.sha256()
        for part in self.pixels.parts():
            sha.update(part.data)
        for of in (self.labels, self.weights):
            sha.update(b"" if of is None else of.numpy().tobytes())
        return sha.hexdigest()


X = TypeVar("X", bound=ImageExamples)
I = TypeVar("I", bound=LabelledImages)  # noqa: E741  (images)
P = TypeVar("P", bound=ImageHeadParams)
Labels = dict[str, Any]


class TrunkModel(Model[X], Generic[X, P]):
    """A trunk, and whatever stands on it."""

    def __init__(self, trunk: ImageTrunk, params: P) -> None:
        super().__init__()
        self.trunk, self._params, self._frozen = trunk, params, False
        self.dtype = arithmetic(params.precision, narrow_on_cpu=trunk.narrow_on_cpu)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self._frozen:
            self.trunk.eval()
        return self

    def trunk_parameters(self) -> list[nn.Parameter]:
        return [] if self._frozen else list(self.trunk.parameters())

    def freeze_trunk(self) -> None:
        self._frozen = True
        self.trunk.requires_grad_(False)


class ImageModel(TrunkModel[I, P], Generic[I, P]):
    """A trunk and a linear layer: (n, channels, height, width) pixels to (n, width) outputs."""

    def __init__(
        self, trunk: ImageTrunk, width: int, params: P, *, output: nn.Linear | None = None, labels: Labels | None = None
    ) -> None:
        """Stand on a trunk with `width` outputs: the layer `output`, or a new one; `labels` say what they are."""
        super().__init__(trunk, params)
        self._labels = labels or {}
        self.output = zero_layer(trunk.width, width) if output is None else output
        self.to(device())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.output(self.trunk(pixels))
        return outputs.float()

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.output.parameters())

    @abstractmethod
    def criterion(self, outputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Return the mean loss of (n, width) outputs, each times its weight if there are weights."""

    def loss(self, examples: I, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean loss of a batch, warped as (seed, step) draws it."""
        assert examples.labels is not None
        place, mine, count = self.output.weight.device, part or World(), len(examples)
        rows = share(torch.arange(count), mine)
        pixels = send(torch.from_numpy(examples.pixels[rows.numpy()]), place)
        labels = send(examples.labels[rows], place)
        draw = generator(seed, step, "augment")
        warped = augment(pixels, self._params.augmentation, draw, count, mine)
        with autocast(self.dtype, place):
            outputs = self(warped)
        weights = None if examples.weights is None else share(examples.weights, mine)
        return self.criterion(outputs, labels, weights) * (len(labels) / count)

    def outputs(self, pixels: Pixels, *, fast: bool = False) -> torch.Tensor:
        """Return (n, width) float32 outputs on the CPU of n images."""
        return self._without_learning(self, pixels, self.dtype if fast else "float32")

    def features(self, pixels: Pixels) -> torch.Tensor:
        """Return (n, trunk.width) float32 embeddings on the CPU of n images, as they are."""
        return self._without_learning(self.trunk, pixels, "float32")

    @torch.no_grad()
    def _without_learning(self, part: nn.Module, pixels: Pixels, dtype: str) -> torch.Tensor:
        self.eval()
        place = self.output.weight.device
        with autocast(dtype, place):
            return torch.cat([part(send(few, place)).cpu() for few in map(torch.from_numpy, pixels.parts(_BATCH))])

    def save(self, folder: Path) -> dict[str, Any]:
        self.trunk.save_with(self.output, folder, self._labels)
        return {"trunk": self.trunk.config()}


class TrunkProblem(Problem[X], Generic[X, P]):
    """What all heads on trunks of images share: their parameters, their arithmetic, and the joint objective."""

    model: ClassVar[type[TrunkModel[Any, Any]]]

    def __init__(self, params: P) -> None:
        self._params = params

    @property
    def params(self) -> P:
        return self._params

    def environment(self, trunk: Path) -> dict[str, str]:
        return {"dtype": arithmetic(self._params.precision, narrow_on_cpu=narrows_on_cpu(trunk))}

    def joint(self, trunk: Path, model: Model[X], unlabelled: X, batch: int, *, scratch: bool) -> Joint:
        assert isinstance(model, self.model)
        return JointObjective(trunk, model, unlabelled.pixels, batch, scratch=scratch)


class ImageProblem(TrunkProblem[I, P], Generic[I, P]):
    """What heads of one layer share: reading images, and the model on a trunk and in a folder."""

    model: ClassVar[type[ImageModel[Any, Any]]]

    problem_type: ClassVar[str]
    """transformers' word for what the outputs are."""

    @staticmethod
    def names(schema: Schema) -> Sequence[str]:
        """Return the outputs' names."""
        return [str(name) for name in schema.classes]

    @staticmethod
    def width(classes: int) -> int:
        """Return how many outputs the head has where the schema names so many classes."""
        return classes

    def read(self, dataset: Path, split: str, folder: Path) -> I:
        images = read_images(dataset, split)
        labels = None if images.labels is None else torch.from_numpy(images.labels)
        rows = torch.from_numpy(images.rows.copy())  # what Parquet gave is read-only
        return self.examples(images.pixels, labels, rows)

    def asked(self, folder: Path, values: list[np.ndarray]) -> I:
        """Return the questions' values as examples without labels."""
        return self.examples(Pixels.of_numbers(np.stack(values)), None, torch.arange(len(values)))

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> ImageModel[I, P]:
        labels = {**name_outputs(self.names(schema)), "problem_type": self.problem_type}
        found = load_trunk(trunk, weights=not scratch)
        return self.model(found, self.width(len(schema.classes)), self._params, labels=labels)

    def load(self, folder: Path, facts: dict[str, Any]) -> ImageModel[I, P]:
        width = self.width(len(facts["classes"]))
        trunk, output = load_with_output(folder, facts["trunk"], width)
        return self.model(trunk, width, self._params, output=output).eval()


class JointObjective:
    """The objective that made the trunk, with the layers of its own that pretraining ended with."""

    def __init__(self, folder: Path, model: TrunkModel[Any, Any], pixels: Pixels, batch: int, *, scratch: bool) -> None:
        """Go on with the objective's layers in `folder`, or with `scratch` with untrained ones, on these images.

        Raises:
            InputError: the objective learned from groups: of these images none is known, and two of one would be driven
                apart.
        """
        self.objective = load_objective(folder, model.trunk, model.dtype, scratch=scratch)
        if self.objective.grouped:
            raise InputError(
                "finetune.joint_weight",
                "the trunk's objective has a `group`, which the joint objective does not know",
                expected="0 on such a trunk",
                fix="leave joint_weight out, or pretrain without pretrain.objective.group",
            )
        self.module = self.objective.head.to(device())
        self._pool, self._batch = Pool(pixels), batch

    def loss(self, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        chosen = batch_indices(seed + 1, step, self._batch, len(self._pool))
        return self.objective.loss_in(self._pool, chosen, seed, step, part)
