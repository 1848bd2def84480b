"""A public model of speech as a trunk's start: what it must be to be one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftline.errors import InputError, nearest
from graftline.trunks.audio.parameters import PROCESSOR
from graftline.trunks.audio.trunk import WITHOUT_CHANCE
from graftline.trunks.rootstock import CONFIG, check_plain, load, read_architecture, read_object

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from graftline.values.audio import AudioColumn

ARCHITECTURES = ("hubert", "wav2vec2")
_UNUSED = "masked_spec_embed"
"""A vector for hidden frames, which checkpoints that were made for recognition lack."""


def open_checkpoint(folder: Path, audio: AudioColumn) -> PreTrainedModel:
    """Return the checkpoint in `folder` as a trunk for such clips, without the layer of its own task.

    Raises:
        InputError: it is of another architecture or rate, or scales clips in another way; a file is damaged; a tensor
            is missing, has another shape than the config says, or is not finite.
    """
    check_plain(folder)
    architecture = read_object(folder / CONFIG).get("model_type")
    if architecture not in ARCHITECTURES:
        found = f"model_type {architecture!r}{nearest(str(architecture), list(ARCHITECTURES))}"
        raise InputError(folder / CONFIG, found, expected=" or ".join(ARCHITECTURES))
    if read_object(folder / CONFIG).get("add_adapter"):
        raise InputError(
            folder / CONFIG, "add_adapter true: layers that take frames away behind the trunk", expected="false",
            fix="choose another checkpoint",
        )  # fmt: skip
    path = folder / PROCESSOR
    if not path.is_file():
        raise InputError(
            path, "the file is missing", expected="sampling_rate and do_normalize, as the model was trained"
        )
    processor = read_object(path)
    if processor.get("sampling_rate") != audio.rate:
        raise InputError(
            path, f"sampling_rate {processor.get('sampling_rate')}, the dataset's clips have {audio.rate}",
            expected="the same", fix=f"set `rate` of the column '{audio.name}' in the contract",
        )  # fmt: skip
    if processor.get("do_normalize") is not True:
        raise InputError(
            path, f"do_normalize {processor.get('do_normalize')}", expected="true: clips at mean 0 and deviation 1",
            fix="choose another checkpoint",
        )  # fmt: skip
    network = load(folder, "AutoModel", lambda name: name.endswith(_UNUSED), config=_config(folder))
    network.set_attn_implementation("sdpa")
    return network


def _config(folder: Path) -> PreTrainedConfig:
    """Return the checkpoint's configuration without dropout, which its layers take when they are made."""
    config = read_architecture(folder, "a model of speech")
    for name, value in WITHOUT_CHANCE.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config
