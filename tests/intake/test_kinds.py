"""Data of every kind as people have it: what is written for it passes validate, and asks for no more than there is."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import owned
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from graftline import label_counts
from graftline.dataset import read_schema
from graftline.environment import ROOT
from graftline.intake.draft import draft
from graftline.intake.look import look
from graftline.intake.roles import Wishes, propose
from graftline.tasks.documents import parameter_models
from graftline.tasks.parameters import load_document, section


def spreadsheet(folder: Path) -> None:
    """With a mark, semicolons, CRLF, an index without a name, line ends in cells, and another encoding."""
    rows = [
        {"": n, **row, "größe": n % 7} for n, row in enumerate(owned.labelled(300, user=[f"u{n}" for n in range(100)]))
    ]
    for row in rows[::40]:
        row["text"] = f'{row["text"]};\n"é"'
    owned.write_csv(folder / "export.csv", rows, delimiter=";", lineterminator="\r\n", encoding="cp1252")


def spark(folder: Path) -> None:
    """Partitions, a marker, checksums, and a part without rows."""
    rows = owned.labelled(400)
    for year in (2023, 2024):
        inner = folder / f"year={year}"
        inner.mkdir()
        pq.write_table(pa.Table.from_pylist(rows[year % 2 :: 2]), inner / "part-0.snappy.parquet")
        (inner / ".part-0.snappy.parquet.crc").write_bytes(b"crc\0")
    (folder / "_SUCCESS").touch()


def saved(folder: Path) -> None:
    """What Hugging Face datasets saved, with more rows than the recording has."""
    shutil.copytree(ROOT / "tests/raw/recordings/saved_splits", folder, dirs_exist_ok=True)
    for split, count in (("train", 300), ("test", 80)):
        (file,) = (folder / split).glob("*.arrow")
        with pa.ipc.open_stream(file) as stream:
            kind = stream.schema
        rows = [{"text": text, "label": mark} for text, mark in owned.texts(count, seed=count)]
        with pa.ipc.new_stream(file, kind) as writer:
            writer.write_table(pa.Table.from_pylist(rows, kind))


def pictures(folder: Path) -> None:
    """Of several sizes, in colour, one of them damaged, and what a system leaves beside them."""
    drawn = np.random.default_rng(0)
    for number in range(240):
        inner = folder / f"class {number % 3}"
        inner.mkdir(exist_ok=True)
        size = tuple(int(side) for side in drawn.integers(30, 60, 2))
        pixels = drawn.integers(0, 256, (*size, 3), np.uint8)
        pixels[..., number % 3] = 255
        Image.fromarray(pixels).save(inner / f"{number}.jpg")
    (folder / "class 0/0.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "class 0/Thumbs.db").write_bytes(b"x")


def pictures_in_parquet(folder: Path) -> None:
    """As Hugging Face has them: {bytes, path}; each of one shade, so that none has anything to compare."""
    import io

    rows = []
    for number in range(200):
        file = io.BytesIO()
        Image.fromarray(np.full((12, 12), number, np.uint8)).save(file, "PNG")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": number % 2})
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")


def pixel_lists(folder: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (200, 64))
    rows = [{"pixels": " ".join(map(str, image)), "angle": round(float(image.mean()) / 3, 2)} for image in drawn]
    owned.write_csv(folder / "x.csv", rows)


def numbers(folder: Path) -> None:
    rows = [{"review": text, "stars": mark + n / 100} for n, (text, mark) in enumerate(owned.texts(300))]
    owned.write_jsonl(folder / "x.jsonl", rows)


def texts(folder: Path) -> None:
    rows = "".join(f'{{"body": "{text}"}}\n' for text, _ in owned.texts(300))
    (folder / "x.jsonl.gz").write_bytes(gzip.compress(rows.encode()))


def tagged(folder: Path) -> None:
    rows = [
        {"tokens": words, "tags": ["N" if word in owned.WORDS[:9] else "V" for word in words]}
        for words in (text.split() for text, _ in owned.texts(200))
    ]
    owned.write_jsonl(folder / "x.jsonl", rows)


def squad(folder: Path) -> None:
    """Version 2.0: an article of several paragraphs, a question without an answer in each."""
    articles = [{"title": f"article {n}", "paragraphs": []} for n in range(30)]
    for number, (text, _) in enumerate(owned.texts(300)):
        word = text.split()[2]
        asked = [
            {"id": f"{number} a", "question": f"which word is the third of {number} of them?",
             "answers": [{"text": word, "answer_start": text.index(f" {word}") + 1}]},
            {"id": f"{number} b", "question": f"which word is the last but {number}?", "answers": []},
        ]  # fmt: skip
        articles[number % 30]["paragraphs"].append({"context": text, "qas": asked})
    (folder / "train.json").write_text(json.dumps({"version": "v2.0", "data": articles}), encoding="utf-8")


def answers_in_csv(folder: Path) -> None:
    """The text before the question, answers without their places, some of which stand several times."""
    rows = [
        {"passage": f"{text} and {text.split()[2]}", "question": f"what is it that {n} times is said?",
         "answer": text.split()[2]}
        for n, (text, _) in enumerate(owned.texts(300))
    ]  # fmt: skip
    owned.write_csv(folder / "x.csv", rows)


def _drawn(path: Path, number: int) -> list[int]:
    """Write a dark picture with a bright box in it; return the box's edges."""
    drawn = np.random.default_rng(number)
    pixels = drawn.integers(0, 90, (48, 64), np.uint8)
    x, y = (int(at) for at in drawn.integers(0, (40, 24)))
    width, height = (int(side) for side in drawn.integers(12, 24, 2))
    pixels[y : y + height, x : x + width] = 200
    Image.fromarray(pixels).save(path)
    return [x, y, x + width, y + height]


def coco(folder: Path) -> None:
    """Boxes and polygons, the JSON above the folder of the pictures."""
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(120):
        x0, y0, x1, y1 = _drawn(folder / f"images/{number}.png", number)
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": number % 2,
                "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            }
        )
    categories = [{"id": number, "name": name} for number, name in enumerate(("cat", "dog"))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))


def pascal_voc(folder: Path) -> None:
    """An XML file beside each picture but some, which nobody looked at."""
    for number in range(120):
        edges = zip(("xmin", "ymin", "xmax", "ymax"), _drawn(folder / f"{number}.png", number), strict=True)
        box = "".join(f"<{edge}>{at + (edge in ('xmin', 'ymin'))}</{edge}>" for edge, at in edges)
        if number % 5:
            (folder / f"{number}.xml").write_text(
                f"<annotation><filename>{number}.png</filename><object><name>cat</name><bndbox>{box}</bndbox></object>"
                "</annotation>"
            )


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a spreadsheet": (spreadsheet, "sequence_classification"),
    "a folder of Spark": (spark, "sequence_classification"),
    "a saved data set": (saved, "sequence_classification"),
    "pictures in folders": (pictures, "image_classification"),
    "pictures in Parquet": (pictures_in_parquet, "image_classification"),
    "lists of pixels": (pixel_lists, "image_regression"),
    "numbers to tell": (numbers, "text_regression"),
    "texts alone": (texts, "text_generation"),
    "tagged words": (tagged, "token_classification"),
    "questions of SQuAD": (squad, "question_answering"),
    "answers in CSV": (answers_in_csv, "question_answering"),
    "objects of COCO": (coco, "detection"),
    "objects of Pascal VOC": (pascal_voc, "detection"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_validate_and_asks_for_no_more_than_there_is(tmp_path: Path, kind: str) -> None:
    make, head = KINDS[kind]
    raw = tmp_path / "raw"
    raw.mkdir()
    make(raw)
    found = look(raw)
    made = draft("letters", found, propose(found, Wishes(guessing=True)), "CC0-1.0")
    assert made.head == head
    (tmp_path / "expectations.yaml").write_text(made.expectations, encoding="utf-8")
    (tmp_path / "params.yaml").write_text(made.params, encoding="utf-8")
    names = {"params": "params.yaml", "in-raw": "raw", "in-expectations": "expectations.yaml", "out-dataset": "out"}
    command = [sys.executable, "-m", "graftline.components.validate"]
    command += [part for name, value in names.items() for part in (f"--{name}", value)]
    environment = os.environ | {"GRAFTLINE_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + made.expectations
    document, where = load_document(tmp_path / "params.yaml")
    models = parameter_models()
    sections = (section(document, where, name, models[name]) for name in ("finetune", "evaluate"))
    label_counts.check(label_counts.asked(*sections), label_counts.in_dataset(tmp_path / "out"))
    assert [feature.name for feature in read_schema(tmp_path / "out").features] == made.made.of("feature")
