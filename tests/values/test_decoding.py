"""One picture from bytes to pixels: what each format, mode and rule gives, and what is said of it."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from pictures import SHAPE, SUFFIX, broken, encode, noise, png, turned
from PIL import Image

from graftline.values import decoding
from graftline.values.decoding import CHANGES, BadPictureError, Rule, decode, decode_all, upright

COLOUR = Rule(*SHAPE, "rgb")
GREY = Rule(*SHAPE, "grey")
LOSSLESS = {"PNG": {}, "TIFF": {}, "BMP": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_picture_is_its_pixels_whatever_encodes_it(kind: str) -> None:
    pixels, changes = decode(encode(noise(0), kind, **LOSSLESS[kind]), f"a{SUFFIX[kind]}", COLOUR)
    assert np.array_equal(pixels, np.asarray(noise(0))) and changes == []


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_a_lossy_picture_is_what_pillow_decodes(kind: str) -> None:
    pixels, _ = decode(encode(noise(0), kind), None, COLOUR)
    assert np.abs(pixels.astype(int) - np.asarray(noise(0))).mean() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_on_its_side_is_turned_as_viewers_turn_it(kind: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    lying, _ = decode(encode(noise(0), kind, **options), None, COLOUR)
    pixels, changes = decode(turned(noise(0), kind), None, COLOUR)
    assert changes == ["turned"]
    assert np.abs(pixels.astype(int) - lying).mean() < 12


GREY16 = Image.fromarray(np.arange(24 * 32, dtype=np.uint16).reshape(SHAPE) * 85)
ONE_BIT = noise(0, 1).convert("1")
HALF = noise(0)
HALF.putalpha(Image.new("L", HALF.size, 128))


@pytest.mark.parametrize(
    ("data", "changes", "expected"),
    [
        (encode(noise(0, 1), "PNG"), {"to_colour"}, np.repeat(np.asarray(noise(0, 1))[..., None], 3, 2)),
        (encode(GREY16, "PNG"), {"sixteen_bits", "to_colour"}, np.asarray(GREY16)[..., None] >> 8),
        (encode(GREY16, "TIFF"), {"sixteen_bits", "to_colour"}, np.asarray(GREY16)[..., None] >> 8),
        (png(32, 24, (b"\0" + b"\x12\x34" * 96) * 24, 16), {"sixteen_bits"}, np.full((24, 32, 3), 0x12)),
        (encode(Image.fromarray(np.asarray(GREY16) >> 4), "PNG"), {"twelve_bits", "to_colour"}, None),
        (encode(ONE_BIT, "PNG"), {"bilevel", "to_colour"}, np.asarray(ONE_BIT)[..., None] * 255),
        (encode(HALF, "PNG"), {"transparency"}, (np.asarray(noise(0)).astype(int) * 128 + 255 * 127) / 255),
        (encode(HALF, "WEBP", lossless=True), {"transparency"}, None),
        (encode(noise(0).convert("P"), "PNG"), {"palette"}, np.asarray(noise(0).convert("P").convert("RGB"))),
        (encode(noise(0).convert("P"), "PNG", transparency=0), {"palette", "transparency"}, None),
        (encode(noise(0, 1), "PNG", transparency=3), {"transparency", "to_colour"}, None),
        (encode(noise(0).convert("CMYK"), "TIFF"), {"cmyk"}, None),
        (encode(noise(0).convert("CMYK"), "JPEG"), {"cmyk"}, None),
        (encode(noise(0), "GIF", save_all=True, append_images=[noise(1)]), {"first_frame", "palette"}, None),
        (encode(noise(0), "WEBP", save_all=True, append_images=[noise(1)]), {"first_frame"}, None),
        (encode(noise(0), "TIFF", save_all=True, append_images=[noise(1)]), {"first_frame"}, np.asarray(noise(0))),
        (encode(noise(0), "PNG", icc_profile=b"a camera's own"), {"colour_profile"}, np.asarray(noise(0))),
    ],
)
def test_each_conversion_follows_its_rule_and_is_named(data: bytes, changes: set[str], expected: np.ndarray) -> None:
    pixels, done = decode(data, None, COLOUR)
    assert set(done) == changes and len(done) == len(changes) and changes <= CHANGES.keys()
    if expected is not None:
        assert np.abs(pixels.astype(int) - expected).max() <= 1
    else:
        assert pixels.std() > 1


def test_grey_is_the_usual_mixture_and_said() -> None:
    pixels, changes = decode(encode(noise(0), "PNG"), None, GREY)
    red, green, blue = np.asarray(noise(0)).astype(float).transpose(2, 0, 1)
    assert changes == ["to_grey"]
    assert np.abs(pixels[..., 0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_another_size_becomes_the_size_by_the_rule(resize: str) -> None:
    """A white bar on the left of a wide picture: cut off, small between black bars, or as broad as it was."""
    wide = Image.new("L", (128, 32))
    wide.paste(255, (0, 0, 32, 32))
    pixels, changes = decode(encode(wide, "PNG"), None, Rule(32, 32, "grey", resize))
    square = pixels[..., 0]
    assert changes == [resize] and square.shape == (32, 32)
    assert {"crop": square.max() == 0, "pad": square[:11].max() == 0, "stretch": square[:, :7].min() > 200}[resize]
    assert {"crop": True, "pad": square[14:18, :6].min() > 200, "stretch": square[:, 10:].max() < 60}[resize]


@pytest.mark.parametrize("name", broken())
def test_a_broken_file_is_no_picture_and_a_word_says_why(name: str) -> None:
    data, word = broken()[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadPictureError) as caught:
        decode(data, name, GREY)
    assert word in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10, "KiB: nothing large was decoded"


def test_bad_pictures_stand_between_good_ones_as_zeros() -> None:
    data = encode(noise(0), "PNG")
    found = decode_all([(data, "a.png"), (b"", "b.png"), (None, None), (None, "gone.png"), (data, None)], GREY)
    assert found.bad == {1: "empty (0 bytes)", 3: "no such file here"} and found.changes == {"to_grey": 2}
    assert [picture.any() for picture in found.pixels] == [True, False, False, False, True]


def test_a_picture_that_is_too_large_is_not_decoded_for_its_orientation(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(noise(0), "PNG") + b"eXIf"
    assert upright(data) == (noise(0).size, 1)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    with pytest.raises(BadPictureError, match="more than 100"):
        upright(data)
