"""HEAD.md: what head.safetensors computes, for those who open a release without Graftline."""

from __future__ import annotations

from pathlib import Path

from graftline.problems.detection.head import BOX, GROUPS, LARGEST, LAYERS, DenseHead
from graftline.trunks.image_trunk import ImageTrunk

NAME = "HEAD.md"


def write(folder: Path, trunk: ImageTrunk, head: DenseHead, first: int) -> None:
    """Write the page; `first` is how many of the trunk's finest maps the head leaves out."""
    (folder / NAME).write_text(_page(trunk, head, first), encoding="utf-8")


def _page(trunk: ImageTrunk, head: DenseHead, first: int) -> str:
    grid, classes, prototypes = head.grid, head.classes, head.count
    left_out = f" Leave out the {first} finest." if first else ""
    masks = ""
    if prototypes:
        masks = f"""
## Masks

`prototypes` (1 x 1, of the same values as `output`), then PyTorch's `pixel_shuffle` by {grid.stride}, cut to the size
of the image: {prototypes} pictures. A pixel inside an object's box is of the object where the sum of the pictures, each
times its weight at the object's place, is above 0.
"""
    return f"""# The head

`head.safetensors` finds objects on maps of the trunk. head.json has the classes' names, in order, and `threshold`, the
probability from which on a box is an answer.

## Maps

{trunk.how_to_map}

The maps are ordered from fine to coarse.{left_out}

## Layers

1. `lateral.N` (1 x 1) of map N. From the coarsest on: enlarge (nearest) to the size of the next finer one, and add.
2. Enlarge (nearest) to {grid.rows} x {grid.columns} places, if it is smaller or larger.
3. {LAYERS} times: `layers.N` (3 x 3, padding 1), `norms.N` (group normalisation, {GROUPS} groups), GELU.
4. `output` (1 x 1): {classes} logits of the classes, {BOX} numbers of the box, {prototypes} weights of the mask.

## Boxes

An object is at each place where the sigmoid of a class's logit is the largest of its 3 x 3 neighbours. The middle
of that place is x = (column + 0.5) * {grid.stride}, y = (row + 0.5) * {grid.stride} in pixels. Of its numbers
a, b, c, d:

- the middle of the box is x + {grid.stride} a, y + {grid.stride} b;
- its width and height are `size` times exp(c) and exp(d), where c and d are cut at -{LARGEST:g} and {LARGEST:g}.

Boxes are cut at the border of the image, {head.shape[0]} x {head.shape[1]} pixels (height x width). Of two boxes of one
class with an IoU above `overlap` (head.json) the less probable one is dropped.
{masks}"""
