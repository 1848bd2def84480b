"""A fine-tuned vision trunk opens with transformers and Pillow alone, and says of pictures what Graftline says."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import small
import small_vision
import torch
from PIL import Image

from graftline.dataset import Schema, read_schema
from graftline.errors import InputError
from graftline.problems.image_classification.problem import ImageClassifier
from graftline.problems.image_regression.parameters import ImageRegressionParams
from graftline.problems.image_regression.problem import ImageRegression, ImageRegressor, MeasuredImages
from graftline.problems.model import FACTS, load_model, read_facts, save_model
from graftline.problems.multi_label.images import ImageSets, OnImages
from graftline.problems.multi_label.parameters import MultiLabelParams
from graftline.values.image import ImageColumn
from graftline.values.pixels import Pixels

ALONE = """
import json, sys
sys.modules["graftline"] = None  # any import of it fails
import numpy, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
torch.set_num_threads(1)
*folders, pictures, out = sys.argv[1:]
logits = {}
for number, folder in enumerate(folders):
    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        seen = processor([Image.open(path) for path in json.loads(pictures)], return_tensors="pt")
        logits[str(number)] = model(**seen).logits.numpy()
    print(json.dumps([model.config.id2label, model.config.problem_type]))
numpy.savez(out, **logits)
"""


def alone(folders: list[Path], pictures: list[Path], out: Path) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Return each model's logits of the pictures, and what its config says of them, by transformers alone."""
    arguments = [*map(str, folders), json.dumps([str(path) for path in pictures]), str(out)]
    command = [sys.executable, "-I", "-c", ALONE, *arguments]
    done = forked.run(command, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(out)), [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    shades = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for number, shade in enumerate(shades):
        Image.fromarray(shade).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def seen(pictures: list[Path], schema: Schema) -> Pixels:
    """Return the pictures as `predict` reads them."""
    return Pixels.of_numbers(np.stack([question.value for question in schema.feature.questions(pictures, []).asked]))


def test_a_release_opens_without_graftline_and_gives_the_same_logits(
    home: Path, pictures: list[Path], tmp_path: Path
) -> None:
    kinds = sorted(small_vision.TRUNKS)
    folders = [small_vision.model(home, kind) for kind in kinds]
    schema = read_schema(small.dataset(home))
    found, said = alone(folders, pictures, tmp_path / "logits.npz")
    for number, folder in enumerate(folders):
        model = load_model(folder)
        assert isinstance(model, ImageClassifier)
        own = model.outputs(seen(pictures, schema)).numpy()
        np.testing.assert_allclose(found[str(number)], own, atol=1e-5, err_msg=kinds[number])
        assert own.std() > 0.01, "a model that says the same of all shows nothing"
    assert said == [[{str(n): str(n) for n in range(10)}, "single_label_classification"]] * len(kinds)


def test_a_model_of_another_number_of_outputs_than_its_classes_is_refused(home: Path, tmp_path: Path) -> None:
    for kind in ("vit", "resnet"):
        folder = Path(shutil.copytree(small_vision.model(home, kind), tmp_path / kind))
        facts = json.loads((folder / FACTS).read_text())
        (folder / FACTS).write_text(json.dumps(facts | {"classes": facts["classes"][:-1]}))
        with pytest.raises(InputError, match=r"config\.json: a model of 10 outputs; expected 9; run finetune again"):
            load_model(folder)


def test_numbers_and_sets_of_classes_are_named_as_such_and_come_back(
    home: Path, pictures: list[Path], tmp_path: Path
) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 36), dtype=np.uint8)).save(tmp_path / "large.png")
    pictures = [*pictures, tmp_path / "large.png"]
    image = ImageColumn("image", (28, 28), 255, resize="stretch")
    trunk, pixels = small_vision.trunk(home, "convnextv2"), Pixels.of_numbers(np.random.rand(8, 1, 28, 28))
    numbers, sets = Schema(image, "weight", (), (), "number"), Schema(image, "things", ("cat", "dog"), (), "labels")
    regression, multi = ImageRegression(ImageRegressionParams()), OnImages(MultiLabelParams())
    one, several = regression.build(trunk, numbers, scratch=False), multi.build(trunk, sets, scratch=False)
    one.begin(MeasuredImages(pixels, torch.arange(8.0).double(), torch.arange(8)))
    several.begin(ImageSets(pixels, torch.ones(8, 2, dtype=torch.bool), torch.arange(8)))
    for problem, model, schema, name in ((regression, one, numbers, "one"), (multi, several, sets, "several")):
        torch.nn.init.normal_(model.output.weight, std=0.1)
        (tmp_path / name).mkdir()
        save_model(problem, model.eval(), schema, tmp_path / name)
    found, said = alone([tmp_path / "one", tmp_path / "several"], pictures, tmp_path / "logits.npz")
    assert said == [[{"0": "weight"}, "regression"], [{"0": "cat", "1": "dog"}, "multi_label_classification"]]
    for number, (problem, folder) in enumerate([(regression, tmp_path / "one"), (multi, tmp_path / "several")]):
        again = problem.load(folder, read_facts(folder))
        np.testing.assert_allclose(found[str(number)], again.outputs(seen(pictures, numbers)).numpy(), atol=1e-4)
    assert isinstance(one, ImageRegressor)
