"""A public detector as a trunk: what it must be to be one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.errors import InputError, brief, nearest
from graftline.trunks.detector.trunk import AUTO, PROCESSORS, RESAMPLED, DetectorTrunk, read_config
from graftline.trunks.rootstock import CONFIG, check_plain, damages, load, read_object
from graftline.trunks.vision.rootstock import scale_of, tried, wrong_channels
from graftline.trunks.vision.trunk import PROCESSOR

if TYPE_CHECKING:
    from graftline.values.image import ImageColumn


def open_checkpoint(folder: Path, image: ImageColumn) -> DetectorTrunk:
    """Return the checkpoint in `folder` as a trunk for such images, with its own classes.

    Grey images go into all channels of a model for colour. Images are scaled to the size that the checkpoint's own
    processor makes of pictures of their shape.

    Raises:
        InputError: it is of another architecture, or its backbone is timm's and timm is not installed; a file is
            damaged; a tensor is missing, has another shape than the config says, or is not finite; such images do not
            go through it.
    """
    check_plain(folder)
    values = read_object(folder / CONFIG)
    architecture = str(values.get("model_type"))
    if architecture not in PROCESSORS:
        raise InputError(
            folder / CONFIG, f"model_type {values.get('model_type')!r}{nearest(architecture, sorted(PROCESSORS))}",
            expected=f"one of {', '.join(sorted(PROCESSORS))}", fix="choose another checkpoint",
        )  # fmt: skip
    _check_backbone(folder, values)
    config = read_config(folder)
    if sorted(names := config.id2label or {}) != [*range(len(names))]:
        raise InputError(
            folder / CONFIG, f"id2label with the numbers {brief(sorted(names))}",
            expected="all from 0 on: rows of tensors", fix="choose another checkpoint",
        )  # fmt: skip
    backbone: Any = getattr(config, "backbone_config", None)
    if getattr(backbone, "model_type", None) == "timm_backbone" and not find_spec("timm"):
        raise _of_timm(folder, str(backbone.backbone))
    processor = _processor(folder, architecture)
    scale = scale_of(folder, image, processor.to_dict())
    if image.channels not in (1, len(scale.mean)):
        raise wrong_channels(folder, len(scale.mean), image)
    size, resample = _size(folder, processor, image, len(scale.mean))
    network = load(folder, AUTO, lambda name: False, config=config)
    return tried(lambda: DetectorTrunk(network, scale, image.shape, size, resample), folder, image, size)


def _check_backbone(folder: Path, values: dict[str, Any]) -> None:
    """Raise InputError if transformers would look a backbone's config up, in timm or on the Hub, by its name alone."""
    name = values.get("backbone")
    if name is None or values.get("backbone_config"):
        return
    if not values.get("use_timm_backbone", True):
        raise InputError(
            folder / CONFIG, f"a backbone '{name}' by its name alone", expected="backbone_config, which says its shape",
            fix="save the checkpoint again with a present transformers",
        )  # fmt: skip
    if not find_spec("timm"):
        raise _of_timm(folder, str(name))


def _of_timm(folder: Path, name: str) -> InputError:
    return InputError(
        folder / CONFIG, f"its backbone '{name}' is timm's, and timm is not installed",
        expected="a backbone of transformers' own", fix="choose a checkpoint or revision without timm",
    )  # fmt: skip


def _processor(folder: Path, architecture: str) -> Any:
    """Return the checkpoint's own processor of pictures. Raises InputError: there is none."""
    import transformers

    path = folder / PROCESSOR
    if not path.is_file():
        raise InputError(path, "the file is missing", expected="the size and scale of the pixels that the model knows")
    try:
        return getattr(transformers, f"{PROCESSORS[architecture]}Pil").from_pretrained(folder, local_files_only=True)
    except damages() as error:
        raise InputError(path, f"no processor ({brief(error)})", fix="get the checkpoint again") from None


def _size(folder: Path, processor: Any, image: ImageColumn, channels: int) -> tuple[tuple[int, int], int]:
    """Return height and width of what a processor makes of a picture of the images' shape, and Pillow's number for how.

    Raises:
        InputError: it makes nothing of it, pads it, or resamples in a way that is not done here.
    """
    path = folder / PROCESSOR
    try:
        made = processor(np.zeros((*image.shape, channels), np.uint8), return_tensors="pt")
        resample = int(processor.resample)
    except damages() as error:
        raise InputError(path, f"no size of images ({brief(error)})", fix="get the checkpoint again") from None
    if "pixel_mask" in made and not made["pixel_mask"].all():
        raise InputError(path, "it pads pictures", expected="none, or do_pad false", fix="choose another checkpoint")
    if resample not in RESAMPLED:
        known = " or ".join(f"{number} ({name})" for number, name in RESAMPLED.items())
        raise InputError(path, f"resample {resample}", expected=known, fix="choose another checkpoint")
    height, width = made["pixel_values"].shape[2:]
    return (height, width), resample
