"""JPEGs as cameras' and libraries' defaults write them, without Pillow's walk through the header.

Of a small picture that walk is a quarter of the time: it takes quantisation tables apart that only writing needs. What
stands in the header here is sizes; whatever else does, such as EXIF, a colour profile or CMYK, is left to Pillow.
ITU-T T.81 (1992), annex B.
"""

from __future__ import annotations

from PIL import ImageFile, JpegImagePlugin

_START_OF_SCAN, _QUANTISATION = 0xDA, 0xDB
_FRAMES = (0xC0, 0xC2)
"""Baseline and progressive."""
_WITHOUT_EFFECT = (0xC4, 0xDD, 0xE0, 0xFE)
"""Huffman tables and restart intervals, which the decoder reads itself; JFIF's density; comments."""
_MODES = {11: (1, "L"), 17: (3, "RGB")}
"""Length of a frame's header to its number of components, and Pillow's name of the mode."""
_TABLE = 65
"""Bytes of a quantisation table of 8 bits: its number, and 64 divisors."""


def header(data: bytes) -> tuple[int, int, str] | None:
    """Return width, height and mode of a JPEG of 8 bits in grey or colour; None for any other content."""
    if not data.startswith(b"\xff\xd8"):
        return None
    found, place, last = None, 2, len(data) - 10
    while place <= last and data[place] == 0xFF:
        marker, length = data[place + 1], data[place + 2] << 8 | data[place + 3]
        if marker == _START_OF_SCAN:
            return found
        if marker in _FRAMES:
            components, mode = _MODES.get(length, (0, ""))
            height, width = data[place + 5] << 8 | data[place + 6], data[place + 7] << 8 | data[place + 8]
            if found or data[place + 4] != 8 or data[place + 9] != components or not (width and height):
                return None
            found = width, height, mode
        elif marker == _QUANTISATION:
            tables = data[place + 4 : place + 2 + length : _TABLE]
            if (length - 2) % _TABLE or any(number > 3 for number in tables):
                return None
        elif marker not in _WITHOUT_EFFECT or length < 2:
            return None
        place += 2 + length
    return None


class PlainJpeg(JpegImagePlugin.JpegImageFile):
    """Raises SyntaxError, as Pillow's plugins do, for content that `header` does not know."""

    def _open(self) -> None:
        assert self.fp is not None
        found = header(self.fp.getvalue())  # type: ignore[attr-defined]
        if found is None:
            raise SyntaxError
        width, height, self._mode = found
        self._size = width, height
        self.tile = [ImageFile._Tile("jpeg", (0, 0, width, height), 0, (self._mode, ""))]
