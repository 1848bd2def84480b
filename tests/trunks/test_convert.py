"""A PyTorch file of weights becomes a checkpoint: the same answers, every tensor accounted for, nothing unpickled."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from torch import nn

from graftline.digests import sha256_file
from graftline.errors import InputError
from graftline.trunks import rootstock
from graftline.trunks.convert import convert_file
from graftline.trunks.rootstock import resolve
from graftline.trunks.vision.parameters import ImageRootstockParams

ABOUT = {"licence": "bsd-3-clause", "source": "pkg:pypi/weights@1.0"}


def layers(*parts: tuple[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def convolution(before: int, after: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """torchvision's Conv2dNormActivation."""
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(after), nn.ReLU6()
    )


class Inverted(nn.Module):
    """torchvision's InvertedResidual."""

    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        wide, self.adds = before * expand, stride == 1 and before == after
        first = [] if expand == 1 else [convolution(before, wide)]
        self.conv = nn.Sequential(
            *first, convolution(wide, wide, 3, stride, wide),
            nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(seen)
        return seen + found if self.adds else found


def mobilenet_v2() -> nn.Module:
    """The architecture under torchvision's names (Sandler et al., 2018, arXiv:1801.04381, table 2)."""
    blocks: list[nn.Module] = [convolution(3, 32, 3, 2)]
    before = 32
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, after, count, stride in table:
        for number in range(count):
            blocks.append(Inverted(before, after, stride if number == 0 else 1, expand))
            before = after
    blocks.append(convolution(before, 1280))
    top = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 5))
    return layers(
        ("features", nn.Sequential(*blocks)), ("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()),
        ("classifier", top),
    )  # fmt: skip


class Residual(nn.Module):
    """torchvision's BasicBlock, or with `narrow` its Bottleneck."""

    def __init__(self, before: int, after: int, stride: int, narrow: int | None) -> None:
        super().__init__()
        widths = [after, after] if narrow is None else [narrow, narrow, after]
        sizes, strides = ([3, 3], [stride, 1]) if narrow is None else ([1, 3, 1], [1, stride, 1])
        self.count = len(widths)
        for place, (wide, size, step) in enumerate(zip(widths, sizes, strides, strict=True), 1):
            previous = before if place == 1 else widths[place - 2]
            setattr(self, f"conv{place}", nn.Conv2d(previous, wide, size, step, size // 2, bias=False))
            setattr(self, f"bn{place}", nn.BatchNorm2d(wide))
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        found = seen
        for place in range(1, self.count + 1):
            found = getattr(self, f"bn{place}")(getattr(self, f"conv{place}")(found))
            found = found.relu() if place < self.count else found
        return (found + (seen if self.downsample is None else self.downsample(seen))).relu()


def resnet(narrow: bool) -> nn.Module:
    """The architecture under torchvision's names, eight channels wide at its narrowest."""
    stages: list[tuple[str, nn.Module]] = []
    before = 8
    for number, depth in enumerate((2, 1, 1, 1)):
        wide = 8 * 2**number
        after = 4 * wide if narrow else wide
        blocks = []
        for place in range(depth):
            stride = 2 if number and place == 0 else 1
            blocks.append(Residual(before, after, stride, wide if narrow else None))
            before = after
        stages.append((f"layer{number + 1}", nn.Sequential(*blocks)))
    return layers(
        ("conv1", nn.Conv2d(3, 8, 7, 2, 3, bias=False)), ("bn1", nn.BatchNorm2d(8)), ("relu", nn.ReLU()),
        ("maxpool", nn.MaxPool2d(3, 2, 1)), *stages, ("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()),
        ("fc", nn.Linear(before, 5)),
    )  # fmt: skip


def unsettled(model: nn.Module) -> nn.Module:
    """Give normalisation layers statistics and scales of their own, so that a mistaken one shows."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2)
    return model.eval()


def uncounted(state: dict[str, Any]) -> dict[str, Any]:
    """Return the weights as torchvision's first files have them: without numbers of batches."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("layout", "model", "wrapped"),
    [
        ("torchvision-mobilenet_v2", mobilenet_v2, lambda state: state),
        ("torchvision-resnet", lambda: resnet(False), lambda state: {"state_dict": state, "epoch": 3}),
        ("torchvision-resnet", lambda: resnet(True), lambda state: {f"module.{n}": t for n, t in state.items()}),
        ("torchvision-resnet", lambda: resnet(False), uncounted),
    ],
    ids=["mobilenet_v2", "resnet", "resnet with bottlenecks", "resnet of before PyTorch 0.4.1"],
)
def test_the_checkpoint_answers_as_the_weights_did(
    layout: str, model: Any, wrapped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageClassification

    before = unsettled(model())
    torch.save(wrapped(before.state_dict()), tmp_path / "weights.pth")
    facts = convert_file(tmp_path / "weights.pth", tmp_path / "model", layout, **ABOUT)
    after = AutoModelForImageClassification.from_pretrained(tmp_path / "model", local_files_only=True).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(after(images).logits, before(images), atol=1e-4, rtol=1e-4)
    digests = {"sha256": tmp_path / "weights.pth", "model.safetensors": tmp_path / "model/model.safetensors"}
    assert {name: facts[name] for name in digests} == {name: sha256_file(path) for name, path in digests.items()}
    monkeypatch.setattr(rootstock, "ROOT", tmp_path)
    found = resolve(ImageRootstockParams(path="model"))
    assert found.annotations() == {"source": "model", "licence": "bsd-3-clause", "converted_from": facts["sha256"]}
    again = convert_file(tmp_path / "weights.pth", tmp_path / "again", layout, **ABOUT)
    assert again == facts


def test_a_note_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(resnet(False).state_dict(), tmp_path / "weights.pth")
    convert_file(tmp_path / "weights.pth", tmp_path / "model", "torchvision-resnet", **ABOUT)
    note = tmp_path / "model/conversion.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"model.safetensors": "0" * 64}))
    monkeypatch.setattr(rootstock, "ROOT", tmp_path)
    with pytest.raises(InputError, match=r"conversion\.json: it is of model\.safetensors 000"):
        resolve(ImageRootstockParams(path="model"))


class Harmful:
    """What a pickle can make a reader do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_a_file_that_would_run_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    state = resnet(False).state_dict()
    torch.save({"state_dict": state, "config": Harmful(tmp_path / "ran")}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth: torch's weights_only reader refuses it"):
        convert_file(tmp_path / "weights.pth", tmp_path / "model", "torchvision-resnet", **ABOUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.pth"]


def without(state: dict[str, Any]) -> Any:
    return {name: tensor for name, tensor in state.items() if name != "layer2.0.bn1.weight"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without, "it has no resnet.encoder.stages.1.layers.0.layer.0.normalization.weight"),
        (lambda state: state | {"extra": torch.ones(1)}, "weights.pth: extra: no tensor of the layout"),
        (lambda state: state | {"fc.weight": torch.ones(5, 3)}, r"classifier.1.weight is \(5, 3\); expected \(5, 64\)"),
        (lambda state: state | {"fc.bias": torch.full((5,), torch.nan)}, "classifier.1.bias is NaN or infinite"),
        (lambda state: {"fc.bias": state["fc.bias"]}, "no .* in it; expected weights of torchvision-resnet"),
        (lambda state: [1, 2], "a list, no tensors by name"),
        (lambda state: {}, "a dict, no tensors by name"),
    ],
)
def test_other_weights_than_the_layouts_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    torch.save(change(dict(resnet(False).state_dict())), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=says):
        convert_file(tmp_path / "weights.pth", tmp_path / "model", "torchvision-resnet", **ABOUT)
    assert not (tmp_path / "model").exists()


def test_the_command_prints_both_digests_and_refuses_an_unknown_layout(tmp_path: Path) -> None:
    torch.save(resnet(False).state_dict(), tmp_path / "weights.pth")
    start = [sys.executable, "-c", "from graftline.cli.app import main; main()", "convert", "weights.pth", "model"]
    about = ["--licence", "mit", "--source", "a friend"]
    wrong, done = (
        forked.run([*start, "--layout", layout, *about], cwd=tmp_path, text=True)
        for layout in ("torchvision-resnte", "torchvision-resnet")
    )
    assert (wrong.returncode, "did you mean 'torchvision-resnet'?" in wrong.stderr) == (2, True)
    assert done.returncode == 0, done.stderr
    for path in ("weights.pth", "model/model.safetensors"):
        assert f"{path}  sha256 {sha256_file(tmp_path / path)}" in done.stdout
