"""The families of trunks and their objectives. A new family is a folder beside this file, and its lines here.

The folder `x/` holds family.py with `FAMILY`, a `training.Family`; its parameters (without torch) say `family = "x"`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, get_args

from graftline.errors import InputError
from graftline.processes import importing
from graftline.trunks.audio.parameters import AudioRootstockParams, HubertParams, MaskedUnitsParams
from graftline.trunks.conv.parameters import AutoencoderParams, ConvParams, MaskedAutoencoderParams
from graftline.trunks.detector.parameters import DetectorRootstockParams
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.items.parameters import ItemsParams, MaskedItemsParams
from graftline.trunks.parameters import TrunkParams
from graftline.trunks.text.parameters import CausalLMParams, DenoisingParams, MaskedLMParams, TextParams
from graftline.trunks.text.rootstock import RootstockParams
from graftline.trunks.vision.parameters import (
    ConvNextV2Params,
    DenseContrastiveParams,
    ImageRootstockParams,
    MaskedImageParams,
    OrientedGradientsParams,
    ResNetParams,
    VitParams,
)

if TYPE_CHECKING:
    from graftline.dataset import Schema
    from graftline.tasks.pretrain import PretrainParams
    from graftline.trunks.training import Family

AnyObjectiveParams = (
    AutoencoderParams
    | MaskedAutoencoderParams
    | ContrastiveParams
    | DenseContrastiveParams
    | MaskedImageParams
    | OrientedGradientsParams
    | MaskedLMParams
    | CausalLMParams
    | MaskedItemsParams
    | DenoisingParams
    | MaskedUnitsParams
)
AnyTrunkParams = (
    ConvParams
    | VitParams
    | ConvNextV2Params
    | ResNetParams
    | ImageRootstockParams
    | DetectorRootstockParams
    | TextParams
    | RootstockParams
    | ItemsParams
    | HubertParams
    | AudioRootstockParams
)
SizedTrunkParams = TextParams
"""Trunks that can be trained in several sizes, to compare them."""
DEFAULT_OBJECTIVE, DEFAULT_TRUNK, DEFAULT_SIZE = MaskedAutoencoderParams(), ConvParams(), TextParams()


def family_module(trunk: TrunkParams) -> str:
    """Return the module of a trunk's family, which imports all that training it takes."""
    return f"graftline.trunks.{trunk.family}.family"


def family_for(params: PretrainParams, schema: Schema, where: str) -> Family:
    """Return the family of the trunk that is to be learned from a dataset.

    Raises:
        InputError: it cannot be learned from the dataset's columns; `where` are the parameters.
    """
    family = family_of(params.trunk)
    if not isinstance(schema.feature, family.sees):
        fitting = [
            objective.model_fields["name"].default
            for objective in get_args(AnyObjectiveParams)
            if any(isinstance(schema.feature, _load(family).sees) for family in (objective.family, *objective.also))
        ]
        raise InputError(
            f"{where}: pretrain.objective.name",
            params.objective.name,
            expected=" or ".join(fitting),
            fix=f"the dataset's feature '{schema.feature.name}' is {schema.feature.plural}",
        )
    family.check(schema, params)
    return family


def family_of(trunk: TrunkParams) -> Family:
    """Return the family that the trunk is of."""
    return _load(trunk.family)


def _load(name: str) -> Family:
    with importing():
        family: Family = import_module(f"graftline.trunks.{name}.family").FAMILY
    return family
