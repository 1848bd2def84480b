"""Raw data of the task `emoji`: three designers' pictures of the emoji of Unicode 16, out of packages of npm.

    noto      Noto Emoji by Google (Apache-2.0), in emoji-datasource-google: PNGs of 64 x 64
    twemoji   Twemoji by Twitter and jdecked (CC-BY-4.0), in emoji-datasource-twitter: PNGs of 64 x 64
    fluent    Fluent Emoji, 3D, by Microsoft (MIT), in @lobehub/fluent-emoji-3d: WebP of 256 x 256

emoji.json in the first says to which of Unicode's groups an emoji belongs (UTS 51, emoji-test.txt).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image as Picture

from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.importers.packages import download_npm, encode_table, read_source, tarball_members
from graftline.raw.media import ENCODED

PACKAGES = {
    "noto": ("emoji-datasource-google@16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"),
    "twemoji": ("emoji-datasource-twitter@16.0.0", "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"),
    "fluent": ("@lobehub/fluent-emoji-3d@1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"),
}
"""Each designer's package, and the sha256 of its tarball."""
SIZE = 32
"""Height and width of what is written, in pixels."""
EMOJI = "emoji.parquet"
_FACTS = "package/emoji.json"
_IMAGES = {"noto": "package/img/google/64/", "twemoji": "package/img/twitter/64/", "fluent": "package/assets/"}
_PERSON, _GENDERS = "1F9D1", ("1F468", "1F469")
"""A person; a man, a woman."""
_SIGNS = ("200D", "FE0F", "2640", "2642", "27A1")
"""What joins code points, asks for colours, or says female, male, to the right."""
_NO_GROUP = "Component"
"""Skin tones by themselves."""
_NOT_DRAWN = ("fluent", "country-flag")
"""Microsoft draws no flags of countries: those in the package are somebody else's."""


class Drawn(NamedTuple):
    """One emoji, drawn by one designer."""

    emoji: str
    """Its code points: `1F600`, with hyphens between several."""
    group: str
    subgroup: str
    designer: str
    picture: bytes
    """As the package has it."""


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/emoji.parquet and return its path; equal bytes on every run with one pyarrow and one Pillow.

    Columns: `image` (PNG of 32 x 32 on white, with its path), and the strings `group`, `subgroup`, `emoji`, `base`,
    `designer`.
    `source` is a folder with the packages' tarballs, as `npm pack` names them; without it they are downloaded.

    Raises:
        InputError: `source` does not hold the expected files.
        GraftlineError: a package could not be downloaded.
    """
    path = out / EMOJI
    files = {designer: fetch(designer, source) for designer in PACKAGES}
    columns = ["group", "subgroup", "emoji", "base", "designer"]
    write_atomic(path, encode_table(as_table(list(drawn(files))), columns, group_rows=1000))
    return path


def fetch(designer: str, source: Path | None) -> dict[str, bytes]:
    """Return the files of a designer's package by path. Raises as `write` does."""
    package, digest = PACKAGES[designer]
    name = tarball_name(package)
    wanted = f"a folder with {name}, which `npm pack {package}` writes"
    tarball = download_npm(package, wanted) if source is None else read_source(source / name, wanted)
    return tarball_members(tarball, source / name if source else package, digest)


def tarball_name(package: str) -> str:
    """Return the name that `npm pack` gives a package's file: `lobehub-fluent-emoji-3d-1.1.0.tgz`."""
    name, _, version = package.rpartition("@")
    return f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def drawn(files: dict[str, dict[str, bytes]]) -> Iterator[Drawn]:
    """Yield all pictures, in Unicode's order of the emoji; without variants of skin tone, which differ in colour only.

    Raises:
        InputError: emoji.json is not as expected.
    """
    try:
        known = sorted(json.loads(files["noto"][_FACTS]), key=lambda emoji: emoji["sort_order"])
        named = {_bare(Path(path).stem): path for path in files["fluent"] if path.startswith(_IMAGES["fluent"])}
        for emoji in known:
            for designer in PACKAGES if emoji["category"] != _NO_GROUP else ():
                at = _IMAGES[designer] + emoji["image"]
                path = named.get(_bare(emoji["unified"]), "") if designer == "fluent" else at
                if path in files[designer] and (designer, emoji["subcategory"]) != _NOT_DRAWN:
                    group, subgroup = emoji["category"], emoji["subcategory"]
                    yield Drawn(emoji["unified"], group, subgroup, designer, files[designer][path])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(_FACTS, f"not as expected ({error!r})", fix="take the right version") from None


def _bare(code: str) -> str:
    """Return an emoji's code points without what asks for its colours: packages differ in where they write that."""
    return code.lower().replace("-fe0f", "").lstrip("0")


def base(code: str) -> str:
    """Return what an emoji shows without whose gender and which direction: `1F9D1-2695`, a health worker.

    Pictures of one base are much alike, also of one designer, and are not to stand in two splits.
    """
    parts = [_PERSON if part in _GENDERS else part for part in code.split("-")]
    return "-".join(part for part in parts if part not in _SIGNS)


def small(picture: bytes) -> bytes:
    """Return the picture as a PNG of 32 x 32 pixels without transparency, on white."""
    with Picture.open(io.BytesIO(picture), formats=["PNG", "WEBP"]) as opened:
        shown = opened.convert("RGBA")
    page = Picture.new("RGBA", shown.size, "white")
    page.alpha_composite(shown)
    file = io.BytesIO()
    page.convert("RGB").resize((SIZE, SIZE), Picture.Resampling.LANCZOS).save(file, "PNG", optimize=True)
    return file.getvalue()


def as_table(found: list[Drawn]) -> pa.Table:
    """Return one row a picture."""
    images: list[dict[str, Any]] = [
        {"bytes": small(one.picture), "path": f"{one.designer}/{one.emoji.lower()}.png"} for one in found
    ]
    return pa.table(
        {
            "image": pa.array(images, ENCODED),
            "group": pa.array([one.group for one in found], pa.string()),
            "subgroup": pa.array([one.subgroup for one in found], pa.string()),
            "emoji": pa.array([one.emoji for one in found], pa.string()),
            "base": pa.array([base(one.emoji) for one in found], pa.string()),
            "designer": pa.array([one.designer for one in found], pa.string()),
        }
    )
