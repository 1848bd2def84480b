"""Vision trunks for heads on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import TypeAdapter
from torch import nn

from graftline.errors import InputError
from graftline.trunks.image_objective import ImageObjective
from graftline.trunks.rootstock import CONFIG, load
from graftline.trunks.vision.objectives import build_objective
from graftline.trunks.vision.parameters import VisionObjectiveParams
from graftline.trunks.vision.trunk import AUTO, Scale, VisionTrunk, build_network, is_of_head, last_linear, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class VisionImages:
    """An `images.ImageFamily`."""

    trunk: ClassVar = VisionTrunk

    def load(
        self, folder: Path, config: dict[str, Any], *, weights: bool, fix: str = "run pretrain again"
    ) -> VisionTrunk:
        found = read_config(folder)
        return _of(load(folder, AUTO, is_of_head, config=found, fix=fix) if weights else build_network(found), config)

    def objective(self, params: dict[str, Any], trunk: VisionTrunk, dtype: str) -> ImageObjective:
        chosen: VisionObjectiveParams = TypeAdapter(VisionObjectiveParams).validate_python(params)
        return build_objective(trunk, chosen, dtype)

    def restore(self, folder: Path, config: dict[str, Any], outputs: int) -> tuple[VisionTrunk, nn.Linear]:
        network = load(folder, AUTO, lambda name: False, config=read_config(folder), fix="run finetune again")
        output = network.get_submodule(last_linear(network))
        assert isinstance(output, nn.Linear)
        if output.out_features != outputs:
            found = f"a model of {output.out_features} outputs"
            raise InputError(folder / CONFIG, found, expected=str(outputs), fix="run finetune again")
        return _of(network, config), output

    def restore_alone(self, folder: Path, config: dict[str, Any]) -> VisionTrunk:
        return self.load(folder, config, weights=True, fix="run finetune again")


def _of(network: PreTrainedModel, config: dict[str, Any]) -> VisionTrunk:
    height, width = config["shape"]
    return VisionTrunk(network, Scale.read(config), (int(height), int(width)))


IMAGES = VisionImages()
