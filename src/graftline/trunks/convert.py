"""A plain PyTorch weights file, turned once into a checkpoint folder that a trunk can start from.

The file is unpickled by torch's `weights_only` reader, which makes tensors and plain containers and calls nothing else.
Its names become transformers', every tensor is accounted for, and conversion.json keeps the digests of both files: who
has the original can make the same bytes again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.digests import sha256_file
from graftline.errors import InputError
from graftline.trunks.layout import quiet
from graftline.trunks.rootstock import CONVERSION, WEIGHTS

if TYPE_CHECKING:
    import torch

State = Mapping[str, "torch.Tensor"]
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which key training scripts keep the weights, beside an optimiser's state and more."""
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
"""How torchvision's models were shown their pixels (https://docs.pytorch.org/vision/stable/models.html)."""


@dataclass(frozen=True)
class Layout:
    """How another library names and shapes an architecture that transformers has too."""

    config: Callable[[State], dict[str, Any]]
    """Return transformers' `model_type`, and what of its config the tensors say."""
    names: tuple[tuple[str, str], ...]
    """Regular expressions of whole names, and what they become; the first that fits."""


def _mobilenet_v2(state: State) -> dict[str, Any]:
    return {
        "model_type": "mobilenet_v2",
        "num_labels": len(state["classifier.1.bias"]),
        "tf_padding": False,
        "layer_norm_eps": 1e-5,
    }


def _resnet(state: State) -> dict[str, Any]:
    last = "conv3" if "layer1.0.conv3.weight" in state else "conv2"
    stages = [sorted(n for n in state if re.fullmatch(rf"layer{s}\.\d+\.{last}\.weight", n)) for s in range(1, 5)]
    return {
        "model_type": "resnet",
        "num_labels": len(state["fc.bias"]),
        "embedding_size": len(state["conv1.weight"]),
        "layer_type": "bottleneck" if last == "conv3" else "basic",
        "depths": [len(stage) for stage in stages],
        "hidden_sizes": [len(state[stage[0]]) for stage in stages],
    }


_COUNT = "num_batches_tracked"
_PART = rf"(weight|bias|running_mean|running_var|{_COUNT})"


def _mobile(block: str, part: str, layer: str) -> list[tuple[str, str]]:
    """Return the names of a convolution and its normalisation; `part` is where the first of both is in the block."""
    convolution, normalization = part.split(",")
    return [
        (rf"{block}{convolution}\.weight", rf"mobilenet_v2.{layer}.convolution.weight"),
        (rf"{block}{normalization}\.{_PART}", rf"mobilenet_v2.{layer}.normalization.\g<{2 if '(' in block else 1}>"),
    ]


def _residual(number: int) -> list[tuple[str, str]]:
    block, layer = rf"layer{number}\.(\d+)\.", rf"resnet.encoder.stages.{number - 1}.layers.\1."
    found = []
    for place in (1, 2, 3):
        found += [
            (rf"{block}conv{place}\.weight", rf"{layer}layer.{place - 1}.convolution.weight"),
            (rf"{block}bn{place}\.{_PART}", rf"{layer}layer.{place - 1}.normalization.\2"),
        ]
    return [
        *found,
        (rf"{block}downsample\.0\.weight", rf"{layer}shortcut.convolution.weight"),
        (rf"{block}downsample\.1\.{_PART}", rf"{layer}shortcut.normalization.\2"),
    ]


LAYOUTS = {
    "torchvision-mobilenet_v2": Layout(
        _mobilenet_v2,
        (
            *_mobile(r"features\.0\.", "0,1", "conv_stem.first_conv"),
            *_mobile(r"features\.1\.conv\.", r"0\.0,0\.1", "conv_stem.conv_3x3"),
            *_mobile(r"features\.1\.conv\.", "1,2", "conv_stem.reduce_1x1"),
            *_mobile(r"features\.18\.", "0,1", "conv_1x1"),
            *_mobile(r"features\.(\d+)\.conv\.", r"0\.0,0\.1", r"layer.{\1-2}.expand_1x1"),
            *_mobile(r"features\.(\d+)\.conv\.", r"1\.0,1\.1", r"layer.{\1-2}.conv_3x3"),
            *_mobile(r"features\.(\d+)\.conv\.", "2,3", r"layer.{\1-2}.reduce_1x1"),
            (r"classifier\.1\.(weight|bias)", r"classifier.\1"),
        ),
    ),
    "torchvision-resnet": Layout(
        _resnet,
        (
            (r"conv1\.weight", "resnet.embedder.embedder.convolution.weight"),
            (rf"bn1\.{_PART}", r"resnet.embedder.embedder.normalization.\1"),
            *(pair for number in (1, 2, 3, 4) for pair in _residual(number)),
            (r"fc\.(weight|bias)", r"classifier.1.\1"),
        ),
    ),
}


def convert_file(weights: Path, out: Path, layout: str, *, licence: str, source: str) -> dict[str, str]:
    """Write the checkpoint folder `out`, and return what its conversion.json says.

    Args:
        weights: a file of torch.save.
        out: a new folder.
        layout: one of `LAYOUTS`.
        licence: of the weights, for the model card.
        source: where the file is from, such as a package URL.

    Raises:
        InputError: the file is not there, holds more than tensors, or other ones than the layout's.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    quiet()
    if out.exists():
        raise InputError(out, "it is there already", fix="name another folder")
    state, known = _read(weights), LAYOUTS[layout]
    try:
        config = AutoConfig.for_model(**known.config(state))
    except (KeyError, IndexError) as error:
        raise InputError(weights, f"no {error} in it", expected=f"weights of {layout}", fix="name its layout") from None
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    _fill(model, {_renamed(name, known, weights): tensor for name, tensor in state.items()}, weights)
    model.save_pretrained(out, max_shard_size="1TB")
    size = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
    processor = {"image_processor_type": "BitImageProcessor", "do_convert_rgb": True, **size, **IMAGENET}
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    facts = {
        "file": weights.name,
        "sha256": sha256_file(weights),
        "source": source,
        "layout": layout,
        WEIGHTS: sha256_file(out / WEIGHTS),
    }
    (out / CONVERSION).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    card = (
        f"---\nlicense: {licence}\n---\n# {weights.name}\n\nConverted from {source}; {CONVERSION} has both digests.\n"
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    return facts


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the file by name."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(path, "no such file", expected="a file of torch.save", fix="check the path") from None
    except Exception as error:  # noqa: BLE001  (of many kinds; whatever the reader says, the file is none)
        reason = " ".join(str(error).split()).partition(". ")[0][:160]
        raise InputError(
            path,
            f"torch's weights_only reader refuses it ({reason})",
            expected="tensors by name, and nothing that runs code",
            fix="take a file that holds a state_dict alone",
        ) from None
    for key in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    named = isinstance(found, dict) and all(isinstance(tensor, torch.Tensor) for tensor in found.values())
    if not named or not found:
        raise InputError(path, f"a {type(found).__name__}, no tensors by name", fix="take a file with a state_dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in found.items()}


def _renamed(name: str, layout: Layout, path: Path) -> str:
    for pattern, becomes in layout.names:
        if match := re.fullmatch(pattern, name):
            expanded = match.expand(becomes)
            return re.sub(r"\{(\d+)-(\d+)\}", lambda sum_: str(int(sum_[1]) - int(sum_[2])), expanded)
    raise InputError(f"{path}: {name}", "no tensor of the layout", fix="name the layout of these weights")


def _fill(model: torch.nn.Module, state: State, path: Path) -> None:
    """Put the tensors into the model. Raises InputError unless each has its place and shape, and is finite.

    Only how many batches normalisation has seen may be missing: files of before PyTorch 0.4.1, torchvision's first
    ResNets among them, do not say it.
    """
    import torch

    own = model.state_dict()
    state = {**{name: count for name, count in own.items() if name.endswith(_COUNT)}, **state}
    for name in sorted(own.keys() | state.keys()):
        if name not in state or name not in own:
            lacks = "has no" if name not in state else "has one too many:"
            raise InputError(path, f"it {lacks} {name}", expected="all tensors of the layout, and no other")
        if own[name].shape != state[name].shape:
            shapes = f"{name} is {tuple(state[name].shape)}"
            raise InputError(path, shapes, expected=str(tuple(own[name].shape)), fix="name the layout of these weights")
        if not bool(torch.isfinite(state[name]).all()):
            raise InputError(path, f"{name} is NaN or infinite", fix="get the file again")
    model.load_state_dict(state)
