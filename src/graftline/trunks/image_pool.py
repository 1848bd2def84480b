"""The images that a trunk learns from, and which of them show one thing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq
import torch
from pyarrow.types import is_nested

from graftline.dataset import UNLABELLED, numbered
from graftline.errors import InputError
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.parameters import ObjectiveParams
from graftline.values.pixels import Pixels
from graftline.values.splits import read_images


@dataclass(frozen=True, eq=False)
class Pool:
    """Images without labels."""

    pixels: Pixels
    """n images."""
    groups: torch.Tensor | None = None
    """(n,) int64 numbers: images of an equal one show one thing. None where each shows another."""

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the images at the (k,) places `chosen`: (k, channels, height, width), 0 to 1."""
        return torch.from_numpy(self.pixels[chosen.numpy()])

    def companions(self, chosen: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Return for each of the (k,) places one of the images that show the same, drawn evenly: itself among them."""
        assert self.groups is not None
        order, starts, sizes = self._members
        group = self.groups[chosen]
        place = (torch.rand(len(chosen), generator=draw) * sizes[group]).long()
        return order[starts[group] + place]

    @cached_property
    def _members(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Places in the groups' order, and where each group starts there and how many it has."""
        assert self.groups is not None
        sizes = self.groups.bincount()
        return self.groups.argsort(stable=True), sizes.cumsum(0) - sizes, sizes


def read_pool(dataset: Path, objective: ObjectiveParams | None = None) -> Pool:
    """Return the unlabelled images of a dataset, in the groups that the objective names a column for, if it does.

    Raises:
        InputError: the pool has no such column, or as `read_split` does.
    """
    pixels = read_images(dataset, UNLABELLED).pixels
    if not isinstance(objective, ContrastiveParams) or objective.group is None:
        return Pool(pixels)
    return Pool(pixels, _groups(dataset / f"{UNLABELLED}.parquet", objective.group))


def _groups(path: Path, column: str) -> torch.Tensor:
    columns = [field.name for field in pq.read_schema(path) if field.name != "row" and not is_nested(field.type)]
    if column not in columns:
        raise InputError(
            "pretrain.objective.group",
            f"{column!r}, which is no column of the pool whose values are groups",
            expected=f"one of {', '.join(columns)}" if columns else "null: no column of the pool says groups",
            fix="name the column of the contract that says what belongs together; labels are not in the pool",
        )
    return torch.from_numpy(numbered(pq.read_table(path, columns=["row", column]).sort_by("row")[column]))
