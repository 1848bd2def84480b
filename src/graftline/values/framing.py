"""Where the points of a picture lie in the image that it becomes: boxes and masks are turned, scaled and cut with it.

Points are (x, y) in pixels, from the upper left corner of the upper left pixel. Decoding (values/decoding.py) does to
pixels what this does to points. A JPEG that is decoded at a half of its size or less differs by less than a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
from PIL import Image as Picture

from graftline.values.decoding import Rule, sized

_TURNS: Mapping[int, tuple[Picture.Transpose, tuple[int, ...]]] = MappingProxyType({
    2: (Picture.Transpose.FLIP_LEFT_RIGHT, (-1, 0, 0, 1)), 3: (Picture.Transpose.ROTATE_180, (-1, 0, 0, -1)),
    4: (Picture.Transpose.FLIP_TOP_BOTTOM, (1, 0, 0, -1)), 5: (Picture.Transpose.TRANSPOSE, (0, 1, 1, 0)),
    6: (Picture.Transpose.ROTATE_270, (0, -1, 1, 0)), 7: (Picture.Transpose.TRANSVERSE, (0, -1, -1, 0)),
    8: (Picture.Transpose.ROTATE_90, (0, 1, -1, 0)),
})  # fmt: skip
"""What EXIF's orientations do to a picture that lies, and the same as a matrix, row by row, on (x, y)."""


@dataclass(frozen=True)
class Framing:
    """The way of a picture's points: turned upright, then scaled and shifted."""

    width: int
    """Of the upright picture, as is the height."""
    height: int
    rule: Rule
    orientation: int = 1
    """EXIF's: how points are turned; 1 for those of the upright picture."""

    @classmethod
    def of(cls, lying: tuple[int, int], orientation: int, rule: Rule) -> Self:
        """Return that of a picture which lies with this width and height; `orientation` says how it stands."""
        width, height = lying if orientation < 5 else lying[::-1]
        return cls(width, height, rule, orientation)

    @property
    def _scaled(self) -> tuple[np.ndarray, np.ndarray]:
        """What points of the upright picture are multiplied by, and what is added then: (2,) each, for x and y.

        It follows Pillow's ImageOps.fit and ImageOps.pad, with their rounding.
        """
        size, to = np.array([self.width, self.height], float), np.array([self.rule.width, self.rule.height], float)
        if self.rule.resize == "crop":
            scale = np.full(2, (to / size).max())
            return scale, (to - size * scale) / 2
        if self.rule.resize == "pad":
            fitted, ratio, wanted = to.copy(), size[0] / size[1], to[0] / to[1]
            if ratio > wanted:
                fitted[1] = round(size[1] / size[0] * to[0])
            elif ratio < wanted:
                fitted[0] = round(size[0] / size[1] * to[1])
            return fitted / size, np.array([round(gap * 0.5) for gap in (to - fitted).tolist()], float)
        stretched: np.ndarray = to / size
        return stretched, np.zeros(2)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Return (n, 2) float64 points of the picture, as it lies, in the image."""
        points = np.asarray(points, np.float64)
        if self.orientation in _TURNS:
            matrix = np.array(_TURNS[self.orientation][1], float).reshape(2, 2)
            points = points @ matrix.T + np.where(matrix.sum(axis=1) < 0, [self.width, self.height], 0)
        scale, shift = self._scaled
        placed: np.ndarray = points * scale + shift
        return placed

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Return (n, 4) boxes (x0, y0, x1, y1) in the image; they may reach over its border."""
        corners = self.points(np.asarray(boxes, np.float64).reshape(-1, 2)).reshape(-1, 2, 2)
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    def boxes_back(self, boxes: np.ndarray) -> np.ndarray:
        """Return (n, 4) boxes in the upright picture of those in the image, cut at its border."""
        scale, shift = self._scaled
        back = (np.asarray(boxes, np.float64).reshape(-1, 2, 2) - shift) / scale
        found: np.ndarray = back.clip(0, [self.width, self.height]).reshape(-1, 4)
        return found

    def mask_back(self, mask: np.ndarray) -> np.ndarray:
        """Return the mask of the upright picture, (height, width) uint8, of one of the image: the nearest pixels."""
        (across, down), (left, top) = (each.tolist() for each in self._scaled)
        picture = Picture.fromarray(np.ascontiguousarray(mask, np.uint8))
        size, affine = (self.width, self.height), (across, 0, left, 0, down, top)
        found: np.ndarray = np.asarray(picture.transform(size, Picture.Transform.AFFINE, affine))
        return found

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return a (height, width) uint8 mask of the picture, as it lies, as one of the image: the nearest pixels."""
        picture = Picture.fromarray(np.ascontiguousarray(mask))
        if self.orientation in _TURNS:
            picture = picture.transpose(_TURNS[self.orientation][0])
        found: np.ndarray = np.asarray(sized(picture, self.rule, Picture.Resampling.NEAREST))
        return found
