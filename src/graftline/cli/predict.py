"""`graftline predict RELEASE PATH...`: ask a release about images or texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline.cli.documents import Document, Texts, read_documents
from graftline.cli.shown import cell, table, terminal
from graftline.cli.stores import STORE, open_given
from graftline.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from rich.text import Text

    from graftline.dataset import Schema
    from graftline.values.image import ImageColumn

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
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="images: PNG or Parquet files; text: .txt (a document a line), .jsonl or Parquet; or folders"
        ),
    ] = None,
    texts: Texts = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a list of objects for programs")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Ask a release about images or texts: the label of each, and how probable each label is.

    A release that tags words prints each word's tag; one that writes goes on with each text.
    """
    from graftline.dataset import Schema
    from graftline.problems.model import read_facts
    from graftline.releases.catalogue import resolve
    from graftline.releases.fetching import fetch
    from graftline.values.image import ImageColumn

    opened = open_given(store)
    folder = fetch(opened, resolve(opened, release))
    schema = Schema.from_dict(read_facts(folder))
    if not isinstance(schema.feature, ImageColumn):
        documents = read_documents(paths or [], texts or [], schema.feature.name)
        _print_texts(_about_texts(folder, documents, schema), as_json)
    elif texts:
        raise InputError("--text", "a text", expected="images", fix=f"{release} classifies images")
    else:
        _print(_about_images(folder, paths or [], schema), as_json)


def _about_images(folder: Path, paths: list[Path], schema: Schema) -> list[dict[str, Any]]:
    import torch

    from graftline.problems.answers import labelled
    from graftline.problems.model import load_model

    image = schema.image
    questions = [question for path in paths for question in _questions(path, image)]
    if not questions:
        where = ", ".join(map(str, paths)) or "the command line"
        raise InputError(where, "no images", expected="PNG or Parquet files")
    pixels = torch.stack([torch.from_numpy(question.pixels) for question in questions])
    model: Any = load_model(folder)
    answers = model.probabilities(pixels)
    return [
        {"input": question.name, **labelled(row, schema.classes)}
        for question, row in zip(questions, answers, strict=True)
    ]


def _about_texts(folder: Path, documents: list[Document], schema: Schema) -> list[dict[str, Any]]:
    from graftline.problems.model import load_model, read_head

    head = read_head(folder)
    answers = head.ask(folder, load_model(folder), [document.text for document in documents], schema.classes)
    return [{"input": d.name, **answer} for d, answer in zip(documents, answers, strict=True)]


def _questions(path: Path, image: ImageColumn) -> Iterator[Question]:
    """Yield the images in a file or, by name, in a folder's files. Raises InputError."""
    if path.is_dir():
        for inner in sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES):
            yield from _questions(inner, image)
    elif not path.exists():
        raise InputError(path, "no such file or folder", fix="check the path")
    elif path.suffix.lower() == ".png":
        yield Question(str(path), _read_png(path, image))
    elif path.suffix.lower() == ".parquet":
        yield from _read_parquet(path, image)
    else:
        raise InputError(
            path, f"a file of type '{path.suffix}'", expected="a PNG or Parquet file, or a folder"
        )


def _read_png(path: Path, image: ImageColumn) -> np.ndarray:
    """Return a PNG as grey pixels from 0 to 1. Raises InputError if it is damaged or of another size."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            size = (picture.height, picture.width)
            _check_shape(path, size, image)
            if picture.mode not in _PNG_MODES or "transparency" in picture.info:
                kind = "transparent" if "transparency" in picture.info else f"of mode {picture.mode}"
                raise InputError(
                    path, f"a PNG {kind}", expected="8 bits a channel, grey or colour, not transparent"
                )
            grey = np.asarray(picture.convert("L"), dtype=np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(path, f"not a readable PNG ({error})", fix="save it again as PNG") from None
    return grey / np.float32(255)


def _check_shape(where: object, found: tuple[int, int], image: ImageColumn) -> None:
    expected = image.shape
    if found != expected:
        raise InputError(
            where, f"{found[0]} by {found[1]} pixels", expected=f"{expected[0]} by {expected[1]}",
            fix="scale the image as the training data was",
        )  # fmt: skip


def _read_parquet(path: Path, image: ImageColumn) -> Iterator[Question]:
    """Yield the rows of a Parquet file with the release's image column. Raises InputError."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    name, (height, width) = image.name, image.shape
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
    if not (np.isfinite(flat).all() and (flat >= 0).all() and (flat <= image.maximum).all()):
        raise InputError(
            path,
            f"column '{name}' has values outside the range",
            expected=f"0 to {image.maximum:g}",
        )
    for row, pixels in enumerate((flat / np.float32(image.maximum)).reshape(-1, height, width)):
        yield Question(f"{path}#{row}", pixels)


def _print(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(found, indent=2))
        return
    answers = table("input", "label", "probability", "next")
    for answer in found:
        ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
        following = f"{ranked[1][0]} ({ranked[1][1]:.4f})"
        values = (answer["input"], answer["label"], f"{ranked[0][1]:.4f}", following)
        answers.add_row(*(cell(value, limit=4096) for value in values))
    terminal().print(answers)


def _print_texts(found: list[dict[str, Any]], as_json: bool) -> None:
    """Print answers about texts: labels as for images, words with their tags, or what was written."""
    if as_json or "probabilities" in found[0]:
        _print(found, as_json)
        return
    tags = "words" in found[0]
    answers = table("input", "words and tags" if tags else "text")
    for answer in found:
        text = (
            "  ".join(f"{word['word']}/{word['label']}" for word in answer["words"])
            if tags
            else answer["prompt"] + answer["text"]
        )
        answers.add_row(cell(answer["input"], limit=4096), _plain(text))
    terminal().print(answers)


def _plain(text: str) -> Text:
    """Return a text for the terminal: its brackets are no markup, and its control characters do nothing."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
