"""Raw data of picture files, through the entry point of validate: what gets in, what goes to the quarantine."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pictures import SHAPE, broken, encode, noise, turned
from PIL import Image

from graftline.components.validate import held as held_module
from graftline.components.validate.held import Held, Rows
from graftline.components.validate.scan import Validation
from graftline.dataset import read_schema
from graftline.raw.batches import RawBatch
from graftline.raw.files import look
from graftline.values import columns
from graftline.values.contract import load_contract
from graftline.values.image import ImageColumn
from graftline.values.splits import read_images

LABELS = ("cat", "dog")
MANY = 60


def contract(**image: Any) -> dict[str, object]:
    return {
        "columns": {
            "image": {"type": "image", "shape": list(SHAPE), **image},
            "label": {"type": "string", "role": "label", "classes": list(LABELS)},
        }
    }


COLOUR = contract(mode="rgb")


def write_folders(raw: Path, count: int = MANY, kind: str = "PNG") -> Path:
    """Write a folder a class; the pictures are numbered."""
    for number in range(count):
        folder = raw / LABELS[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.{kind.lower()}").write_bytes(encode(noise(number), kind))
    return raw


def pixels_by_split(dataset: Path) -> dict[bytes, tuple[str, Any]]:
    """Return the split and label of each picture, by its pixels."""
    found = {}
    for split in ("train", "val", "test"):
        images = read_images(dataset, split)
        assert images.labels is not None
        for pixels, label in zip(images.pixels.numpy(), images.labels, strict=True):
            found[np.rint(pixels.transpose(1, 2, 0) * 255).astype(np.uint8).tobytes()] = split, LABELS[label]
    return found


def expected(count: int = MANY) -> dict[bytes, str]:
    return {np.asarray(noise(number)).tobytes(): LABELS[number % 2] for number in range(count)}


def test_a_folder_a_class_becomes_a_file_of_pixels_and_rows_of_places(tmp_path: Path, validate: Callable) -> None:
    run = validate(write_folders(tmp_path / "raw"), COLOUR)
    assert run.code == 0 and run.table("quarantine").num_rows == 0
    found = pixels_by_split(run.out)
    assert {pixels: label for pixels, (_, label) in found.items()} == expected()
    stored = np.load(run.out / "image.npy", mmap_mode="r")
    assert stored.shape == (MANY, *SHAPE, 3) and stored.dtype == np.uint8
    assert all(run.table(split).schema.field("image").type == pa.int64() for split in ("train", "test", "unlabelled"))
    assert read_schema(run.out).feature == ImageColumn("image", SHAPE, 255.0, 3, in_file=True)


def test_the_same_pictures_are_the_same_rows_in_whatever_they_come(tmp_path: Path, validate: Callable) -> None:
    """Folders, a manifest, Parquet of bytes, of Hugging Face's struct and of nested lists, and a tar file."""
    data = [encode(noise(number), ("PNG", "BMP", "TIFF")[number % 3]) for number in range(MANY)]
    labels = [LABELS[number % 2] for number in range(MANY)]
    flat, tar, columns = tmp_path / "flat", tmp_path / "tar", {}
    for folder in (flat / "in", tar):
        folder.mkdir(parents=True)
    lines = ["file_name,label"]
    with tarfile.open(tar / "part-0.tar", "w") as file:
        for number, (picture, label) in enumerate(zip(data, labels, strict=True)):
            name = f"{number}.{('png', 'bmp', 'tif')[number % 3]}"
            (flat / "in" / name).write_bytes(picture)
            (tmp_path / "label.cls").write_text(label)
            file.add(flat / "in" / name, name)
            file.add(tmp_path / "label.cls", f"{number}.cls")
            lines.append(f"in/{name},{label}")
    (flat / "metadata.csv").write_text("\n".join(lines) + "\n")
    columns["struct"] = pa.array([{"bytes": picture, "path": None} for picture in data])
    columns["bytes"] = pa.array(data)
    columns["lists"] = pa.array([np.asarray(noise(number)).tolist() for number in range(MANY)])
    for name, column in columns.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"image": column, "label": labels}), tmp_path / name / "part.parquet")
    rows = {}
    for name in ("folders", "flat", "tar", *columns):
        raw = write_folders(tmp_path / "folders") if name == "folders" else tmp_path / name
        run = validate(raw, COLOUR, out=f"out-{name}")
        assert run.code == 0, run.error
        rows[name] = {(row["digest"], row["split"]) for row in run.table("rows").to_pylist()}
        assert len(rows[name]) == MANY and rows[name] == rows["folders"], name
        assert (run.out / "image.npy").exists() == (name != "lists")


@pytest.fixture(scope="module")
def names() -> list[str]:
    return sorted(broken())


def test_each_broken_file_is_in_quarantine_with_its_path_and_a_word(
    tmp_path: Path, validate: Callable, names: list[str]
) -> None:
    raw = write_folders(tmp_path / "raw")
    for name in names:
        (raw / "cat" / name).write_bytes(broken()[name][0])
    run = validate(raw, COLOUR, {"max_bad_fraction": 0.9})
    assert run.code == 0 and len(names) >= 35
    found = {value.rpartition(": ")[2]: value for value in run.table("quarantine")["value"].to_pylist()}
    assert sorted(found) == [f"cat/{name}" for name in names]
    for name in names:
        assert broken()[name][1] in found[f"cat/{name}"]
    assert set(run.table("quarantine")["rule"].to_pylist()) == {"image.type"}
    assert {pixels: label for pixels, (_, label) in pixels_by_split(run.out).items()} == expected()


def test_too_many_broken_files_end_with_one_line_that_names_the_first(tmp_path: Path, validate: Callable) -> None:
    raw = write_folders(tmp_path / "raw")
    (raw / "cat/000.png").write_bytes(b"")
    run = validate(raw, COLOUR)
    assert run.code == 2
    assert "1 of 60 rows break the contract: image.type in 1 (rows 0): empty (0 bytes): cat/000.png" in run.error


def test_what_is_done_to_pictures_is_counted_in_report_and_record(tmp_path: Path, validate: Callable) -> None:
    raw = write_folders(tmp_path / "raw", kind="PNG")
    (raw / "cat/turned.png").write_bytes(turned(noise(100), "PNG"))
    (raw / "dog/wide.jpg").write_bytes(encode(noise(101).resize((200, 50)), "JPEG"))
    run = validate(raw, contract(resize="crop"))
    assert run.code == 0
    metrics = json.loads((run.out / "record.json").read_bytes())["predicate"]["runDetails"]["byproducts"][0]
    counted = {name: count for name, count in metrics["annotations"].items() if name.startswith("image.")}
    assert counted == {"image.to_grey": 62, "image.turned": 1, "image.crop": 1}
    report = (run.out / "report.html").read_text()
    for line in ("colours became grey", "as its EXIF orientation says", "cut evenly on both sides"):
        assert line in report and line in run.error


def test_hidden_files_links_and_what_is_no_picture_are_left_out_and_named(tmp_path: Path, validate: Callable) -> None:
    raw = write_folders(tmp_path / "raw")
    (raw / "cat/._000.png").write_bytes(b"\0\5\26\7")
    (raw / "dog/Thumbs.db").write_bytes(b"x")
    (raw / ".DS_Store").write_bytes(b"x")
    (raw / "README.md").write_text("about")
    (raw / "dog/link.png").symlink_to(raw / "cat/000.png")
    run = validate(raw, COLOUR)
    assert run.code == 0
    for said in (
        "left out, hidden: 3, such as .DS_Store, cat/._000.png, dog/Thumbs.db",
        "a link: 1, such as dog/link.png",
    ):
        assert said in run.error
    assert "left out, not a picture: 1, such as README.md" in run.error
    assert "dog/link.png" in (run.out / "report.html").read_text()
    assert len(pixels_by_split(run.out)) == MANY


def test_folders_that_are_splits_want_a_column_for_it(tmp_path: Path, validate: Callable) -> None:
    for number in range(MANY):
        folder = tmp_path / "raw" / ("train", "valid", "test")[number % 3] / LABELS[number // 3 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encode(noise(number), "PNG"))
    run = validate(tmp_path / "raw", COLOUR)
    assert run.code == 2 and "declare the column `split: {type: string, role: split}`" in run.error
    columns = {**COLOUR["columns"], "split": {"type": "string", "role": "split"}}  # type: ignore[dict-item]
    run = validate(tmp_path / "raw", {"columns": columns})
    assert run.code == 0, run.error
    splits = {pixels: split for pixels, (split, _) in pixels_by_split(run.out).items()}
    order = ("train", "val", "test")
    assert splits == {np.asarray(noise(number)).tobytes(): order[number % 3] for number in range(MANY)}


def test_a_manifest_says_labels_and_a_file_that_is_missing_is_a_bad_row(tmp_path: Path, validate: Callable) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = []
    for number in range(MANY):
        (raw / f"{number}.png").write_bytes(encode(noise(number), "PNG"))
        lines.append({"file_name": f"{number}.png", "label": LABELS[number % 2]})
    missing = ["gone.png", "../expectations.yaml", f"{'x' * 300}.png", "nul\0.png"]
    lines += [{"file_name": name, "label": "cat"} for name in missing]
    (raw / "about.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (raw / "unnamed.png").write_bytes(encode(noise(200), "PNG"))
    run = validate(raw, COLOUR, {"max_bad_fraction": 0.5})
    assert run.code == 0, run.error
    values = run.table("quarantine")["value"].to_pylist()
    assert values[:2] == ["no such file here: gone.png", "no such file here: ../expectations.yaml"]
    assert [value.partition(":")[0] for value in values[2:]] == ["no such file here"] * 2
    assert "left out, not in about.jsonl: 1, such as unnamed.png" in run.error
    assert {pixels: label for pixels, (_, label) in pixels_by_split(run.out).items()} == expected()


def test_a_file_that_the_manifest_names_in_another_way_is_read_and_not_left_out(
    tmp_path: Path, validate: Callable
) -> None:
    raw = tmp_path / "raw"
    (raw / "sub").mkdir(parents=True)
    ways = ("./{}.png", "sub/../{}.png", ".//{}.png", "{}.png")
    names = [ways[number % len(ways)].format(number) for number in range(MANY)]
    for number in range(MANY):
        (raw / f"{number}.png").write_bytes(encode(noise(number), "PNG"))
    lines = [{"file_name": name, "label": LABELS[number % 2]} for number, name in enumerate(names)]
    (raw / "about.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (raw / "sub/unnamed.png").write_bytes(encode(noise(200), "PNG"))
    run = validate(raw, COLOUR)
    assert run.code == 0, run.error
    assert {pixels: label for pixels, (_, label) in pixels_by_split(run.out).items()} == expected()
    assert "left out, not in about.jsonl: 1, such as sub/unnamed.png" in run.error


def test_rows_that_are_no_part_of_the_dataset_leave_no_pixels(tmp_path: Path, validate: Callable) -> None:
    """One has a label outside the classes, one was erased: both can be decoded."""
    raw = write_folders(tmp_path / "raw")
    first = validate(raw, COLOUR)
    rows = first.table("rows").to_pylist()
    gone = next(row for row in rows if row["row"] == 7)
    (raw / "bird").mkdir()
    (raw / "bird/0.png").write_bytes(encode(noise(300), "PNG"))
    run = validate(raw, COLOUR | {"erased": {"rows": [gone["digest"].hex()]}}, {"max_bad_fraction": 0.5})
    assert run.code == 0, run.error
    stored = np.load(run.out / "image.npy")
    places = {place for split in ("train", "val", "test") for place in run.table(split)["image"].to_pylist()}
    assert len(places) == MANY - 1 and len(stored) == MANY + 1
    assert {place for place in range(len(stored)) if not stored[place].any()} == set(range(len(stored))) - places
    assert not any((picture == np.asarray(noise(300))).all() for picture in stored)


@pytest.mark.parametrize("action", ["quarantine", "together"])
def test_rows_that_the_whole_table_leaves_out_leave_no_pixels(tmp_path: Path, validate: Callable, action: str) -> None:
    """Near-duplicates without a label, and rows without one of groups of test."""
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = []
    for number in range(2 * MANY):
        picture = np.asarray(noise(number % MANY)).copy()
        picture[0, 0] ^= number >= MANY
        (raw / f"{number}.png").write_bytes(encode(Image.fromarray(picture), "PNG"))
        label = LABELS[number % 2] if number < MANY else None
        lines.append({"file_name": f"{number}.png", "label": label, "who": f"p{number // 2}"})
    (raw / "about.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    label = {"type": "string", "role": "label", "classes": list(LABELS), "nullable": True}
    columns = {**COLOUR["columns"], "label": label, "who": {"type": "string", "role": "group"}}
    run = validate(raw, COLOUR | {"columns": columns, "near_duplicates": {"min_cosine": 0.99, "action": action}})
    assert run.code == 0, run.error
    stored = np.load(run.out / "image.npy")
    splits = ("train", "val", "test", "unlabelled")
    places = {place for split in splits for place in run.table(split)["image"].to_pylist()}
    assert 0 < len(places) < 2 * MANY == len(stored)
    assert {place for place in range(len(stored)) if stored[place].any()} == places
    assert {line["row"] for line in run.table("quarantine").to_pylist()} == set(range(2 * MANY)) - places


def test_near_duplicates_are_found_in_colour(tmp_path: Path, validate: Callable) -> None:
    raw = write_folders(tmp_path / "raw", 200)
    twin = np.asarray(noise(5)).copy()
    for place in range(12):  # until two of them fall into two splits
        twin[0, place] ^= 1
        (raw / f"dog/near-{place}.bmp").write_bytes(encode(Image.fromarray(twin), "BMP"))
    run = validate(raw, COLOUR | {"near_duplicates": {"min_cosine": 0.99}})
    assert run.code == 2 and "near-duplicate images in two splits" in run.error
    assert (
        validate(write_folders(tmp_path / "other", 200), COLOUR | {"near_duplicates": {"min_cosine": 0.99}}).code == 0
    )


def test_pictures_are_looked_at_by_their_columns(tmp_path: Path) -> None:
    found = look(write_folders(tmp_path / "raw"))
    assert (found.format, found.rows, found.exact) == ("pictures", MANY, True)
    assert found.schema.names == ["image", "path", "label"]
    assert sorted(set(found.sample["label"].to_pylist())) == sorted(LABELS)


def test_rows_that_are_held_are_read_again_a_bounded_size_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "_BYTES", 4 << 20)
    (tmp_path / "contract").write_text(yaml.safe_dump(contract(mode="rgb", shape=[128, 128])))
    of = load_contract(tmp_path / "contract")
    with Held(tmp_path / "held.parquet", of) as held:
        for first in range(0, 100, 20):
            pixels = pa.array(np.full(20 * 128 * 128 * 3, first, np.uint8))
            image = pa.FixedSizeListArray.from_arrays(pixels, type=of.columns["image"].arrow_type())
            columns = {"image": image, "label": pa.array(["cat"] * 20)}
            held.add(Rows(np.arange(first, first + 20), columns, np.zeros((20, 32), np.uint8), None))
        numbers = [rows.numbers.tolist() for rows in held.batches()]
    assert [row for batch in numbers for row in batch] == list(range(100))
    assert 1 < max(map(len, numbers)) <= (4 << 20) // (128 * 128 * 3)


def test_small_files_that_become_large_pictures_are_taken_a_bounded_size_at_once(
    tmp_path: Path, validate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever parts: rows, pixels and what is passed over are the same."""
    raw = write_folders(tmp_path / "raw")
    (raw / "notes.txt").write_text("x")
    size = int(np.prod(SHAPE)) * 3
    runs, most = [], []
    add = Validation.add

    def counted(self: Validation, batch: RawBatch) -> None:
        most.append(batch.rows)
        add(self, batch)

    monkeypatch.setattr(Validation, "add", counted)
    for rows in (7, MANY):
        most.clear()
        monkeypatch.setattr(columns, "DECODED_BYTES", rows * size)
        runs.append(validate(raw, COLOUR))
        assert (runs[-1].code, max(most)) == (0, rows), runs[-1].error
        assert runs[-1].error.count("left out, not a picture: 1") == 1
    parts, whole = (pixels_by_split(run.out) for run in runs)
    assert parts == whole and len(whole) == MANY


def test_a_run_that_reads_the_data_otherwise_takes_no_pixels_of_one_that_failed(
    tmp_path: Path, validate: Callable
) -> None:
    """Two tables name the same pictures in two orders; two columns hold pictures of one size."""
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = []
    for number in range(MANY):
        (raw / f"{number:02}.bmp").write_bytes(encode(noise(number), "BMP"))
        lines.append(f"{number:02}.bmp,{LABELS[number % 2]}\n")
    for name, some in (("one", lines), ("other", lines[::-1])):
        (raw / f"{name}.csv").write_text("file_name,label\n" + "".join(some))
    by_table = [COLOUR | {"source": {"format": "pictures", "manifest": f"{name}.csv"}} for name in ("one", "other")]
    (tmp_path / "pairs").mkdir()
    pictures = [encode(noise(number), "BMP") for number in range(MANY)]
    table = {"left": pictures[::-1], "right": pictures, "label": [LABELS[n % 2] for n in range(MANY)]}
    pq.write_table(pa.table(table), tmp_path / "pairs/x.parquet")
    by_column = [contract(mode="rgb", name=name) | {"others": "drop"} for name in ("left", "right")]
    for folder, (first, second) in ((raw, by_table), (tmp_path / "pairs", by_column)):
        failed = validate(folder, first | {"min_rows": 10**6}, out=f"of-{folder.name}")
        assert failed.code == 2 and (tmp_path / f".of-{folder.name}.work/image.npy").exists()
        run = validate(folder, second, out=f"of-{folder.name}")
        assert run.code == 0, run.error
        assert {pixels: label for pixels, (_, label) in pixels_by_split(run.out).items()} == expected()
