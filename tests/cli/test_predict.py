"""`graftline predict`: a release made by the real components, asked about images in each form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
from commands import on_store

from graftline.problems.model import load_model
from graftline.values.decoding import CHANGES
from graftline.values.splits import read_images

COUNT = 12


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.released(tmp_path_factory.getbasetemp()) / "store"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first digits of the raw data in one Parquet file, and each as a PNG."""
    folder = tmp_path_factory.mktemp("images")
    table = pq.read_table(small.RAW).slice(0, COUNT * 300).take(pa.array(range(0, COUNT * 300, 300)))
    pq.write_table(table, folder / "digits.parquet")
    for number, pixels in enumerate(table["image"].to_pylist()):
        array = np.array(pixels, dtype=np.uint8).reshape(28, 28)
        Image.fromarray(array).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def predict(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `graftline predict`."""
    return partial(on_store(store, monkeypatch, capsys), "predict")


def answers(done: tuple[int, str, str], said: str = "") -> list[dict[str, Any]]:
    """Return what was answered; beside it nothing is said but `said`."""
    code, out, error = done
    assert (code, error) == (0, said)
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_the_command_prints_json_for_programs(store: Path, images: Path) -> None:
    """As a process of its own: nothing but JSON is on standard output."""
    command = [sys.executable, "-c", "from graftline.cli.app import main; main()", "predict", "digits@champion"]
    done = subprocess.run(
        [*command, str(images / "00.png"), "--json", "--store", str(store)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    (answer,) = json.loads(done.stdout)
    assert answer.keys() == {"input", "label", "probabilities"}
    assert answer["input"] == str(images / "00.png")


def test_an_answer_has_input_label_and_probabilities_that_sum_to_1(predict: Any, images: Path) -> None:
    found = answers(predict("digits@1", images / "digits.parquet", "--json"))
    assert [answer["input"] for answer in found] == [f"{images}/digits.parquet#{row}" for row in range(COUNT)]
    for answer in found:
        assert list(answer["probabilities"]) == [str(digit) for digit in range(10)]
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert str(answer["label"]) == max(answer["probabilities"], key=answer["probabilities"].get)


def test_answers_are_those_of_the_model_that_was_trained(predict: Any, store: Path) -> None:
    """The test split as a Parquet file: its values are those that evaluate saw."""
    dataset, model = store.parent / "dataset", store.parent / "model"
    test = read_images(dataset, "test")
    expected = load_model(model).probabilities(test.pixels)
    found = answers(predict("digits", dataset / "test.parquet", "--json"))
    given = np.array([list(answer["probabilities"].values()) for answer in found])
    order = pq.read_table(dataset / "test.parquet", columns=["row"])["row"].to_numpy()
    assert np.allclose(given[np.argsort(order)], expected, atol=1e-5)
    right = np.mean(given[np.argsort(order)].argmax(axis=1) == test.labels)
    assert right > 0.6, "chance is 0.1"


def test_a_png_gets_the_answer_of_the_row_that_it_was_made_from(predict: Any, images: Path) -> None:
    pngs = answers(predict("digits", *sorted(images.glob("*.png")), "--json"))
    rows = answers(predict("digits", images / "digits.parquet", "--json"))
    assert [answer["probabilities"] for answer in pngs] == [answer["probabilities"] for answer in rows]


def test_a_folder_is_the_files_in_it_by_name(predict: Any, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(images / "03.png", folder / "inner" / "a.png")
    shutil.copy(images / "04.png", folder / "B.PNG")
    shutil.copy(images / "digits.parquet", folder / "z.parquet")
    (folder / "notes.txt").write_text("not an image")
    (folder / "._B.PNG").write_bytes(b"\0\5\26\7")
    (folder / "cut.png").write_bytes((images / "04.png").read_bytes()[:100])
    code, out, error = predict("digits", folder, "--json")
    assert code == 0
    found = json.loads(out)
    assert error.splitlines() == [
        f"predict: left out: {folder}/cut.png (truncated)",
        f"predict: left out: {folder}/notes.txt (not a picture, Parquet or tar)",
    ]
    names = [f"{folder}/B.PNG", f"{folder}/inner/a.png", *(f"{folder}/z.parquet#{row}" for row in range(COUNT))]
    assert [answer["input"] for answer in found] == names
    assert found[0]["probabilities"] == pytest.approx(found[2 + 4]["probabilities"], abs=1e-5)


def test_a_colour_png_of_a_grey_image_gets_the_same_answer(predict: Any, images: Path, tmp_path: Path) -> None:
    Image.open(images / "05.png").convert("RGB").save(tmp_path / "colour.png")
    grey, colour = (
        answers(predict("digits", path, "--json"), said)[0]
        for path, said in (
            (images / "05.png", ""),
            (tmp_path / "colour.png", f"predict: 1 picture: {CHANGES['to_grey']}\n"),
        )
    )
    assert grey["probabilities"] == colour["probabilities"]


def test_a_photograph_is_asked_about_as_viewers_show_it(predict: Any, images: Path, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # turn by 270 degrees to view
    Image.open(images / "05.png").transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    (upright,) = answers(predict("digits", images / "05.png", "--json"))
    (answer,) = answers(
        predict("digits", tmp_path / "turned.png", "--json"), f"predict: 1 picture: {CHANGES['turned']}\n"
    )
    assert answer["probabilities"] == upright["probabilities"]


def test_every_format_a_tar_file_and_encoded_rows_are_asked_about(predict: Any, images: Path, tmp_path: Path) -> None:
    picture, data = Image.open(images / "05.png"), (images / "05.png").read_bytes()
    (png,) = answers(predict("digits", images / "05.png", "--json"))
    for kind in ("bmp", "tif", "gif"):
        picture.save(tmp_path / f"a.{kind}")
    for kind in ("jpg", "jpeg"):
        picture.save(tmp_path / f"b.{kind}", quality=95)
    picture.save(tmp_path / "a.webp", lossless=True)
    pq.write_table(pa.table({"image": [{"bytes": data, "path": "x.png"}]}), tmp_path / "c.parquet")
    pq.write_table(pa.table({"image": [data]}), tmp_path / "d.parquet")
    with tarfile.open(tmp_path / "e.tar", "w") as tar:
        tar.add(images / "05.png", "in/05.png")
    code, out, _ = predict("digits", tmp_path, "--json")
    found = {Path(answer["input"]).name: answer for answer in json.loads(out)}
    assert code == 0
    exact = ("a.bmp", "a.tif", "a.gif", "a.webp", "c.parquet#0", "d.parquet#0", "05")
    for name in exact:
        assert found[name]["probabilities"] == pytest.approx(png["probabilities"], abs=1e-5), name
    assert {"b.jpg", "b.jpeg"} <= set(found) and found["b.jpg"]["label"] == png["label"]


def test_people_get_a_table(predict: Any, images: Path) -> None:
    (answer,) = answers(predict("digits", images / "00.png", "--json"))
    code, out, error = predict("digits", images / "00.png")
    assert (code, error) == (0, "")
    header, row = (line for line in out.splitlines() if "input" in line or "00.png" in line)
    assert [cell.strip() for cell in header.strip("┃│ ").replace("┃", "│").split("│")][:3] == [
        "input",
        "label",
        "probability",
    ]
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    best = max(answer["probabilities"].values())
    assert cells[:3] == [str(images / "00.png"), str(answer["label"]), f"{best:.4f}"]


def test_a_flipped_bit_in_the_weights_is_refused_with_one_line(
    predict: Any, store: Path, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(store, tmp_path / "store")
    weights = tmp_path / "store/releases/digits/1/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    code, out, error = predict("digits", images / "00.png", "--json", store=tmp_path / "store")
    assert (code, out) == (2, "")
    (line,) = error.splitlines()
    assert "model.safetensors: sha256 " in line
    assert "by the manifest" in line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.png", "no such file or folder"),
        ("text.png", "not a picture: it starts with b'a text'"),
        ("cut.png", "truncated; expected a picture of 28 x 28 pixels"),
        ("large.png", "30 x 28 pixels, not 28 x 28"),
        ("notes.txt", "a file of type '.txt'; expected a picture (JPEG, PNG, WEBP, TIFF, BMP, GIF), Parquet or tar"),
        ("other.parquet", "expected Parquet with a column 'image' of pictures or lists of numbers"),
        ("bright.parquet", "values outside the range; expected 0 to 255"),
        ("short.parquet", "row 0: column 'image' has 783 pixels; expected 784 a row"),
        ("empty", "no images"),
    ],
)
def test_what_is_no_image_is_one_line_and_2(predict: Any, images: Path, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "text.png").write_text("a text")
    (tmp_path / "cut.png").write_bytes((images / "00.png").read_bytes()[:100])
    Image.new("L", (28, 30)).save(tmp_path / "large.png")
    (tmp_path / "notes.txt").write_text("a text")
    pq.write_table(pa.table({"picture": [[0] * 784]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"image": [[256] * 784]}), tmp_path / "bright.parquet")
    pq.write_table(pa.table({"image": [[0] * 783]}), tmp_path / "short.parquet")
    (tmp_path / "empty").mkdir()
    code, out, error = predict("digits", tmp_path / name, "--json")
    assert (code, out) == (2, "")
    (line,) = error.splitlines()
    assert name in line
    assert said in line


@pytest.mark.parametrize("release", ["digits@7", "digits@latest", "other", "digits@"])
def test_a_release_that_is_not_there_is_one_line_and_2(predict: Any, images: Path, release: str) -> None:
    code, out, error = predict(release, images / "00.png")
    assert (code, out) == (2, "")
    assert len(error.splitlines()) == 1
