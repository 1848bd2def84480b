"""`graftline predict RELEASE PATH...`: ask a release about images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline.cli.stores import STORE, open_given
from graftline.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_SUFFIXES = (".png", ".parquet")
# 16 bits would be clipped and transparency dropped without a word: a confident wrong answer
_PNG_MODES = ("1", "L", "P", "RGB")


@dataclass(frozen=True)
class Question:
    """One image and its name in the answer."""

    name: str
    pixels: np.ndarray
    """(height, width), float32 from 0 to 1."""


def predict(
    release: Annotated[str, typer.Argument(help="task@version or task@alias, such as mnist@champion")],
    paths: Annotated[list[Path], typer.Argument(help="PNG files, Parquet files, or folders of them")],
    as_json: Annotated[bool, typer.Option("--json", help="print a list of objects for programs")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Ask a release about images: the label of each, and how probable each label is."""
    import torch

    from graftline.canonical import read_json
    from graftline.components.finetune.model import CONFIG, load_model, probabilities
    from graftline.releases.catalogue import resolve
    from graftline.releases.fetching import fetch

    opened = open_given(store)
    folder = fetch(opened, resolve(opened, release))
    config = read_json(folder / CONFIG)
    questions = [question for path in paths for question in _questions(path, config)]
    if not questions:
        raise InputError(", ".join(map(str, paths)), "no images", expected="PNG or Parquet files")
    pixels = torch.stack([torch.from_numpy(question.pixels) for question in questions])
    answers = probabilities(load_model(folder), pixels)
    classes = config["classes"]
    found = [
        {
            "input": question.name,
            "label": classes[int(row.argmax())],
            "probabilities": {str(label): float(p) for label, p in zip(classes, row, strict=True)},
        }
        for question, row in zip(questions, answers, strict=True)
    ]
    _print(found, as_json)


def _questions(path: Path, config: dict[str, Any]) -> Iterator[Question]:
    """Yield the images in a file or, by name, in a folder's files. Raises InputError."""
    if path.is_dir():
        for inner in sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES):
            yield from _questions(inner, config)
    elif not path.exists():
        raise InputError(path, "no such file or folder", fix="check the path")
    elif path.suffix.lower() == ".png":
        yield Question(str(path), _read_png(path, config))
    elif path.suffix.lower() == ".parquet":
        yield from _read_parquet(path, config)
    else:
        raise InputError(
            path, f"a file of type '{path.suffix}'", expected="a PNG or Parquet file, or a folder"
        )


def _read_png(path: Path, config: dict[str, Any]) -> np.ndarray:
    """Return a PNG as grey pixels from 0 to 1. Raises InputError if it is damaged or of another size."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            size = (image.height, image.width)
            _check_shape(path, size, config)
            if image.mode not in _PNG_MODES or "transparency" in image.info:
                kind = "transparent" if "transparency" in image.info else f"of mode {image.mode}"
                raise InputError(
                    path, f"a PNG {kind}", expected="8 bits a channel, grey or colour, not transparent"
                )
            grey = np.asarray(image.convert("L"), dtype=np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(path, f"not a readable PNG ({error})", fix="save it again as PNG") from None
    return grey / np.float32(255)


def _check_shape(where: object, found: tuple[int, int], config: dict[str, Any]) -> None:
    expected = tuple(config["image_shape"])
    if found != expected:
        raise InputError(
            where, f"{found[0]} by {found[1]} pixels", expected=f"{expected[0]} by {expected[1]}",
            fix="scale the image as the training data was",
        )  # fmt: skip


def _read_parquet(path: Path, config: dict[str, Any]) -> Iterator[Question]:
    """Yield the rows of a Parquet file with the release's image column. Raises InputError."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    name, (height, width) = config["image"], config["image_shape"]
    try:
        table = pq.read_table(path, columns=[name])
        lists = table[name].combine_chunks()
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    except (pa.ArrowException, KeyError, OSError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, reason, expected=f"Parquet with a list column '{name}' of numbers") from None
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    if len(wrong := np.flatnonzero(lengths != height * width)):
        raise InputError(
            f"{path}: row {wrong[0]}",
            f"column '{name}' has {lengths[wrong[0]]} pixels",
            expected=f"{height * width} a row",
        )
    if not (np.isfinite(flat).all() and (flat >= 0).all() and (flat <= config["pixel_maximum"]).all()):
        raise InputError(
            path,
            f"column '{name}' has values outside the range",
            expected=f"0 to {config['pixel_maximum']:g}",
        )
    for row, pixels in enumerate((flat / np.float32(config["pixel_maximum"])).reshape(-1, height, width)):
        yield Question(f"{path}#{row}", pixels)


def _print(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("input", "label", "probability", "next")
    for answer in found:
        ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
        table.add_row(
            answer["input"],
            str(answer["label"]),
            f"{ranked[0][1]:.4f}",
            f"{ranked[1][0]} ({ranked[1][1]:.4f})",
        )
    Console(highlight=False).print(table)
