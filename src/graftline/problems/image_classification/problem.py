"""Image classification: one linear layer on the trunk's embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn

from graftline.dataset import Schema, read_schema
from graftline.digests import sha256_bytes
from graftline.durable import write_new
from graftline.learning.augment import augment
from graftline.learning.device import device, send
from graftline.learning.distributed import World, share
from graftline.learning.precision import arithmetic, autocast
from graftline.learning.randomness import batch_indices, generator
from graftline.problems import pictures
from graftline.problems.answers import LABEL_HEADER, label_line, labelled
from graftline.problems.classes import ClassAnswers
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.problem import LABEL, Examples, Joint, Model, Problem
from graftline.trunks import load_trunk, load_weights, read_config
from graftline.trunks.conv.objectives import WEIGHTS as OBJECTIVE_WEIGHTS
from graftline.trunks.conv.objectives import build_objective
from graftline.trunks.conv.parameters import ImageObjectiveParams
from graftline.trunks.conv.reconstruction import Reconstruction
from graftline.trunks.conv.trunk import KIND, ConvTrunk
from graftline.values.category import ClassLabel
from graftline.values.image import ImageColumn
from graftline.values.splits import read_images

WEIGHTS = "model.safetensors"
_BATCH = 1000  # images at once where nothing is learned


@dataclass(frozen=True)
class LabelledImages(Examples):
    """Images of one split."""

    pixels: torch.Tensor
    """(n, height, width) float32 from 0 to 1."""
    labels: torch.Tensor | None
    """(n,) int64 class indices; None of unlabelled images."""
    rows: torch.Tensor

    @property
    def classes(self) -> torch.Tensor | None:
        return self.labels

    def take(self, chosen: torch.Tensor) -> LabelledImages:
        labels = None if self.labels is None else self.labels[chosen]
        return LabelledImages(self.pixels[chosen], labels, self.rows[chosen])

    def arrays(self) -> dict[str, np.ndarray]:
        labels = {} if self.labels is None else {"labels": self.labels.numpy()}
        return {"pixels": self.pixels.numpy(), "rows": self.rows.numpy(), **labels}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
        return cls(torch.from_numpy(arrays["pixels"]), labels, torch.from_numpy(arrays["rows"]))

    def digest(self) -> str:
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return sha256_bytes(self.pixels.numpy().tobytes() + labels)


class ImageClassifier(Model[LabelledImages]):
    """A trunk and a linear layer: (n, height, width) pixels to (n, classes) logits."""

    def __init__(self, trunk: ConvTrunk, classes: int, params: ImageClassificationParams) -> None:
        super().__init__()
        self.trunk, self._params, self._frozen = trunk, params, False
        self.output = nn.Linear(trunk.params.width, classes)
        # Zero: all classes start equal, and the trunk's first gradients do not follow a random direction.
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.dtype = arithmetic(params.precision, narrow_on_cpu=False)
        self.to(device())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.trunk(pixels))
        return logits.float()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self._frozen:
            self.trunk.eval()
        return self

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.output.parameters())

    def trunk_parameters(self) -> list[nn.Parameter]:
        return [] if self._frozen else list(self.trunk.parameters())

    def freeze_trunk(self) -> None:
        self._frozen = True
        self.trunk.requires_grad_(False)

    def loss(self, examples: LabelledImages, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the cross entropy of a batch, warped as (seed, step) draws it."""
        assert examples.labels is not None
        place, mine, count = self.output.weight.device, part or World(), len(examples)
        pixels, labels = (send(share(all_, mine), place) for all_ in (examples.pixels, examples.labels))
        draw = generator(seed, step, "augment")
        warped = augment(pixels, self._params.augmentation, draw, count, mine)
        with autocast(self.dtype, place):
            logits = self(warped)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self._params.label_smoothing)
        return loss * (len(labels) / count)

    def answer(self, examples: LabelledImages, *, fast: bool = False) -> ClassAnswers:
        assert examples.labels is not None
        logits = self._logits(examples.pixels, fast=fast)
        return ClassAnswers.of(self._params.scores, examples.rows, examples.labels, logits)

    def probabilities(self, pixels: torch.Tensor, *, fast: bool = False) -> np.ndarray:
        """Return (n, classes) float32 probabilities of (n, height, width) pixels from 0 to 1."""
        return self._logits(pixels, fast=fast).softmax(dim=1).numpy()

    @torch.no_grad()
    def _logits(self, pixels: torch.Tensor, *, fast: bool) -> torch.Tensor:
        """Return (n, classes) float32 logits on the CPU."""
        self.eval()
        place = self.output.weight.device
        with autocast(self.dtype if fast else "float32", place):
            return torch.cat([self(send(part, place)).cpu() for part in pixels.split(_BATCH)])

    def save(self, folder: Path) -> dict[str, Any]:
        from safetensors.torch import save

        write_new(folder / WEIGHTS, save(self.state_dict()))
        return {"trunk": self.trunk.config()}


class ImageClassification(Problem[LabelledImages]):
    """Learns one class an image."""

    roles: ClassVar = {"image": ImageColumn, LABEL: ClassLabel}
    examples = LabelledImages
    header = LABEL_HEADER

    def __init__(self, params: ImageClassificationParams) -> None:
        self._params = params

    @property
    def params(self) -> ImageClassificationParams:
        return self._params

    def environment(self) -> dict[str, str]:
        return {"dtype": arithmetic(self._params.precision, narrow_on_cpu=False)}

    def read(self, dataset: Path, split: str, folder: Path) -> LabelledImages:
        images = read_images(dataset, split)
        labels = None if images.labels is None else torch.from_numpy(images.labels)
        rows = torch.from_numpy(images.rows.copy())  # what Parquet gave is read-only
        return LabelledImages(torch.from_numpy(images.pixels), labels, rows)

    def present(self, answers: ClassAnswers, examples: LabelledImages, dataset: Path, out: Path, mistakes: int) -> None:
        schema = read_schema(dataset)
        answers.write_classes(schema, out)
        worst, names = answers.worst_mistakes(mistakes), [str(name) for name in schema.classes]
        pictures.plot_mistakes(examples.pixels.numpy(), answers, worst, names, out / "mistakes.png")

    def ask(
        self, folder: Path, model: Model[LabelledImages], values: list[np.ndarray], schema: Schema
    ) -> list[dict[str, Any]]:
        assert isinstance(model, ImageClassifier)
        answers = model.probabilities(torch.from_numpy(np.stack(values)))
        return [labelled(row, schema.classes) for row in answers]

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return label_line(answer)

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> ImageClassifier:
        return ImageClassifier(load_trunk(trunk, weights=not scratch), len(schema.classes), self._params)

    def joint(
        self, trunk: Path, model: Model[LabelledImages], unlabelled: LabelledImages, batch: int, *, scratch: bool
    ) -> Joint:
        assert isinstance(model, ImageClassifier)
        return JointReconstruction(trunk, model, unlabelled.pixels, batch, scratch=scratch)

    def load(self, folder: Path, facts: dict[str, Any]) -> ImageClassifier:
        model = ImageClassifier(ConvTrunk.from_config(facts["trunk"]), len(facts["classes"]), self._params)
        load_weights(model, folder / WEIGHTS, fix="run finetune again")
        return model.eval()


class JointReconstruction:
    """The objective that made the trunk, with the decoder that pretraining ended with."""

    def __init__(
        self, folder: Path, model: ImageClassifier, pixels: torch.Tensor, batch: int, *, scratch: bool
    ) -> None:
        """Go on with the decoder in `folder`, or with `scratch` with an untrained one, on (n, height, width) pixels."""
        params: ImageObjectiveParams = TypeAdapter(ImageObjectiveParams).validate_python(
            read_config(folder, KIND)["objective"]
        )
        self.objective: Reconstruction = build_objective(model.trunk, params, model.dtype)
        if not scratch:
            load_weights(self.objective.decoder, folder / OBJECTIVE_WEIGHTS, fix="run pretrain again")
        self.module = self.objective.decoder.to(device())
        self._pixels, self._batch = pixels, batch

    def loss(self, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        rows = batch_indices(seed + 1, step, self._batch, len(self._pixels))
        return self.objective.loss(self._pixels[rows], seed, step, part)
