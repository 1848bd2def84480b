"""What every family of image trunks gives to heads on images: trunks, their objective, and models with a layer on top.

A family's folder holds images.py with `IMAGES`, an `ImageFamily`; trunk.json and head.json say the kind of a trunk.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from graftline.errors import InputError
from graftline.trunks import CONFIG, load_weights, read_config
from graftline.trunks.image_training import OBJECTIVE_WEIGHTS

if TYPE_CHECKING:
    from torch import nn

    from graftline.trunks.image_objective import ImageObjective
    from graftline.trunks.image_trunk import ImageTrunk

KINDS = ("conv", "vision", "detector")
"""Folders of families; the first is that of trunks that do not say their kind, as those of earlier versions."""


class ImageFamily(Protocol):
    """One family of image trunks. Each method raises KeyError, TypeError or ValueError for a config that is not its."""

    trunk: ClassVar[type[ImageTrunk]]

    def load(self, folder: Path, config: dict[str, Any], *, weights: bool) -> ImageTrunk:
        """Return the trunk in its folder, or with `weights=False` an untrained one. Raises InputError."""

    def objective(self, params: dict[str, Any], trunk: Any, dtype: str) -> ImageObjective:
        """Return the objective of these parameters around a trunk, its own layers untrained."""

    def restore(self, folder: Path, config: dict[str, Any], outputs: int) -> tuple[ImageTrunk, nn.Linear]:
        """Return the trunk and the layer on it that `save_with` wrote. Raises InputError."""

    def restore_alone(self, folder: Path, config: dict[str, Any]) -> ImageTrunk:
        """Return the trunk that `save_alone` wrote. Raises InputError."""


def image_family(kind: str) -> ImageFamily:
    """Return the family of a kind. Raises ValueError: there is none."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of image trunk")
    family: ImageFamily = import_module(f"graftline.trunks.{kind}.images").IMAGES
    return family


def narrows_on_cpu(folder: Path) -> bool:
    """Return what the image trunk in `folder` says of the arithmetic `auto`. Raises InputError: there is none."""
    return image_family(read_config(folder, *KINDS)["kind"]).trunk.narrow_on_cpu


def load_trunk(folder: Path, *, weights: bool = True) -> ImageTrunk:
    """Return the image trunk in `folder`, or with `weights=False` an untrained one of its shape.

    Raises:
        InputError: the config is not one, or the weights do not fit it.
    """
    config = read_config(folder, *KINDS)
    try:
        return image_family(config["kind"]).load(folder, config["trunk"], weights=weights)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(folder / CONFIG, f"not a trunk's config ({error!r})", fix="run pretrain again") from None


def load_objective(folder: Path, trunk: ImageTrunk, dtype: str, *, scratch: bool) -> ImageObjective:
    """Return the objective that made the trunk in `folder`, around another trunk of its shape.

    Raises:
        InputError: the config is not one, or the weights of the objective's layers do not fit it.
    """
    config = read_config(folder, *KINDS)
    try:
        objective = image_family(config["kind"]).objective(config["objective"], trunk, dtype)
    except (KeyError, TypeError, ValueError) as error:
        found = f"not an objective's parameters ({type(error).__name__})"
        raise InputError(folder / CONFIG, found, fix="run pretrain again") from None
    if not scratch:
        load_weights(objective.head, folder / OBJECTIVE_WEIGHTS, fix="run pretrain again")
    return objective


def load_with_output(folder: Path, config: dict[str, Any], outputs: int) -> tuple[ImageTrunk, nn.Linear]:
    """Return the trunk and the layer on it that a model was saved as; `config` is the trunk's."""
    return image_family(config.get("kind", KINDS[0])).restore(folder, config, outputs)


def load_alone(folder: Path, config: dict[str, Any]) -> ImageTrunk:
    """Return the trunk of a model that has no layer of the trunk's family on it; `config` is the trunk's."""
    return image_family(config.get("kind", KINDS[0])).restore_alone(folder, config)
