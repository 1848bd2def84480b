"""Image trunks: transformers' own models, in its own layout, so that they open without Graftline.

trunk.json                 kind "vision", how pixels are scaled, the objective's parameters
config.json                AutoModel.from_pretrained(folder); with a head on it
model.safetensors          AutoModelForImageClassification.from_pretrained(folder)
preprocessor_config.json   AutoImageProcessor.from_pretrained(folder)
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from graftline.errors import InputError
from graftline.learning.batch_norm import BatchNorm1d, BatchNorm2d
from graftline.learning.convolution import multiply_small_maps
from graftline.learning.device import device
from graftline.learning.precision import multiplies_tiles
from graftline.text.attention import SHORT
from graftline.trunks.image_trunk import ImageTrunk
from graftline.trunks.layout import keeping_attention, quiet
from graftline.trunks.rootstock import read_architecture
from graftline.trunks.vision.parameters import VisionParams

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from graftline.values.image import ImageColumn

KIND = "vision"
AUTO = "AutoModelForImageClassification"
PROCESSOR = "preprocessor_config.json"
_CHANCE = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob",
    "dropout_rate", "drop_path_rate", "drop_connect_rate",
)  # fmt: skip
"""Every name under which transformers' configs know dropout."""
_HEADS = ("classifier", "head", "fc", "cls_classifier", "distillation_classifier")
"""Where architectures keep the layers of a task."""
_SHARED: dict[type, type] = {nn.BatchNorm1d: BatchNorm1d, nn.BatchNorm2d: BatchNorm2d}
BICUBIC = 3  # Pillow's number, and how validate makes pictures of another size


@dataclass(frozen=True)
class Scale:
    """How pixels from 0 to 1 are shifted and scaled before the model sees them."""

    mean: tuple[float, ...]
    """Of each channel."""
    deviation: tuple[float, ...]
    """Of each channel."""
    maximum: float
    """The pixel value of full brightness in the files that a released model is asked about."""

    @classmethod
    def of(cls, image: ImageColumn) -> Scale:
        """Return the scale of new trunks: pixels from -1 to 1."""
        return cls((0.5,) * image.channels, (0.5,) * image.channels, image.maximum)

    @classmethod
    def read(cls, values: dict[str, Any]) -> Scale:
        """Return the scale that `written` returned. Raises KeyError, TypeError or ValueError for what it did not."""
        return cls(tuple(values["mean"]), tuple(values["deviation"]), float(values["maximum"]))

    def written(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"mean": list(self.mean), "deviation": list(self.deviation), "maximum": self.maximum}

    def lay_on(self, module: nn.Module) -> None:
        """Give a module the buffers `mean` and `deviation`, (channels, 1, 1)."""
        for name in ("mean", "deviation"):
            module.register_buffer(name, torch.tensor(getattr(self, name))[:, None, None], persistent=False)

    def processor(self, of: str, size: tuple[int, int], resample: int) -> dict[str, Any]:
        """Return transformers' settings, of the class `of`, that make of a picture what a model was trained on.

        Args:
            of: the class of image processor.
            size: height and width of what the model sees.
            resample: Pillow's number for how a picture of another size is scaled.
        """
        return {
            "image_processor_type": of,
            "do_convert_rgb": len(self.mean) == 3 or None,
            "do_resize": True,
            "size": {"height": size[0], "width": size[1]},
            "resample": resample,
            "do_rescale": True,
            "rescale_factor": 1 / self.maximum,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.deviation),
        }


class VisionTrunk(ImageTrunk):
    """Turns (n, channels, height, width) pixels from 0 to 1 into (n, width) embeddings: what the head's layer sees."""

    narrow_on_cpu: ClassVar[bool] = multiplies_tiles()
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: PreTrainedModel, scale: Scale, shape: tuple[int, int]) -> None:
        """Stand on one of transformers' models for image classification, without its last layer.

        Args:
            network: loses its last linear layer.
            scale: of the pixels.
            shape: height and width of the images.
        """
        super().__init__()
        self.scale, self.shape, self._last = scale, shape, last_linear(network)
        last = network.get_submodule(self._last)
        assert isinstance(last, nn.Linear)
        self._width = last.in_features
        network.set_submodule(self._last, nn.Identity())
        share_statistics(network)
        multiply_small_maps(network)
        if network.config.model_type == "resnet":
            _pool_first(network.get_submodule("resnet.embedder"))
        grid, narrow = _grid(network, shape), device().type == "cpu" and self.narrow_on_cpu
        if network._supports_sdpa and grid and math.prod(grid) < SHORT and narrow:
            network.set_attn_implementation("eager")  # with its backward pass in bfloat16, half the fused kernel's time
        self._asked: dict[str, bool] = {}
        if network.config.model_type == "vit":
            from graftline.trunks.vision.class_token import shorten

            shorten(network)
            self._asked["class_token"] = True  # of the last layer a classifier reads no more
        self.network = network
        scale.lay_on(self)

    @property
    def width(self) -> int:
        return self._width

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.network(self.scaled(pixels), **self._asked).logits
        return embedded

    def scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels from 0 to 1 as the model takes them."""
        scaled = (pixels - self.mean) / self.deviation
        if scaled.shape[1] == 1:  # of one channel both layouts are the same numbers: torch would leave it as it is
            return scaled.reshape(len(scaled), *scaled.shape[2:], 1).movedim(3, 1)
        return scaled.contiguous(memory_format=torch.channels_last)  # convolutions are faster on it

    def look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the (n, width) embeddings, and the (n, features, rows, columns) that they were pooled from."""
        seen: list[torch.Tensor] = []
        body = self.network.base_model
        hook = body.register_forward_hook(lambda _module, _inputs, found: seen.append(found.last_hidden_state))
        try:
            embedded = self.network(self.scaled(pixels)).logits
        finally:
            hook.remove()
        return embedded, self._as_map(seen[0], "pretrain.objective.name", "contrastive")

    @torch.no_grad()
    def spot_width(self) -> int:
        """Return how many numbers all maps say of a spot. Raises InputError as `maps` does."""
        maps = self.eval().maps(torch.zeros(1, len(self.mean), *self.shape, device=self.mean.device))
        self.train()
        return sum(features.shape[1] for features in maps)

    def maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the last map of each size.

        Raises:
            InputError: it has none.
        """
        found: Any = self.network.base_model(self.scaled(pixels), output_hidden_states=True)
        sizes = {
            tuple(features.shape[2:]): features
            for features in [*(found.hidden_states or ()), found.last_hidden_state]
            if features.ndim == 4
        }
        if sizes:
            return list(sizes.values())
        return [self._as_map(found.last_hidden_state, "pretrain.trunk", "vit, convnextv2, resnet or conv")]

    def attentions(self, pixels: torch.Tensor) -> tuple[list[torch.Tensor], int, int] | None:
        grid = _grid(self.network, self.shape)
        if grid is None or not self.network._supports_sdpa:
            return None
        with keeping_attention(self.network):
            found = self.network(self.scaled(pixels), output_attentions=True).attentions
        tokens = math.prod(grid)
        if not found or any(layer.ndim != 4 or not tokens <= layer.shape[-1] <= tokens + 2 for layer in found):
            return None
        return list(found), *grid

    def _as_map(self, features: torch.Tensor, field: str, instead: str) -> torch.Tensor:
        if features.ndim == 4:
            return features
        grid = _grid(self.network, self.shape)  # (n, tokens, features): what is no patch stands first
        if grid is None or features.shape[1] < math.prod(grid):
            found = f"the features of a {self.network.config.model_type} are no map of its patches"
            raise InputError(field, found, expected=instead)
        patches: torch.Tensor = features[:, -math.prod(grid) :].transpose(1, 2).unflatten(2, grid)
        return patches

    def config(self) -> dict[str, Any]:
        """Return what `from_folder` needs besides the folder's config.json."""
        return {"kind": KIND, "shape": list(self.shape), **self.scale.written()}

    def save(self, folder: Path) -> None:
        """Write the model without a head: config.json, model.safetensors and preprocessor_config.json."""
        self.network.save_pretrained(folder, max_shard_size="1TB")
        write_processor(self.scale.processor("ViTImageProcessor", self.shape, BICUBIC), folder)

    def save_alone(self, folder: Path) -> None:
        self.save(folder)

    @property
    def how_to_map(self) -> str:
        return (
            "`AutoImageProcessor.from_pretrained(folder)` makes the input of a picture. "
            "`AutoModel.from_pretrained(folder)`\nwith `output_hidden_states=True` gives `hidden_states` and "
            "`last_hidden_state`. The maps are those of four\ndimensions, of each height and width the last one. Of a "
            "transformer, which has none, there is one map: the\ntokens of `last_hidden_state` that are patches, the "
            "last ones, row by row."
        )

    def save_with(self, output: nn.Linear, folder: Path, settings: dict[str, Any]) -> None:
        """Write the model with `output` as its last layer; `settings` are the config's, such as the classes' names."""
        plain = self.network.config
        self.network.config = copy.deepcopy(plain)
        for name, value in settings.items():
            setattr(self.network.config, name, value)
        self.network.set_submodule(self._last, output)
        try:
            self.save(folder)
        finally:
            self.network.set_submodule(self._last, nn.Identity())
            self.network.config = plain


def write_processor(settings: dict[str, Any], folder: Path) -> None:
    """Write what an image processor is told beside a model."""
    (folder / PROCESSOR).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def share_statistics(network: nn.Module) -> None:
    """Let a model's batch normalisation take the statistics of the whole batch, on however many processes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and type(module) in _SHARED:
            module.__class__ = _SHARED[type(module)]
            module.momentum = 0.1  # mobilenet_v2 has TensorFlow's 0.997, which here would forget all but a batch


def _pool_first(stem: Any) -> None:
    """Let a ResNet's stem pool before its ReLU: of the largest it makes the same, on a quarter of the numbers."""
    if isinstance(stem.embedder.activation, nn.ReLU):
        stem.pooler = nn.Sequential(stem.pooler, stem.embedder.activation)
        stem.embedder.activation = nn.Identity()


def _grid(network: PreTrainedModel, shape: tuple[int, int]) -> tuple[int, int] | None:
    """Return the rows and columns of patches that a transformer sees; None if its config does not say."""
    side = getattr(network.config, "patch_size", None)
    return (shape[0] // side, shape[1] // side) if isinstance(side, int) else None


def last_linear(network: nn.Module) -> str:
    names: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]


def without_chance(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration without dropout: what a step draws must be a pure function of (seed, step)."""
    for name in _CHANCE:
        if hasattr(config, name):
            setattr(config, name, 0 if isinstance(getattr(config, name), int) else 0.0)  # configs check the type
    return config


def build_network(config: PreTrainedConfig) -> PreTrainedModel:
    """Return an untrained model for image classification, drawn from torch's global generator."""
    from transformers import AutoModelForImageClassification

    network: PreTrainedModel = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    for module in network.modules():
        convolution = getattr(module, "patch_embeddings", None)
        if not isinstance(convolution, nn.Conv2d) or convolution.bias is None:
            continue
        if isinstance(getattr(module, "layernorm", None), nn.LayerNorm):
            # A patch of one shade is 0 there, and so is its variance: the norm, whose epsilon is 1e-6, would multiply
            # gradients by 1,000. With PyTorch's own start of a bias in place of 0 it multiplies by less than 10.
            reach = 1 / math.sqrt(math.prod(convolution.weight.shape[1:]))
            nn.init.uniform_(convolution.bias, -reach, reach)
    return network


def new_trunk(params: VisionParams, image: ImageColumn) -> VisionTrunk:
    """Return an untrained trunk of a shape for such images."""
    from transformers import AutoConfig

    quiet()
    config = AutoConfig.for_model(
        params.name, image_size=list(image.shape), num_channels=image.channels, **params.settings()
    )
    return VisionTrunk(build_network(config), Scale.of(image), image.shape)


def is_of_head(name: str) -> bool:
    """Return whether a tensor of that name is of a task's layers: a trunk has none of them."""
    return name.split(".")[0] in _HEADS


def read_config(folder: Path) -> PreTrainedConfig:
    """Return transformers' configuration in a folder, without dropout. Raises InputError: it is none."""
    return without_chance(read_architecture(folder, "an image model"))
