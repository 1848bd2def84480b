"""Detection: where the objects of some classes are in an image.

By a dense head on the trunk's maps; by its own queries where the trunk is a public detector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from graftline.dataset import Schema, read_schema, read_split
from graftline.errors import InputError
from graftline.learning.device import device
from graftline.problems.detection import present
from graftline.problems.detection.answers import SceneAnswers
from graftline.problems.detection.examples import Scenes
from graftline.problems.detection.finder import Finder, Sight
from graftline.problems.detection.model import Detector, Seen
from graftline.problems.detection.parameters import DetectionParams
from graftline.problems.detection.queries import QueryDetector
from graftline.problems.images import TrunkProblem
from graftline.problems.problem import LABEL, Model
from graftline.raw.picture_formats import SUFFIXES
from graftline.trunks import read_config
from graftline.trunks.detector.trunk import KIND as DETECTOR
from graftline.trunks.detector.trunk import DetectorTrunk
from graftline.trunks.images import KINDS, load_alone, load_trunk
from graftline.values import rle
from graftline.values.boxes import BoxLabel
from graftline.values.column import Question, Questions
from graftline.values.decoding import Rule, upright
from graftline.values.framing import Framing
from graftline.values.image import ImageColumn
from graftline.values.pixels import Pixels

_TOLD = 8
"""Objects of an image that are told to people."""


class Asked(NamedTuple):
    """An image that a person asks about."""

    pixels: np.ndarray
    """(channels, height, width), as the model sees it."""
    framing: Framing
    """How it was made of the picture that the person has."""


class Detection(TrunkProblem[Scenes, DetectionParams]):
    """Learns the objects in an image."""

    roles: ClassVar = {"image": ImageColumn, LABEL: BoxLabel}
    examples, model = Scenes, Finder
    header = ("objects", "where")
    amount = "images"
    loss_unit = "loss an object"

    def read(self, dataset: Path, split: str, folder: Path) -> Scenes:
        found = read_split(dataset, split, [ImageColumn])
        (pixels,) = found.features
        if self._params.prototypes and found.label is not None and found.label.runs is None:
            raise InputError(
                dataset / f"{split}.parquet", "objects without masks", expected="a mask each, to learn masks",
                fix="set finetune.head.prototypes to 0, or masks: true in the contract",
            )  # fmt: skip
        return self.examples(pixels, found.label, torch.from_numpy(found.rows.copy()))

    def environment(self, trunk: Path) -> dict[str, str]:
        free = device().type == "cuda" and read_config(trunk, *KINDS)["kind"] == DETECTOR
        return super().environment(trunk) | ({"sums": "in any order"} if free else {})

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> Finder:
        return self._on(schema, lambda: load_trunk(trunk, weights=not scratch))

    def _on(self, schema: Schema, load: Any) -> Finder:
        """Return a model with a new head on the trunk that `load` returns.

        Trunks draw from the same generator: heads would not start equal on a new trunk and a trained one.
        """
        image = schema.only(ImageColumn)
        seed = int(torch.randint(2**62, ()))
        trunk = load()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if isinstance(trunk, DetectorTrunk):
                return QueryDetector(trunk, [str(name) for name in schema.classes], self._params)
            return Detector(trunk, image.shape, image.channels, len(schema.classes), self._params)

    def load(self, folder: Path, facts: dict[str, Any]) -> Finder:
        model = self._on(Schema.from_dict(facts), lambda: load_alone(folder, facts["trunk"]))
        return model.restore(folder, facts).eval()

    def present(self, answers: SceneAnswers, examples: Scenes, dataset: Path, out: Path, mistakes: int) -> None:
        present.write(answers, examples.pixels, read_schema(dataset), out, mistakes)

    def questions(self, schema: Schema, paths: list[Path], texts: list[str]) -> Questions:
        """Return images; boxes are told in pixels of picture files, of all else in those that the model sees."""
        found, rule = super().questions(schema, paths, texts), schema.only(ImageColumn).rule
        asked = [Question(one.name, Asked(one.value, _framing(one.name, rule))) for one in found.asked]
        return Questions(asked, found.notes)

    def ask(self, folder: Path, model: Model[Scenes], values: list[Asked], schema: Schema) -> list[dict[str, Any]]:
        """Return `objects` of each image, the most probable first: `class`, `probability`, `box` and perhaps `mask`.

        Boxes are x0, y0, x1, y1 in pixels of the upright picture, whose height and width are its `size`.
        """
        assert isinstance(model, Finder)
        answers: list[dict[str, Any]] = []
        for seen in model.see(Pixels.of_numbers(np.stack([value.pixels for value in values]))):
            for image in range(len(seen.found)):
                framing = values[len(answers)].framing
                objects = self._objects(seen, image, framing, model.threshold, schema)
                answers.append({"objects": objects, "size": [framing.height, framing.width]})
        return answers

    def _objects(
        self, seen: Sight, image: int, framing: Framing, threshold: float, schema: Schema
    ) -> list[dict[str, Any]]:
        found, of = seen.found, seen.found.of(image)
        chosen = np.arange(of.start, of.stop)[found.probabilities[of] >= threshold]
        boxes = framing.boxes_back(found.boxes[chosen])
        objects: list[dict[str, Any]] = [
            {
                "class": str(schema.classes[found.classes[place]]),
                "probability": float(found.probabilities[place]),
                "box": [round(float(side), 2) for side in box],
            }
            for place, box in zip(chosen.tolist(), boxes, strict=True)
        ]
        if isinstance(seen, Seen) and self._params.prototypes:
            for one, mask in zip(objects, seen.masks(chosen), strict=True):
                whole = framing.mask_back(mask)
                one["mask"] = {"size": list(whole.shape), "counts": rle.encode(whole)}
        return objects

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        objects = answer["objects"]
        told = [
            f"{one['class']} ({one['probability']:.2f}) at {' '.join(f'{side:.0f}' for side in one['box'])}"
            for one in objects[:_TOLD]
        ]
        more = [f"and {len(objects) - _TOLD} more"] if len(objects) > _TOLD else []
        return str(len(objects)), ", ".join(told + more)

    def draw(self, value: Asked, answer: dict[str, Any], path: Path) -> None:
        boxes = value.framing.boxes(np.array([one["box"] for one in answer["objects"]]).reshape(-1, 4))
        captions = [f"{one['class']} {one['probability']:.0%}" for one in answer["objects"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        present.draw(value.pixels, boxes, captions, path)


def _framing(name: str, rule: Rule) -> Framing:
    """Return how the image of this name was made: of a picture file, or of what has its size already."""
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return Framing(rule.width, rule.height, rule)
    (width, height), orientation = upright(path.read_bytes())
    whole = Framing.of((width, height), orientation, rule)
    return Framing(whole.width, whole.height, rule)
