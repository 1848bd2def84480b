"""A public image model as a trunk's start: what it must be to be one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from graftline.errors import InputError, brief, nearest
from graftline.trunks.rootstock import CONFIG, check_plain, damages, load, read_object
from graftline.trunks.vision.trunk import AUTO, PROCESSOR, Scale, VisionTrunk, build_network, is_of_head, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from graftline.values.image import ImageColumn

T = TypeVar("T", bound=nn.Module)
_POSITIONS = "position_embeddings"


def open_checkpoint(folder: Path, image: ImageColumn) -> VisionTrunk:
    """Return the checkpoint in `folder` as a trunk for such images, without the layer of its own task.

    Grey images go into all channels of a model for colour. Learned positions are interpolated to the images' size.

    Raises:
        InputError: transformers does not know the architecture; a file is damaged; a tensor is missing, has another
            shape than the config says, or is not finite; such images do not go through it.
    """
    check_plain(folder)
    _check_kind(folder)
    scale = scale_of(folder, image)
    network = load(folder, AUTO, is_of_head, config=read_config(folder))
    channels = network.config.num_channels
    if len(scale.mean) != channels or (image.channels > 1 and image.channels != channels):
        raise wrong_channels(folder, channels, image)
    return tried(lambda: VisionTrunk(_resized(network, image.shape), scale, image.shape), folder, image, image.shape)


def wrong_channels(folder: Path, channels: int, image: ImageColumn) -> InputError:
    """Return the error that a checkpoint takes so many channels, and the data's images have others."""
    return InputError(
        folder / CONFIG, f"a model of images with {channels} channels", expected=f"one for the data's {image.channels}",
        fix="choose another checkpoint",
    )  # fmt: skip


def tried(build: Callable[[], T], folder: Path, image: ImageColumn, size: tuple[int, int]) -> T:
    """Return the trunk that `build` makes of a checkpoint, once an image has gone through it.

    Args:
        build: returns the trunk.
        folder: of the checkpoint.
        image: what the data's images are.
        size: height and width of what the model sees of one.

    Raises:
        InputError: such images do not go through it.
    """
    try:
        trunk = build().eval()
        with torch.no_grad():
            trunk(torch.zeros(1, image.channels, *image.shape))
    except damages() as error:
        raise InputError(
            folder / CONFIG, f"images of {size[0]} by {size[1]} pixels do not go through it ({brief(error)})",
            fix="choose another checkpoint, or another shape in the contract",
        ) from None  # fmt: skip
    return trunk.train()


def _check_kind(folder: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    architecture = read_object(folder / CONFIG).get("model_type")
    if str(architecture) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        known = sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
        raise InputError(
            folder / CONFIG,
            f"model_type {architecture!r}{nearest(str(architecture), known)}",
            expected="an architecture that transformers has an image classifier of",
        )


def scale_of(folder: Path, image: ImageColumn, values: dict[str, Any] | None = None) -> Scale:
    """Return how the checkpoint's own processor scales pixels; `values` are what it says, if not all is in its file.

    Raises:
        InputError: it does not say.
    """
    path = folder / PROCESSOR
    if not path.is_file():
        raise InputError(
            path, "the file is missing", expected="image_mean and image_std, by which the model's pixels were scaled"
        )
    values = read_object(path) if values is None else values
    channels = read_object(folder / CONFIG).get("num_channels", 3)
    if type(channels) is not int:
        raise InputError(
            folder / CONFIG, f"num_channels {channels!r}", expected="a whole number", fix="get the checkpoint again"
        )
    mean, deviation = (0.0,) * channels, (1.0,) * channels
    try:
        if values.get("do_normalize", True) is not False:
            mean, deviation = (tuple(float(number) for number in values[key]) for key in ("image_mean", "image_std"))
        if len(mean) != len(deviation) or not all(number > 0 for number in deviation):
            raise ValueError("a mean and a deviation above 0 for each channel")
        if values.get("do_flip_channel_order"):
            raise ValueError("blue stands before red")
        if _divides_again(values):
            deviation = tuple(of * float(again) for of, again in zip(deviation, values["image_std"], strict=True))
        white, black = _of_bytes(values)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(path, f"no scale of pixels ({brief(error)})", fix="get the checkpoint again") from None
    return Scale(
        tuple((number - black) / white for number in mean), tuple(number / white for number in deviation), image.maximum
    )


def _of_bytes(values: dict[str, Any]) -> tuple[float, float]:
    """Return what a processor makes of pixels from 0 to 1 before it normalises: by how much 1 is above 0, and 0."""
    if values.get("do_rescale", True) is False:
        return 255.0, 0.0
    factor = float(values.get("rescale_factor", 1 / 255))
    if not factor > 0:
        raise ValueError(f"rescale_factor {factor}")
    return 255 * factor, -1.0 if values.get("rescale_offset") else 0.0


def _divides_again(values: dict[str, Any]) -> bool:
    """Return whether it is EfficientNet's processor, which divides by image_std in the end, normalised or not."""
    kind = str(values.get("image_processor_type", values.get("feature_extractor_type", "")))
    return kind.startswith("EfficientNet") and values.get("include_top", True) is not False


def _resized(network: PreTrainedModel, shape: tuple[int, int]) -> PreTrainedModel:
    """Return the same model for images of `shape`, its table of learned positions interpolated if it has one.

    Raises:
        ValueError: its patches do not divide the images.
    """
    state = network.state_dict()
    names = [name for name in state if name.endswith(_POSITIONS) and state[name].ndim == 3]
    config = network.config
    if not names or not hasattr(config, "patch_size"):
        return network
    if any(side % config.patch_size for side in shape):
        raise ValueError(f"its patches are {config.patch_size} by {config.patch_size}")
    rows, columns = (side // config.patch_size for side in _sides(config.image_size))
    config.image_size = list(shape)
    size = tuple(side // config.patch_size for side in shape)
    for name in names:
        table = state[name]  # (1, special tokens and rows * columns, width)
        special, places = table.split([table.shape[1] - rows * columns, rows * columns], dim=1)
        grid = places.transpose(1, 2).unflatten(2, (rows, columns))
        grid = nn.functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
        state[name] = torch.cat([special, grid.flatten(2).transpose(1, 2)], dim=1)
    resized = build_network(config)
    resized.load_state_dict(state)
    return resized


def _sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
