"""A public detector as rootstock: whole checkpoints are taken with their own queries, others are refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from damaged import edit, refusal

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small_detectors
import small_scenes

from graftline.canonical import read_json
from graftline.dataset import read_schema
from graftline.plan import Sections, make_plan
from graftline.plan.sample import sample_dataset
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.image_classification.problem import ImageClassification
from graftline.profiles import load_profiles
from graftline.records.folder import verify
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks import rootstock
from graftline.trunks.detector.rootstock import open_checkpoint
from graftline.trunks.detector.trunk import AUTO, class_tensors
from graftline.trunks.images import load_trunk
from graftline.values.image import ImageColumn

PLAIN = ("rt_detr", "rt_detr_v2")
"""Whose processors do not normalise, unless their files say so."""
COLOUR = ImageColumn("image", (small_scenes.SIDE, small_scenes.SIDE), 255, 3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def model(home: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint, to be damaged."""
    return Path(shutil.copytree(small_detectors.checkpoint(home, "detr"), tmp_path / "detr"))


@pytest.mark.parametrize("kind", small_detectors.KINDS)
def test_a_checkpoint_says_of_pictures_what_it_said_before(kind: str, home: Path, tmp_path: Path) -> None:
    import transformers as hf

    folder = small_detectors.checkpoint(home, kind)
    trunk = open_checkpoint(folder, COLOUR).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (2, *COLOUR.shape, 3), dtype=np.uint8)
    trunk.save_alone(tmp_path)
    own = trunk.scaled(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
    shade = 1.1 / 255 / min(small_detectors.DEVIATION if kind not in PLAIN else [1])
    for place in (folder, tmp_path):  # and so does what is saved of it
        seen = hf.AutoImageProcessor.from_pretrained(place)(list(pictures), return_tensors="pt")["pixel_values"]
        assert tuple(seen.shape[2:]) == ((48, 48) if kind == "yolos" else (64, 64))
        assert float((own - seen).abs().max()) < (1e-5 if kind == "yolos" else shade), "Pillow rounds to shades"
        with torch.no_grad():
            expected = getattr(hf, AUTO).from_pretrained(place).eval()(seen)
            found = trunk.network(seen)
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.pred_boxes, expected.pred_boxes)
    assert trunk.queries == found.logits.shape[1] == small_detectors.QUERIES
    assert not any(module.p for module in trunk.modules() if isinstance(module, torch.nn.Dropout))
    assert all(weights.requires_grad for weights in trunk.parameters())


@pytest.mark.parametrize("kind", ["detr", "rt_detr_v2", "yolos"])
def test_what_was_learned_of_a_class_of_the_same_name_stays(kind: str, home: Path) -> None:
    trunk = open_checkpoint(small_detectors.checkpoint(home, kind), COLOUR)
    before = {name: of.clone() for name, of in trunk.network.state_dict().items()}
    torch.manual_seed(1)
    trunk.lay_classes(["0", "1", "Person", "7"])
    after, rows = trunk.network.state_dict(), class_tensors(trunk.network)
    assert rows and all("class" in name or "score" in name for name in rows)
    for name, of in after.items():
        if name not in rows:
            assert torch.equal(of, before[name]), name
            continue
        assert torch.equal(of[2:4], before[name][[3, 1]]), "person and 7, by name"
        assert len(of) == 4 or torch.equal(of[4], before[name][5]), "that there is nothing"
        if of.ndim > 1:
            assert not any(torch.equal(row, old) for row in of[:2] for old in before[name])
    assert trunk.network.config.id2label == {0: "0", 1: "1", 2: "Person", 3: "7"}
    torch.manual_seed(2)
    trunk.lay_classes(["0", "1", "Person", "7"])
    assert all(torch.equal(of, after[name]) for name, of in trunk.network.state_dict().items()), "none is new"


def test_grey_images_go_into_all_channels(home: Path) -> None:
    trunk = open_checkpoint(small_detectors.checkpoint(home, "yolos"), ImageColumn("image", (48, 48), 255)).eval()
    grey = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(trunk(grey).logits, trunk(grey.expand(-1, 3, -1, -1)).logits)


def test_pretrain_takes_it_as_it_is_and_says_from_where(home: Path) -> None:
    folder = small_detectors.trunk(home, "detr")
    said = verify(folder).input("rootstock")
    assert said is not None and said.annotations == {"source": "detectors/detr"}
    assert read_json(folder / "metrics.json") == {"steps": 0}
    torch.manual_seed(1)  # a checkpoint is drawn by 0
    trunk, untrained = (load_trunk(folder, weights=weights) for weights in (True, False))
    own = open_checkpoint(small_detectors.checkpoint(home, "detr"), ImageColumn("image", (48, 48), 255))
    before, after, random = (of.state_dict() for of in (own, trunk, untrained))
    assert before.keys() == after.keys() == random.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(
        before["network.bbox_predictor.layers.0.weight"], random["network.bbox_predictor.layers.0.weight"]
    )


def of_another_architecture(model: Path) -> None:
    edit(model / "config.json", model_type="detre")


def of_timm(model: Path) -> None:
    edit(model / "config.json", backbone_config=None, use_timm_backbone=True, backbone="resnet50")


def of_timm_by_default(model: Path) -> None:
    values = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({name: of for name, of in values.items() if "backbone" not in name}))


def of_a_name(model: Path) -> None:
    edit(model / "config.json", backbone_config=None, use_timm_backbone=False, backbone="microsoft/resnet-50")


def of_other_classes(model: Path) -> None:
    edit(model / "config.json", id2label={"0": "one"}, label2id={"one": 0})


def of_other_layers(model: Path) -> None:
    edit(model / "config.json", encoder_layers=2)


def of_classes_from_one_on(model: Path) -> None:
    edit(model / "config.json", id2label={str(n): f"class {n}" for n in range(1, 6)}, label2id={})


def of_a_wrong_type(model: Path) -> None:
    edit(model / "config.json", num_queries="many")


def of_no_heads(model: Path) -> None:
    edit(model / "config.json", decoder_attention_heads=0)


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def with_code(model: Path) -> None:
    edit(model / "config.json", auto_map={"AutoModelForObjectDetection": "code.Model"})


def truncated(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 12)


def without_processor(model: Path) -> None:
    (model / "preprocessor_config.json").unlink()


def of_no_size(model: Path) -> None:
    edit(model / "preprocessor_config.json", size={"edge": 3})


def of_an_empty_size(model: Path) -> None:
    edit(model / "preprocessor_config.json", size=[])


def of_no_filter(model: Path) -> None:
    edit(model / "preprocessor_config.json", resample="soft")


def padding(model: Path) -> None:
    edit(model / "preprocessor_config.json", pad_size={"height": 96, "width": 96})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (of_another_architecture, "model_type 'detre'; did you mean 'detr'?; expected one of conditional_detr, "),
        (of_timm, "its backbone 'resnet50' is timm's, and timm is not installed"),
        (of_timm_by_default, "its backbone 'resnet50' is timm's, and timm is not installed"),
        (of_a_name, "a backbone 'microsoft/resnet-50' by its name alone; expected backbone_config"),
        (of_other_classes, "expected tensors that fit config.json"),
        (of_other_layers, "is missing (and "),
        (of_classes_from_one_on, "config.json: id2label with the numbers [1, 2, 3, 4, 5]; expected all from 0 on"),
        (of_a_wrong_type, "config.json: no config of a detector ("),
        (of_no_heads, "expected tensors that fit config.json"),
        (pickled, "pytorch_model.bin: weights in pickle format"),
        (with_code, "auto_map: the checkpoint names code to load"),
        (truncated, "model.safetensors: "),
        (without_processor, "preprocessor_config.json: the file is missing"),
        (of_no_size, "preprocessor_config.json: no "),
        (of_an_empty_size, "preprocessor_config.json: no "),
        (of_no_filter, "preprocessor_config.json: no "),
        (padding, "preprocessor_config.json: it pads pictures"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(damage: Callable[[Path], None], says: str, model: Path) -> None:
    damage(model)
    assert says in refusal(lambda: open_checkpoint(model, COLOUR))


def test_images_that_do_not_go_through_are_refused(home: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(small_detectors.checkpoint(home, "rt_detr"), tmp_path / "model"))
    edit(model / "preprocessor_config.json", size={"height": 48, "width": 48})
    assert "images of 48 by 48 pixels do not go through it" in refusal(lambda: open_checkpoint(model, COLOUR))


def test_a_detector_is_no_trunk_for_classes_and_learns_nothing_without_labels(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import small

    schema = read_schema(small_scenes.dataset(home))
    problem = ImageClassification(ImageClassificationParams())
    said = refusal(lambda: problem.build(small_detectors.trunk(home, "detr"), schema, scratch=False))
    assert "which finds boxes by its own layers; expected an image_rootstock" in said
    checkpoint = small_detectors.checkpoint(home, "detr")
    monkeypatch.setattr(rootstock, "ROOT", checkpoint.parent)
    section = small_detectors.params(checkpoint, checkpoint.parent)["pretrain"] | {"epochs": 1}
    out = tmp_path / "trunk"
    assert small.run("pretrain", {"pretrain": section}, in_dataset=small_scenes.dataset(home), out_trunk=out) == 2
    assert "pretrain.epochs: 1 on a detector_rootstock; expected 0" in capsys.readouterr().err
    assert not out.exists()


def test_a_plan_has_no_step_before_those_with_labels(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sample"
    folder.mkdir()
    checkpoint = small_detectors.checkpoint(home, "yolos")
    monkeypatch.setattr(rootstock, "ROOT", checkpoint.parent)
    values = small_detectors.params(checkpoint, checkpoint.parent)
    sections = Sections(
        PretrainParams.model_validate(values["pretrain"]), FinetuneParams.model_validate(values["finetune"]),
        EvaluateParams.model_validate(values["evaluate"]),
    )  # fmt: skip
    sample = sample_dataset(small_scenes.dataset(home), folder)
    made = make_plan("scenes", sections, sample, load_profiles(), threads=1, start=0, seconds=0.01)
    assert [row.stage for row in made.rows] == ["finetune", "evaluate"]
    assert all(row.parameters > 10_000 and row.flops > 0 for row in made.rows)
    assert {cost.profile for cost in made.costs} == set(load_profiles())
