"""Detectors as trunks: transformers' own models of the DETR family, with the queries and layers that find boxes.

N. Carion et al., "End-to-end object detection with transformers", ECCV 2020, arXiv:2005.12872: each of some
queries says a class, or none, and a box; in training each object is matched with one of them, at the least cost in all.

trunk.json                 kind "detector", how images become the model's input
config.json                AutoModelForObjectDetection.from_pretrained(folder)
model.safetensors
preprocessor_config.json   AutoImageProcessor.from_pretrained(folder)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from torch import nn

from graftline.errors import InputError
from graftline.trunks.image_trunk import ImageTrunk
from graftline.trunks.rootstock import read_architecture
from graftline.trunks.vision.trunk import BICUBIC, Scale, share_statistics, write_processor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

KIND = "detector"
AUTO = "AutoModelForObjectDetection"
PROCESSORS: Mapping[str, str] = MappingProxyType({
    "conditional_detr": "ConditionalDetrImageProcessor", "deformable_detr": "DeformableDetrImageProcessor",
    "detr": "DetrImageProcessor", "rt_detr": "RTDetrImageProcessor", "rt_detr_v2": "RTDetrImageProcessor",
    "table-transformer": "DetrImageProcessor", "yolos": "YolosImageProcessor",
})  # fmt: skip
"""The architectures, and transformers' class that makes inputs of pictures and boxes of what each says."""
RESAMPLED: Mapping[int, str] = MappingProxyType({2: "bilinear", BICUBIC: "bicubic"})
"""Pillow's numbers for how images are scaled, and PyTorch's words."""
_WITHOUT_CHANCE: dict[str, Any] = {
    "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "classifier_dropout": 0.0,
    "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0, "num_denoising": 0,
}  # fmt: skip
"""Everything by which such models draw in training: what a step draws must be a pure function of (seed, step)."""
_ANY_SIZE = ("anchor_image_size", "eval_size")
"""Sizes of images for which an RT-DETR would keep its anchors; without, it makes them for those that it sees."""
_OF_THE_BEST = ("conditional_detr", "deformable_detr")
"""Of these transformers gives the best 100 boxes of an image, unless it is told how many."""
_CROSS_ENTROPY = "ForObjectDetection"
"""transformers' name for the loss of DETR and YOLOS, whose classes have a softmax; others have a focal loss."""


class DetectorTrunk(ImageTrunk):
    """(n, channels, height, width) pixels from 0 to 1 to what transformers' model says of them: `logits`, (n, queries,
    classes, and perhaps none), and `pred_boxes`, (n, queries, 4), middles and sizes as shares of the image."""

    narrow_on_cpu: ClassVar[bool] = False
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self, network: PreTrainedModel, scale: Scale, shape: tuple[int, int], size: tuple[int, int], resample: int
    ) -> None:
        """Stand on one of transformers' models.

        Args:
            network: of an architecture in `PROCESSORS`.
            scale: of the pixels.
            shape: height and width of the images.
            size: what they are scaled to before the model sees them.
            resample: how, one of `RESAMPLED`.
        """
        super().__init__()
        share_statistics(network)
        network.requires_grad_(True)  # transformers freezes the backbones of some, which would stay random from scratch
        self.network: Any = network
        self.shape, self._scale, self._size, self._resample = shape, scale, size, resample
        scale.lay_on(self)

    def forward(self, pixels: torch.Tensor, labels: list[dict[str, torch.Tensor]] | None = None) -> Any:
        return self.network(pixel_values=self.scaled(pixels), labels=labels)

    def scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels from 0 to 1 as the model takes them."""
        if pixels.shape[2:] != self._size:
            how = RESAMPLED[self._resample]
            pixels = F.interpolate(pixels, self._size, mode=how, antialias=True).clamp(0, 1)  # as Pillow does it
        return (pixels - self.mean) / self.deviation

    def addend(self, said: Any, mine: Sequence[int], counts: Sequence[int]) -> torch.Tensor:
        """Return what some images of a batch add to transformers' own loss of the whole batch, a scalar.

        That loss is a mean over the objects of the images that it is given; of DETR and YOLOS the cross entropy is one
        over their queries, in which those without an object count less.

        Args:
            said: of the images, with their labels.
            mine: how many objects each of them has.
            counts: how many each image of the batch has.
        """
        share = max(1, sum(mine)) / max(1, sum(counts))
        loss: torch.Tensor = said.loss
        if self.network.loss_type != _CROSS_ENTROPY:
            return loss * share
        entropy = torch.stack([value for name, value in said.loss_dict.items() if name.startswith("loss_ce")]).sum()
        queries, empty = self.queries, self.network.config.eos_coefficient

        def weight(of: Sequence[int]) -> float:
            matched = sum(min(count, queries) for count in of)
            return float(matched + empty * (queries * len(of) - matched))

        return entropy * (weight(mine) / weight(counts)) + (loss - entropy) * share

    def boxes(self, said: Any, least: float, most: int) -> list[dict[str, torch.Tensor]]:
        """Return transformers' own `scores`, `labels` and `boxes` (x0, y0, x1, y1 in pixels) of each image, of scores
        above `least`; of some architectures the best, at least `most` if there are so many."""
        import transformers

        architecture = self.network.config.model_type
        processor = getattr(transformers, f"{PROCESSORS[architecture]}Pil")()
        found: list[dict[str, torch.Tensor]] = processor.post_process_object_detection(
            said, threshold=least, target_sizes=[self.shape] * len(said.logits),
            **({"top_k": most} if architecture in _OF_THE_BEST else {}),
        )  # fmt: skip
        return found

    def lay_classes(self, names: Sequence[str]) -> None:
        """Have the model tell these classes: what it has learned of one of the same name stays, others begin anew.

        What begins anew is drawn from torch's global generator.
        """
        before = self.network
        config = copy.deepcopy(before.config)
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
        known = {str(name).casefold(): number for number, name in before.config.id2label.items()}
        kept = [(place, known[name.casefold()]) for place, name in enumerate(names) if name.casefold() in known]
        network = build_network(config).requires_grad_(True)
        share_statistics(network)
        classes, old = class_tensors(network), before.state_dict()
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if name not in classes:
                    tensor.copy_(old[name])
                    continue
                for place, number in kept:
                    tensor[place] = old[name][number]
                if len(tensor) > len(names):  # behind the classes, that there is no object
                    tensor[-1] = old[name][-1]
        self.network = network

    @property
    def queries(self) -> int:
        """How many boxes it can find in an image."""
        config = self.network.config
        if getattr(config, "two_stage", False):
            return int(config.two_stage_num_proposals)
        return int(config.num_detection_tokens if config.model_type == "yolos" else config.num_queries)

    @property
    def width(self) -> int:
        raise only_detects()

    def maps(self, pixels: torch.Tensor) -> NoReturn:
        raise only_detects()

    @property
    def how_to_map(self) -> str:
        raise only_detects()

    def save_with(self, output: nn.Linear, folder: Path, settings: dict[str, Any]) -> None:
        raise only_detects()

    def config(self) -> dict[str, Any]:
        """Return what loading needs besides the folder's config.json."""
        sizes = {"shape": list(self.shape), "size": list(self._size), "resample": self._resample}
        return {"kind": KIND, **sizes, **self._scale.written()}

    def save_alone(self, folder: Path) -> None:
        """Write config.json, model.safetensors and preprocessor_config.json."""
        self.network.save_pretrained(folder, max_shard_size="1TB")
        # Validate has made pictures of another size images of the model's, or of one that is scaled to it.
        resample = BICUBIC if self.shape == self._size else self._resample
        settings = self._scale.processor(PROCESSORS[self.network.config.model_type], self._size, resample)
        write_processor({**settings, "do_pad": False}, folder)


def only_detects() -> InputError:
    """Return the error of asking a detector for anything but boxes."""
    return InputError(
        "pretrain.trunk.name", "a detector_rootstock, which finds boxes by its own layers",
        expected="an image_rootstock", fix="choose the head detection, or a trunk without a head",
    )  # fmt: skip


def build_network(config: PreTrainedConfig) -> PreTrainedModel:
    """Return an untrained detector, drawn from torch's global generator."""
    import transformers

    network: PreTrainedModel = getattr(transformers, AUTO).from_config(config, dtype=torch.float32)
    return network


def class_tensors(network: PreTrainedModel) -> frozenset[str]:
    """Return the names of the tensors that have a row a class: those that one more class makes longer."""
    more = copy.deepcopy(network.config)
    more.num_labels = len(network.config.id2label or ()) + 1
    with torch.device("meta"):
        other = build_network(more).state_dict()
    return frozenset(name for name, tensor in network.state_dict().items() if tensor.shape != other[name].shape)


def read_config(folder: Path) -> PreTrainedConfig:
    """Return transformers' configuration in a folder, without what draws in training. Raises InputError: it is none."""
    config = read_architecture(folder, "a detector")
    for part in (config, getattr(config, "backbone_config", None)):
        for name, value in _WITHOUT_CHANCE.items():
            if hasattr(part, name):
                setattr(part, name, value)
    for name in _ANY_SIZE:
        if hasattr(config, name):
            setattr(config, name, None)
    return config
