"""Commands about tasks and releases: paths where names belong, releases that are not there, bad images."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import Call, Parts, run_here
from PIL import Image

from graftline.environment import ROOT

Refused = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """What predict is given, and what the refusal says."""

    name: str
    make: Callable[[Path], object]
    says: tuple[str, ...]


def grey(shape: tuple[int, int] = (28, 28)) -> Image.Image:
    return Image.fromarray(np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape))


def cut(path: Path) -> None:
    grey().save(path)
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path: Path) -> None:
    grey().save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def jpeg(path: Path) -> None:
    grey().save(path, "JPEG")


def huge(path: Path) -> None:
    """Write the head of a PNG that says it has 100,000 x 100,000 pixels (a decompression bomb)."""
    grey().save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def pixels(values: list[Any], name: str = "image") -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table({name: values}), path)


CASES = {
    "a PNG that is cut": Case("a.png", cut, ("a.png: truncated; expected a picture of 28 x 28 pixels",)),
    "a PNG with a flipped bit": Case("a.png", flipped, ("a.png: damaged (",)),
    "a PNG of 0 bytes": Case("a.png", lambda path: path.write_bytes(b""), ("a.png: empty (0 bytes)",)),
    "a PNG of another size": Case(
        "a.png",
        lambda path: grey((32, 28)).save(path),
        ("a.png: 32 x 28 pixels, not 28 x 28; expected a picture of 28 x 28 pixels",),
    ),
    "a PNG of ten billion pixels": Case("a.png", huge, ("a.png: more than 67108864 pixels",)),
    "a JPEG named PNG": Case("a.png", jpeg, ("a.png: JPEG with the ending .png",)),
    "text named PNG": Case(
        "a.png", lambda path: path.write_text("seven"), ("a.png: not a picture: it starts with b'seven'",)
    ),
    "a text file": Case(
        "a.txt",
        lambda path: path.write_text("seven"),
        ("a.txt: a file of type '.txt'; expected a picture (JPEG, PNG, WEBP, TIFF, BMP, GIF), Parquet",),
    ),
    "a missing path": Case("a.png", lambda path: None, ("a.png: no such file or folder; check the path",)),
    "a folder without images": Case(
        "folder",
        lambda path: path.mkdir(),
        ("folder: no images; expected a picture (JPEG, PNG, WEBP, TIFF, BMP, GIF)",),
    ),
    "text named Parquet": Case(
        "a.parquet",
        lambda path: path.write_text("image\n"),
        ("a.parquet: ", "expected Parquet with a column 'image' of pictures"),
    ),
    "Parquet without the column": Case(
        "a.parquet",
        pixels([[0] * 784], "picture"),
        ("a.parquet: ", "expected Parquet with a column 'image' of pictures"),
    ),
    "Parquet of another size": Case(
        "a.parquet", pixels([[0] * 783]), ("a.parquet: row 0: column 'image' has 783 pixels; expected 784 a row",)
    ),
    "Parquet with ragged rows": Case(
        "a.parquet",
        pixels([[0] * 783, [0] * 785]),
        ("a.parquet: row 0: column 'image' has 783 pixels; expected 784 a row",),
    ),
    "Parquet with a missing image": Case(
        "a.parquet", pixels([[0] * 784, None]), ("a.parquet: row 1: column 'image' has 0 pixels; expected 784 a row",)
    ),
    "Parquet with pixels above the range": Case(
        "a.parquet",
        pixels([[256] * 784]),
        ("a.parquet: column 'image' has values outside the range; expected 0 to 255",),
    ),
    "Parquet with NaN": Case(
        "a.parquet", pixels([[float("nan")] * 784]), ("a.parquet: column 'image' has values outside the range",)
    ),
    "Parquet with words": Case("a.parquet", pixels([["a"] * 784]), ("a.parquet: ", "of pictures or lists of numbers")),
    "Parquet without rows": Case(
        "a.parquet",
        lambda path: pq.write_table(pa.table({"image": pa.array([], pa.list_(pa.uint8()))}), path),
        ("a.parquet: no images",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_predict_refuses_what_is_no_image(name: str, parts: Parts, tmp_path: Path, refused: Refused) -> None:
    case = CASES[name]
    path = tmp_path / case.name
    case.make(path)
    refused(
        Call("graftline", ("predict", "--store", str(parts.store), "digits", str(path)), (path, parts.store)),
        *case.says,
    )


REFERENCES = {
    "cats@champion": ("cats", "no "),
    "digits@nightly": ("task 'digits': no alias 'nightly'", "1"),
    "digits@7": ("task 'digits': no version 7; expected one of the versions 1",),
    "digits@0": ("task 'digits': no version 0",),
    "digits@": ("release 'digits@'", "expected task@version or task@alias"),
    "digits@../1": ("release 'digits@../1'", "expected task@version or task@alias"),
    "../digits@1": ("task: '../digits'; expected a name of lower-case letters",),
    "digits@99999999999999999999": ("release 'digits@99999999999999999999'", "expected task@version or task@alias"),
    "digits@²": ("release 'digits@²'", "expected task@version or task@alias"),
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_release_that_is_not_there_is_refused(reference: str, parts: Parts, tmp_path: Path, refused: Refused) -> None:
    grey().save(tmp_path / "a.png")
    arguments = ("predict", "--store", str(parts.store), reference, str(tmp_path / "a.png"))
    refused(Call("graftline", arguments, (parts.store,)), *REFERENCES[reference])


COMMANDS = {
    "a task that leaves the repository": (
        ("run", "../../etc"),
        ("data: no task '../../etc'", "glosses, help, mnist", "graftline new TASK PATH"),
    ),
    "a task that is an absolute path": (("run", "/etc"), ("data: no task '/etc'", "glosses, help, mnist")),
    "a task that is misspelt": (
        ("run", "mnits"),
        ("data: no task 'mnits'; did you mean 'mnist'?", "graftline new TASK PATH"),
    ),
    "releases of a path": (("releases", "../x", "--store", "STORE"), ("task: '../x'; expected a name",)),
    "a rollback to a version that does not exist": (
        ("rollback", "digits", "--to", "7", "--store", "STORE"),
        ("task 'digits': no version 7; expected one of the versions 1",),
    ),
    "a rollback of an unknown task": (("rollback", "cats", "--to", "1", "--store", "STORE"), ("cats", "no ")),
    "a rollback of a path as alias": (
        ("rollback", "digits", "--to", "1", "--alias", "../../x", "--store", "STORE"),
        ("alias", "'../../x'"),
    ),
    "a rollback in a store that is not there": (
        ("rollback", "digits", "--to", "1", "--store", "NOWHERE"),
        ("digits", "no "),
    ),
}


def bad_command(name: str, parts: Parts, nowhere: Path) -> Call:
    places = {"STORE": str(parts.store), "NOWHERE": str(nowhere)}
    arguments = tuple(places.get(argument, argument) for argument in COMMANDS[name][0])
    return Call("graftline", arguments, (parts.store, nowhere, ROOT / "data"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_command_is_refused(name: str, parts: Parts, tmp_path: Path, refused: Refused) -> None:
    refused(bad_command(name, parts, tmp_path / "nowhere"), *COMMANDS[name][1])


@pytest.mark.parametrize("name", ["a task that leaves the repository", "a rollback to a version that does not exist"])
def test_a_bad_command_is_refused_by_a_real_process(name: str, parts: Parts, tmp_path: Path, refused: Refused) -> None:
    refused(bad_command(name, parts, tmp_path / "nowhere"), *COMMANDS[name][1], process=True)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda release: _append(release / "model.safetensors"), "model.safetensors"),
        (lambda release: (release / "manifest.json").write_text("{}"), "manifest.json"),
        (lambda release: (release / "extra.bin").write_bytes(b"x"), "extra.bin"),
        (lambda release: (release / "head.json").unlink(), "head.json"),
    ],
    ids=["weights", "manifest", "extra file", "missing file"],
)
def test_a_release_that_was_changed_answers_nothing(
    damage: Callable[[Path], object], says: str, parts: Parts, copy: Callable[[str], Path], refused: Refused
) -> None:
    store = copy("store")
    damage(store / "releases" / "digits" / "1")
    image = store.parent / "a.png"
    grey().save(image)
    refused(Call("graftline", ("predict", "--store", str(store), "digits", str(image)), (store, image)), says)


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def test_the_store_of_these_tests_answers(parts: Parts, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Else every refusal above could have another reason."""
    grey().save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.PNG")
    good = Call("graftline", ("predict", "--json", "--store", str(parts.store), "digits@1", str(tmp_path / "b.PNG")))
    assert run_here(good, capfd).code == 0
