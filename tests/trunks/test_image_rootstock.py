"""A public image model as rootstock: whole checkpoints are taken as they are, others are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from damaged import edit, refusal
from torch import nn

from graftline.plan import Sections, make_plan
from graftline.plan.sample import sample_dataset
from graftline.profiles import load_profiles
from graftline.records.folder import verify
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks import rootstock
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.images import load_trunk
from graftline.trunks.rootstock import resolve
from graftline.trunks.vision.objectives import build_objective
from graftline.trunks.vision.parameters import ImageRootstockParams, MaskedImageParams
from graftline.trunks.vision.rootstock import open_checkpoint
from graftline.values.image import ImageColumn

MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
COLOUR, GREY = ImageColumn("image", (32, 32), 255, 3), ImageColumn("image", (28, 28), 255)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, in which `path` is looked up."""
    monkeypatch.setattr(rootstock, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models for colour, as their authors would save them: one with a head, one without."""
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForImageClassification(
        ViTConfig(image_size=32, patch_size=4, num_labels=7, hidden_dropout_prob=0.5, **sizes)
    ).save_pretrained(folder / "vit")
    ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")).save_pretrained(
        folder / "resnet"
    )
    for model in folder.iterdir():
        values = {"image_processor_type": "ViTImageProcessor", "image_mean": MEAN, "image_std": DEVIATION}
        (model / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def models(saved: Path, root: Path) -> Path:
    return Path(shutil.copytree(saved, root / "models"))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_checkpoint_says_of_colour_images_what_it_said_before(models: Path, name: str) -> None:
    from transformers import AutoModel

    trunk = open_checkpoint(models / name, COLOUR).eval()
    images = torch.rand(2, 3, 32, 32)
    mean, deviation = (torch.tensor(of)[:, None, None] for of in (MEAN, DEVIATION))
    with torch.no_grad():
        seen = AutoModel.from_pretrained(models / name).eval()((images - mean) / deviation)
        expected = seen.last_hidden_state[:, 0] if name == "vit" else seen.pooler_output.flatten(1)
        torch.testing.assert_close(trunk(images), expected)
    assert not any(module.p for module in trunk.modules() if isinstance(module, torch.nn.Dropout))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_grey_images_of_another_size_go_into_all_channels(models: Path, name: str) -> None:
    trunk = open_checkpoint(models / name, GREY).eval()
    grey = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(trunk(grey), trunk(grey.expand(-1, 3, -1, -1)))
    _, features = trunk.look(grey)
    if name == "vit":  # its positions are the checkpoint's own, from 8 by 8 places to 7 by 7
        own, before = (folder_positions(part) for part in (trunk.network, models / name))
        torch.testing.assert_close(own[:, 0], before[:, 0])
        assert (own.shape, features.shape[2:]) == ((1, 50, 16), (7, 7))
        torch.testing.assert_close(own[:, 1:].mean(), before[:, 1:].mean(), atol=0.01, rtol=0)


def other(kind: str) -> Any:
    """Return an untrained model of another architecture than those that graftline trains from scratch."""
    import transformers as hf

    small: dict[str, Any] = {"hidden_sizes": [16] * 3, "depths": [1] * 3, "num_attention_heads": [2] * 3}
    if kind == "swin":
        config = hf.SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
    elif kind == "segformer":
        blocks = {"num_encoder_blocks": 3, "sr_ratios": [4, 2, 1], "patch_sizes": [7, 3, 3], "strides": [4, 2, 2]}
        config = hf.SegformerConfig(**small, **blocks, mlp_ratios=[2] * 3)
    else:
        return hf.LevitForImageClassification(hf.LevitConfig(image_size=32, **small, key_dim=[8] * 3))
    return hf.AutoModelForImageClassification.from_config(config)


@pytest.mark.parametrize("kind", ["swin", "segformer", "levit"])
def test_other_architectures_start_too_and_a_map_that_is_none_is_told(kind: str, models: Path) -> None:
    other(kind).save_pretrained(models / kind)
    shutil.copy(models / "vit" / "preprocessor_config.json", models / kind)
    trunk = open_checkpoint(models / kind, COLOUR)
    apart = {nn.BatchNorm1d, nn.BatchNorm2d}  # whose statistics several processes would not share
    assert not [name for name, module in trunk.named_modules() if type(module) in apart]
    images = torch.rand(4, 3, 32, 32)
    build_objective(trunk, ContrastiveParams(), "float32").loss(images, 0, 0).backward()
    if kind == "segformer":
        assert trunk.look(images)[1].shape == (4, 16, 2, 2)
    else:
        said = refusal(lambda: build_objective(trunk, MaskedImageParams(), "float32"))
        assert said == (
            f"pretrain.objective.name: the features of a {kind} are no map of its patches; expected contrastive"
        )


def folder_positions(of: Any) -> torch.Tensor:
    from transformers import AutoModelForImageClassification

    network = AutoModelForImageClassification.from_pretrained(of) if isinstance(of, Path) else of
    found: torch.Tensor = network.vit.embeddings.position_embeddings.detach()
    return found


@pytest.mark.parametrize(
    "values",
    [
        {"do_rescale": False, "image_mean": [123.0, 117.0, 104.0], "image_std": [58.0, 57.0, 56.0]},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"image_processor_type": "EfficientNetImageProcessor", "rescale_factor": 1 / 127.5, "rescale_offset": True},
        {"image_processor_type": "EfficientNetImageProcessor", "include_top": False},
        {"image_processor_type": "EfficientNetImageProcessor", "include_top": True},
        {"image_processor_type": "EfficientNetImageProcessor", "do_normalize": False},
        {"image_processor_type": "EfficientNetImageProcessor", "do_normalize": False, "rescale_offset": True},
    ],
)
def test_pixels_are_scaled_as_the_checkpoints_own_processor_scales_them(models: Path, values: dict[str, Any]) -> None:
    from transformers import AutoImageProcessor

    edit(models / "vit" / "preprocessor_config.json", **values)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    own = AutoImageProcessor.from_pretrained(models / "vit", local_files_only=True)
    meant = own(picture, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(open_checkpoint(models / "vit", COLOUR).scaled(pixels), meant, atol=1e-4, rtol=1e-4)


def damaged(model: Path, how: str) -> None:
    config, processor = model / "config.json", model / "preprocessor_config.json"
    if how == "no scale":
        processor.unlink()
    elif how == "a scale of text":
        edit(processor, image_std=["much", 1, 1])
    elif how == "channels turned round":
        edit(processor, do_flip_channel_order=True)
    elif how == "no deviation":
        edit(processor, image_std=[0, 1, 1])
    elif how == "another kind":
        edit(config, model_type="vitt")
    elif how == "a language model":
        edit(config, model_type="bert")
    elif how == "a width of text":
        edit(config, hidden_size="wide")
    elif how == "no heads":
        edit(config, num_attention_heads=0)
    elif how == "no layers":
        edit(config, num_hidden_layers=0)
    elif how == "a list for a kind":
        edit(config, model_type=["vit"])
    elif how == "channels of text":
        edit(config, num_channels="three")
    elif how == "another shape":
        edit(config, hidden_size=32)
    else:
        from safetensors.torch import load_file, save_file

        tensors = load_file(model / "model.safetensors")
        name = next(name for name in tensors if "layernorm" in name)
        save_file({key: value for key, value in tensors.items() if key != name}, model / "model.safetensors")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no scale", "preprocessor_config.json: the file is missing"),
        ("a scale of text", "no scale of pixels"),
        ("no deviation", "a deviation above 0"),
        ("channels turned round", "no scale of pixels (blue stands before red)"),
        ("another kind", "model_type 'vitt'; did you mean 'vit'?"),
        ("a language model", "expected an architecture that transformers has an image classifier of"),
        ("a width of text", "config.json: no config of an image model (Validation error for field 'hidden_size'"),
        ("no heads", "expected tensors that fit config.json"),
        ("no layers", "config.json: images of 32 by 32 pixels do not go through it (index -1 is out of range)"),
        ("a list for a kind", "model_type ['vit']"),
        ("channels of text", "config.json: num_channels 'three'; expected a whole number"),
        ("another shape", "expected tensors that fit config.json"),
        ("a tensor too few", "is missing (and 0 more)"),
    ],
)
def test_what_is_no_whole_image_model_is_refused(models: Path, how: str, says: str) -> None:
    damaged(models / "vit", how)
    assert says in refusal(lambda: open_checkpoint(models / "vit", COLOUR))


def test_images_that_do_not_fit_the_checkpoint_are_refused(models: Path) -> None:
    grey = models / "vit"
    wrong = ImageColumn("image", (30, 30), 255, 3)
    assert "images of 30 by 30 pixels do not go through it" in refusal(lambda: open_checkpoint(grey, wrong))
    edit(grey / "preprocessor_config.json", image_mean=[0.5], image_std=[0.5])
    assert "a model of images with 3 channels" in refusal(lambda: open_checkpoint(grey, COLOUR))


def test_a_run_starts_from_a_checkpoint_and_records_it(
    models: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (models / "resnet" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    data = small.dataset(tmp_path_factory.getbasetemp())
    pretrain = {
        "epochs": 0,
        "objective": {"name": "masked_image"},
        "trunk": {"name": "image_rootstock", "path": "models/resnet"},
    }
    document = {**small.PARAMS, "pretrain": pretrain}
    small.make("pretrain", document, in_dataset=data, out_trunk=tmp_path / "trunk")
    found = resolve(ImageRootstockParams(path="models/resnet"))
    said = verify(tmp_path / "trunk").input("rootstock")
    assert said is not None
    assert said.sha256 == found.digest
    assert said.annotations == {"source": "models/resnet", "licence": "apache-2.0"}
    grey, own = torch.rand(2, 1, 28, 28), load_trunk(tmp_path / "trunk").eval()
    torch.testing.assert_close(own(grey), open_checkpoint(models / "resnet", GREY).eval()(grey))
    inputs = {"in_dataset": data, "in_trunk": tmp_path / "trunk"}
    small.make("finetune", document, **inputs, out_model=tmp_path / "model")
    (processor,) = [json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())]
    assert (processor["image_mean"], processor["do_convert_rgb"]) == (MEAN, True)


def test_a_plan_has_no_steps_where_a_checkpoint_is_taken_as_it_is(
    models: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sections = Sections(
        PretrainParams.model_validate(
            {
                "epochs": 0,
                "objective": {"name": "masked_image"},
                "trunk": {"name": "image_rootstock", "path": "models/resnet"},
            }
        ),
        FinetuneParams.model_validate({"epochs": 1, "batch": 16}),
        EvaluateParams.model_validate({"lift_labels": [2], "lift_seeds": 2}),
    )
    (tmp_path / "sample").mkdir()
    sample = sample_dataset(small.dataset(tmp_path_factory.getbasetemp()), tmp_path / "sample")
    plan = make_plan("digits", sections, sample, load_profiles(), threads=1, start=0, seconds=0.01)
    pretrain, finetune, _ = plan.rows
    assert (pretrain.steps, pretrain.examples, pretrain.flops, pretrain.seconds) == (0, 0, 0, 0)
    assert pretrain.activation_bytes == 0 < finetune.activation_bytes, "nothing is kept for a backward pass"
