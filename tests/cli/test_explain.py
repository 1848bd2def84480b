"""`graftline explain` on releases that the components made: images, and a head that has no explanations."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_tags
from commands import Done, on_store

from graftline.errors import InputError
from graftline.explain.names import title
from graftline.problems.model import check_dataset
from graftline.records.folder import verify
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def explain(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    run = on_store(small.released(home) / "store", monkeypatch, capsys)
    return lambda *arguments, **options: run("explain", *arguments, **options)


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "<i>digit.png"
    pixels = pq.read_table(small.RAW, columns=["image"]).slice(0, 1)["image"].to_pylist()[0]
    Image.fromarray(np.array(pixels, dtype=np.uint8).reshape(28, 28)).save(path)
    return path


def test_programs_get_a_number_a_pixel_and_what_does_not_apply(explain: Callable[..., Done], digit: Path) -> None:
    code, out, error = explain("digits@1", digit, "--json")
    assert code == 0 and "attention rollout does not apply" in error
    told = json.loads(out)
    (found,) = told["explained"]
    assert told["part"] == "pixel" and told["faithfulness"] is None and found["nearest"] is None
    assert list(found["methods"]) == ["integrated_gradients", "occlusion"] and list(told["missing"]) == [
        "attention_rollout"
    ]
    assert np.array(found["methods"]["occlusion"]).shape == (28, 28)
    assert 0 < found["probability"] <= 1 and found["answer"] in map(str, range(10))


def test_with_a_dataset_it_says_how_far_to_believe_it_and_shows_the_nearest_rows(
    explain: Callable[..., Done], home: Path, digit: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    dataset = small.released(home) / "dataset"
    _, told, _ = explain("digits@1", digit, "--json", "--dataset", dataset, "--rows", 20)
    code, out, _ = explain("digits@1", digit, "--html", page, "--dataset", dataset, "--rows", 20)
    assert code == 0
    assert "nearest in train" in out and "random order" in out and "20 of" in out
    text = page.read_text()
    methods = json.loads(told)["faithfulness"]["methods"]
    named = {title(method["method"]): method["verdict"] for method in methods}
    assert len(named) == 3 and named == dict(re.findall(r"<tr><td>([^<]*)</td>.*<td>([^<]*)</td></tr>", text))
    assert text.count("<img alt=") == 1 + 2 + 3, "the picture, two methods, three training rows"
    assert "&lt;i&gt;digit.png" in text and "<i>digit" not in text
    assert "comprehensiveness" in text and "http://" not in text and "https://" not in text


def test_a_dataset_of_another_task_is_refused(
    explain: Callable[..., Done], home: Path, digit: Path, tmp_path: Path
) -> None:
    dataset = small.released(home) / "dataset"
    schema = json.loads((dataset / "schema.json").read_text())
    letters = {**schema, "classes": list("abcdefghij")}
    folder = shutil.copytree(dataset, tmp_path / "letters")
    (folder / "schema.json").write_text(json.dumps(letters))
    check_dataset(schema, dataset, "digits@1")
    with pytest.raises(InputError, match=r"not a dataset of digits@1: its classes are \['a', 'b'"):
        check_dataset(schema, folder, "digits@1")
    code, out, error = explain("digits@1", digit, "--dataset", small_tags.dataset(home))
    assert code == 2 and out == "" and "not a dataset of digits@1: its features are" in error


def test_a_head_without_explanations_is_named(explain: Callable[..., Done], home: Path, tmp_path: Path) -> None:
    model = small_tags.model(home)
    files = {file.path: model / file.path for file in verify(model).files}
    store = tmp_path / "store"
    publish(open_store(str(store)), ReleaseDraft("tags", files, {}), Publication("tags", fresh=True))
    code, out, error = explain("tags@1", "--text", "a dog", store=store)
    assert code == 2 and out == ""
    assert "the head token_classification, which has no explanations" in error
