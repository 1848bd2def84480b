"""On a GPU: every stage computes there, equal inputs give equal bits, and answers are those of a CPU. `make gpu-check`
runs these; without a GPU they are skipped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_clips
import small_histories
import small_numbers
import small_pairs
import small_questions
import small_scenes
import small_sets
import small_speech
import small_tags
import small_text
import small_vision
import small_writing

from graftline.components.evaluate.predict import predict
from graftline.dataset import read_schema
from graftline.evaluation.workers import run_all
from graftline.learning import device as module
from graftline.learning.device import count, device
from graftline.learning.loop import alone
from graftline.learning.randomness import seed_everything
from graftline.problems.fit import Data, training
from graftline.problems.registry import make_problem
from graftline.records.folder import verify
from graftline.tasks.finetune import FinetuneParams
from graftline.trunks.text.objectives import build_language_model
from graftline.trunks.text.parameters import MaskedLMParams
from graftline.trunks.text.trunk import load_model

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def inputs(name: str, home: Path) -> tuple[Path, Path]:
    """Return the dataset and the trunk of a small task."""
    return {
        "images": lambda: (small.dataset(home), small.trunk(home)),
        "images by a vit": lambda: (small.dataset(home), small_vision.trunk(home, "vit")),
        "images by a resnet": lambda: (small.dataset(home), small_vision.trunk(home, "resnet")),
        "documents": lambda: (small_text.dataset(home), small_text.trunk(home)),
        "pairs": lambda: (small_pairs.dataset(home), small_text.trunk(home)),
        "questions": lambda: (small_questions.dataset(home), small_questions.trunk(home)),
        "words": lambda: (small_tags.dataset(home), small_tags.trunk(home)),
        "writing": lambda: (small_text.dataset(home), small_text.causal_trunk(home)),
        "translation": lambda: (small_writing.dataset(home), small_writing.trunk(home)),
        "sets of pictures": lambda: (small_sets.dataset(home, "pictures"), small_sets.trunk(home, "pictures")),
        "sets of sentences": lambda: (small_sets.dataset(home, "sentences"), small_sets.trunk(home, "sentences")),
        "numbers of images": lambda: (small_numbers.dataset(home, "images"), small.trunk(home)),
        "numbers of texts": lambda: (small_numbers.dataset(home, "texts"), small_text.trunk(home)),
        "objects in images": lambda: (small_scenes.dataset(home), small_scenes.trunk(home, "conv")),
        "objects by a convnext": lambda: (small_scenes.dataset(home), small_scenes.trunk(home, "convnextv2")),
        "histories": lambda: (small_histories.dataset(home), small_histories.trunk(home)),
        "clips": lambda: (small_clips.dataset(home), small_clips.trunk(home)),
        "speech": lambda: (small_speech.dataset(home), small_speech.trunk(home)),
    }[name]()


HEADS: dict[str, dict[str, Any]] = {
    "images": {**small.PARAMS["finetune"], "joint_weight": 0.5},
    "images by a vit": {**small.PARAMS["finetune"], "joint_weight": 0.5},
    "images by a resnet": {**small.PARAMS["finetune"], "joint_weight": 0.5},
    "documents": {**small_text.FINETUNE, "joint_weight": 0.5},
    "pairs": {**small_pairs.FINETUNE, "joint_weight": 0.5},
    "questions": {**small_questions.FINETUNE, "joint_weight": 0.5},
    "words": small_tags.FINETUNE,
    "writing": {**small_text.FINETUNE, "head": {"name": "text_generation"}},
    "translation": {**small_writing.FINETUNE, "joint_weight": 0.5},
    "sets of pictures": {**small_sets.PARAMS["pictures"]["finetune"], "joint_weight": 0.5},
    "sets of sentences": {**small_sets.PARAMS["sentences"]["finetune"], "joint_weight": 0.5},
    "numbers of images": {**small.PARAMS["finetune"], "head": {"name": "image_regression"}, "joint_weight": 0.5},
    "numbers of texts": {**small_text.FINETUNE, "head": {"name": "text_regression"}, "joint_weight": 0.5},
    "objects in images": {**small_scenes.params()["finetune"], "joint_weight": 0.5},
    "objects by a convnext": {**small_scenes.params()["finetune"], "joint_weight": 0.5},
    "histories": {**small_histories.PARAMS["finetune"], "joint_weight": 0.5},
    "clips": {**small_clips.PARAMS["finetune"], "joint_weight": 0.5},
    "speech": {**small_speech.FINETUNE, "joint_weight": 0.5},
}
STEPS = 8


@pytest.mark.parametrize("name", HEADS)
def test_a_step_lowers_the_loss_on_the_gpu_and_the_bits_of_two_trainings_are_equal(name: str, home: Path) -> None:
    dataset, trunk = inputs(name, home)
    params = FinetuneParams.model_validate(HEADS[name])
    head = make_problem(params.head, read_schema(dataset))
    train, unlabelled = (head.read(dataset, split, trunk) for split in ("train", "unlabelled"))
    ended = []
    for _ in range(2):
        seed_everything(0, threads=1)
        model, run = training(trunk, Data(train, None, unlabelled), params, 0, read_schema(dataset))
        assert {weight.device.type for weight in run.module.parameters()} == {"cuda"}
        step, losses = alone(run), []
        for number in range(STEPS):
            losses.append(float(run.loss(0)))
            assert run.loss(number).device.type == "cuda"  # with a loss on the CPU, the joint one's
            step(number)
        assert losses[-1] < losses[0]
        ended.append((losses, {key: weight.cpu() for key, weight in run.module.state_dict().items()}))
    assert torch.cuda.memory_allocated() > 0
    assert model.answer(train.take(torch.arange(8)))
    (losses, first), (again, second) = ended
    assert losses == again
    assert [key for key, weight in first.items() if not torch.equal(weight, second[key])] == []


PRETRAINED: dict[str, tuple[Any, dict[str, Any]]] = {
    "images": (small.dataset, small.PARAMS),
    "images by a vit": (small.dataset, small_vision.params("vit")),
    "images by a resnet": (small.dataset, small_vision.params("resnet")),
    "documents": (small_text.dataset, {"pretrain": small_text.PRETRAIN}),
    "translation": (small_writing.dataset, {"pretrain": small_writing.PRETRAIN}),
    "histories": (small_histories.dataset, small_histories.PARAMS),
    "speech": (small_speech.dataset, {"pretrain": small_speech.PRETRAIN}),
}


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_bits_of_two_pretrainings_are_equal(name: str, home: Path, tmp_path: Path) -> None:
    dataset, document = PRETRAINED[name]
    outs = [tmp_path / number / "trunk" for number in "12"]
    for out in outs:
        out.parent.mkdir()
        small.make("pretrain", document, in_dataset=dataset(home), out_trunk=out)
    assert verify(outs[0]).content == verify(outs[1]).content


@pytest.mark.parametrize("name", ["documents", "writing"])  # of images bench/gpu.py shows it, with a kill
def test_the_bits_of_two_runs_are_equal_and_the_record_names_the_gpu(name: str, home: Path, tmp_path: Path) -> None:
    dataset, trunk = inputs(name, home)
    outs = [tmp_path / number / "model" for number in "12"]
    for out in outs:
        out.parent.mkdir()
        small.make("finetune", {"finetune": HEADS[name]}, in_dataset=dataset, in_trunk=trunk, out_model=out)
    first, second = (verify(out) for out in outs)
    assert first.content == second.content
    assert str(first.environment["gpu"]).startswith(torch.cuda.get_device_name())
    assert first.environment["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", ["images", "documents"])
def test_answers_are_those_of_the_cpu(name: str, home: Path, tmp_path: Path) -> None:
    dataset, trunk = inputs(name, home)
    small.make("finetune", {"finetune": HEADS[name]}, in_dataset=dataset, in_trunk=trunk, out_model=tmp_path / "model")
    found = predict(tmp_path / "model", dataset)
    there = found.model.answer(found.examples)
    here = found.model.cpu().answer(found.examples)
    assert there.probabilities == pytest.approx(here.probabilities, abs=1e-4)


def test_a_compiled_model_learns_what_an_eager_one_learns(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, trunk = inputs("documents", home)
    params = FinetuneParams.model_validate(
        {**small_text.FINETUNE, "head": {"name": "sequence_classification", "precision": "float32"}}
    )
    train = make_problem(params.head, read_schema(dataset)).read(dataset, "train", trunk)
    monkeypatch.setattr(module, "COMPILED_STEPS", 1)
    losses = []
    for compiled in (False, True):
        model, run = training(trunk, Data(train, None), params, 0, read_schema(dataset))
        if compiled:
            model.compile_if_worth(run.steps)
        step = alone(run)
        losses.append([step(number)[0].item() for number in range(4)])  # type: ignore[index]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_pretraining_compiles_and_the_loss_is_that_of_the_eager_model(home: Path) -> None:
    from graftline.learning.randomness import generator
    from graftline.text.batches import pack
    from graftline.text.tokenizer import load_tokenizer

    trunk = small_text.trunk(home)
    tokenizer, draw = load_tokenizer(trunk), torch.Generator().manual_seed(0)
    lengths = torch.tensor([12, 12, 20])
    ids = torch.randint(10, len(tokenizer), (int(lengths.sum()),), generator=draw)
    batch = pack(ids.numpy(), lengths.numpy(), torch.arange(3).numpy())
    losses = []
    for steps in (1, module.COMPILED_STEPS):
        model = load_model(trunk, decodes=False)
        objective = build_language_model(model, tokenizer, "float32", MaskedLMParams()).to(device())
        module.compile_if_worth(objective.model.base_model, steps)
        loss = objective.loss(batch, generator(0, 0, "objective"))
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_workers_compute_on_gpus(home: Path) -> None:
    places = run_all(place_of, [0, 1], workers=2, done=lambda place: None)
    assert set(places) <= {f"cuda:{number}" for number in range(count())}


def place_of(item: int) -> str:
    return str(torch.ones(1, device=device()).device)


def test_evaluate_measures_the_lift_on_the_gpu(home: Path, tmp_path: Path) -> None:
    dataset, trunk = inputs("images", home)
    small.make("finetune", small.PARAMS, in_dataset=dataset, in_trunk=trunk, out_model=tmp_path / "model")
    places = {"in_dataset": dataset, "in_trunk": trunk, "in_model": tmp_path / "model"}
    outs = [tmp_path / number / "evaluation" for number in "12"]
    for threads, out in zip(("1", "2"), outs, strict=True):
        out.parent.mkdir()
        small.make("evaluate", small.PARAMS, **places, store=tmp_path / "store", threads=threads, out_evaluation=out)
    assert verify(outs[0]).content == verify(outs[1]).content
