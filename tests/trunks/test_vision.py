"""Image trunks of transformers' own classes: their shapes, what they learn from, and their way to a file and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small_vision
import torch

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.learning.distributed import World
from graftline.learning.parameters import Augmentation
from graftline.learning.shards import blocks
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks import CONFIG
from graftline.trunks.images import load_objective, load_trunk
from graftline.trunks.vision.family import FAMILY
from graftline.trunks.vision.masked_image import MaskedImage
from graftline.trunks.vision.objectives import build_objective
from graftline.trunks.vision.parameters import MaskedImageParams
from graftline.trunks.vision.trunk import VisionTrunk, new_trunk
from graftline.values.image import ImageColumn
from graftline.values.splits import read_images

KINDS = sorted(small_vision.TRUNKS)
GREY, COLOUR = ImageColumn("image", (28, 28), 255), ImageColumn("image", (28, 56), 255, 3)
STILL = Augmentation(shift=0)


def made(kind: str, image: ImageColumn = GREY) -> VisionTrunk:
    params = PretrainParams(trunk=small_vision.TRUNKS[kind], objective=MaskedImageParams())
    torch.manual_seed(0)
    return new_trunk(params.trunk, image)


def objective(trunk: VisionTrunk, **values: object) -> MaskedImage:
    return MaskedImage(trunk, MaskedImageParams(patch=7, **values), "float32")


@pytest.fixture(scope="module")
def pixels(dataset: Path) -> torch.Tensor:
    return torch.from_numpy(read_images(dataset, "unlabelled").pixels[:32])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_become_embeddings_and_the_map_that_they_were_pooled_from(kind: str, image: ImageColumn) -> None:
    trunk = made(kind, image).eval()
    images = torch.rand(3, image.channels, *image.shape)
    embedded, features = trunk.look(images)
    assert torch.allclose(embedded, trunk(images), atol=1e-6)
    assert embedded.shape == (3, trunk.width) == (3, 32)
    assert features.shape[:2] == (3, 32)
    high, wide = features.shape[2:]
    assert abs(wide / high - image.shape[1] / image.shape[0]) < 0.5
    changed = images.clone()
    changed[..., : image.shape[0] // 8, : image.shape[1] // 8] = 1 - changed[..., :3, : image.shape[1] // 8]
    moved = (trunk.look(changed)[1] - features).abs().sum(dim=(0, 1))
    assert moved.flatten().argmax() == 0, "the map's first place is not that of the image's first corner"


def shaken(kind: str, image: ImageColumn = COLOUR) -> VisionTrunk:
    """Return a trunk in which each weight has a part: biases, which start as zeros, too."""
    params = small_vision.TRUNKS[kind] | ({"channels": [128, 128]} if kind == "resnet" else {})
    torch.manual_seed(0)
    trunk = new_trunk(PretrainParams(trunk=params, objective=MaskedImageParams()).trunk, image)
    with torch.no_grad():
        for weights in trunk.parameters():
            weights.add_(torch.randn_like(weights) * 0.1)
    return trunk


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_and_gradients_are_those_of_transformers_own_model(kind: str, tmp_path: Path) -> None:
    """The trunk computes some of it in other ways: a vit's last layer, maps of 2 by 2, a stem."""
    from transformers import AutoModelForImageClassification

    trunk, images = shaken(kind, ImageColumn("image", (14, 14), 255, 3)), torch.rand(3, 3, 14, 14)
    trunk.save(tmp_path)
    plain = AutoModelForImageClassification.from_pretrained(tmp_path, local_files_only=True).train()
    last = [name for name, module in plain.named_modules() if isinstance(module, torch.nn.Linear)][-1]
    plain.set_submodule(last, torch.nn.Identity())
    asked, found = torch.randn(3, trunk.width), []
    for network, embedded in ((trunk, trunk(images)), (plain, plain(trunk.scaled(images)).logits)):
        gradients = torch.autograd.grad((embedded * asked).sum(), list(network.parameters()))
        found.append([embedded, *gradients])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * other.detach().abs().max().item() + 1e-5)


def test_the_last_layer_computes_no_keys_unless_somebody_watches_them() -> None:
    trunk, images, seen = shaken("vit"), torch.rand(3, 3, 28, 56), []
    last = trunk.network.vit.layers[-1]
    with torch.no_grad():
        last.register_forward_hook(lambda _module, _inputs, out: seen.append(out.shape[1]))
        plain = trunk(images)
        last.attention.k_proj.register_forward_hook(lambda _module, _inputs, out: seen.append(out.shape[1]))
        watched = trunk(images)
    assert seen == [1, 33, 33], "the class token alone; then the keys, and the layer, of it and of 32 patches"
    assert torch.allclose(plain, watched, atol=1e-5)


def test_shards_find_every_layer_of_a_vit() -> None:
    trunk = made("vit")
    assert {id(layer) for layer in trunk.network.vit.layers} <= {id(part) for part in blocks(trunk)}


def test_a_decoder_is_built_where_the_trunk_is() -> None:
    """The joint objective gets a trunk that is on its device already; `meta` stands for any other than the CPU."""
    objective(made("vit").to("meta"))


@pytest.mark.parametrize("kind", KINDS)
def test_trunk_and_decoder_both_learn(kind: str, pixels: torch.Tensor) -> None:
    asked = objective(made(kind))
    asked.loss(pixels, 0, 0).backward()
    still = [name for name, weights in asked.named_parameters() if weights.grad is None or not weights.grad.any()]
    assert still == []


@pytest.mark.parametrize("kind", ["convnextv2", "vit", "resnet"])
def test_what_is_hidden_does_not_make_the_first_gradient_large(kind: str) -> None:
    """In the default shapes: of ConvNeXt V2 it was 25,000, all but 1 of it in the bias of the patches' embedding."""
    torch.manual_seed(0)
    asked = MaskedImage(
        new_trunk(PretrainParams(trunk={"name": kind}, objective=MaskedImageParams()).trunk, COLOUR),
        MaskedImageParams(),
        "float32",
    )
    asked.loss(torch.rand(8, 3, 28, 56), 0, 0).backward()
    largest = max(weights.grad.norm().item() for weights in asked.parameters() if weights.grad is not None)
    assert 0.01 < largest < 100


def test_the_loss_is_that_of_hidden_pixels_alone(pixels: torch.Tensor) -> None:
    asked = objective(made("vit"), augmentation=STILL).eval()
    seen: list[torch.Tensor] = []
    asked.trunk.network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    loss = asked.loss(pixels, 0, 0).item()
    (shown,) = seen
    hidden, meant = shown.abs() < 1e-6, asked.trunk.scaled(pixels)
    assert 0.5 < hidden.float().mean() < 0.7
    assert torch.allclose(shown[~hidden], meant[~hidden], atol=1e-5)
    error = (asked.decoder(*asked.trunk.look(shown / 2 + 0.5)) - meant).abs()
    assert loss == pytest.approx(error[hidden].mean().item(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_a_pure_function_of_seed_and_step(kind: str, pixels: torch.Tensor) -> None:
    asked = objective(made(kind)).eval()
    losses = {(seed, step): asked.loss(pixels, seed, step).item() for seed in (0, 1) for step in (0, 1)}
    torch.rand(9)
    assert all(asked.loss(pixels, *which).item() == loss for which, loss in losses.items())
    assert len(set(losses.values())) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_processes_addends_are_the_whole_loss(kind: str, pixels: torch.Tensor) -> None:
    asked = objective(made(kind)).eval()
    parts = [asked.loss(pixels, 0, 3, World(rank, 3, rank, 3)).item() for rank in range(3)]
    assert sum(parts) == pytest.approx(asked.loss(pixels, 0, 3).item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_contrast_trains_these_trunks_too(kind: str, pixels: torch.Tensor) -> None:
    params = PretrainParams(trunk=small_vision.TRUNKS[kind], objective={"name": "contrastive"})
    asked = build_objective(made(kind), params.objective, "float32")
    asked.loss(pixels, 0, 0).backward()
    assert all(weights.grad is not None and weights.grad.any() for weights in asked.trunk.parameters())


def test_statistics_of_batches_are_shared_by_the_processes() -> None:
    from graftline.learning.batch_norm import BatchNorm2d

    kinds = {type(module) for module in made("resnet").modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert kinds == {BatchNorm2d}


def test_a_patch_that_does_not_divide_the_images_is_refused() -> None:
    params = PretrainParams(trunk={"name": "vit", "patch": 8}, objective=MaskedImageParams())
    with pytest.raises(InputError, match=r"pretrain.trunk.patch: 8 for images of 28 by 28 pixels"):
        FAMILY.check(Schema(GREY, None, ()), params)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_trunk_has_the_weights_and_an_untrained_one_has_not(kind: str, home: Path) -> None:
    folder = small_vision.trunk(home, kind)
    first, second = load_trunk(folder).eval(), load_trunk(folder).eval()
    torch.manual_seed(1)
    fresh = load_trunk(folder, weights=False).eval()
    assert first.config() == fresh.config() == json.loads((folder / CONFIG).read_text())["trunk"]
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(first(images), second(images))
    assert not torch.allclose(first(images), fresh(images))
    assert first.state_dict().keys() == fresh.state_dict().keys()


def test_the_objective_goes_on_where_pretraining_ended(home: Path, pixels: torch.Tensor) -> None:
    folder = small_vision.trunk(home, "vit")
    losses = [
        load_objective(folder, load_trunk(folder), "float32", scratch=scratch).loss(pixels, 0, 0).item()
        for scratch in (False, False, True)
    ]
    assert losses[0] == losses[1] < losses[2]


@pytest.mark.parametrize("objective", [{"name": "masked_image", "mask_ratio": 2}, {"name": "painting"}, "contrastive"])
def test_an_objective_that_is_none_is_refused(objective: object, home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_vision.trunk(home, "vit"), tmp_path / "trunk"))
    config = json.loads((folder / CONFIG).read_bytes()) | {"objective": objective}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"trunk\.json: not an objective's parameters.*run pretrain again"):
        load_objective(folder, load_trunk(folder), "float32", scratch=True)


def test_a_model_file_that_does_not_fit_is_refused(home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_vision.trunk(home, "vit"), tmp_path / "trunk"))
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"model\.safetensors.*run pretrain again"):
        load_trunk(folder)
    (folder / "config.json").write_text('{"model_type": "vti"}')
    with pytest.raises(InputError, match=r"config\.json: no config of an image model"):
        load_trunk(folder)
