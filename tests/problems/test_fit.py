"""Fine-tuning as a function: the subset, the two arms, the frozen trunk, the joint objective, early stopping."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from graftline.dataset import Schema
from graftline.errors import GraftlineError, InputError
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.loop import Desk
from graftline.problems.fit import Data, EarlyStop, fit, select, steps_for
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.image_classification.problem import ImageClassification, ImageClassifier
from graftline.problems.images import LabelledImages
from graftline.problems.linear_probe import solve
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.score import Score
from graftline.tasks.finetune import FinetuneParams
from graftline.trunks import CONFIG
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.trunks.image_training import OBJECTIVE_WEIGHTS
from graftline.trunks.images import load_trunk
from graftline.values.image import ImageColumn

IMAGES = ImageClassification(ImageClassificationParams())
SCHEMA = Schema(ImageColumn("image", (28, 28), 255), "label", tuple(range(10)))
QUICK = {"epochs": 1, "min_steps": 6, "batch": 32, "warmup_steps": 0}


@pytest.fixture(scope="module")
def examples(dataset: Path) -> LabelledImages:
    return IMAGES.read(dataset, "train", dataset)


@pytest.fixture(scope="module")
def val(dataset: Path) -> LabelledImages:
    return IMAGES.read(dataset, "val", dataset)


@pytest.fixture(scope="module")
def unlabelled(dataset: Path) -> LabelledImages:
    return IMAGES.read(dataset, "unlabelled", dataset)


def quick(**changes: Any) -> FinetuneParams:
    return FinetuneParams(**{**QUICK, **changes})


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# The labelled subset


def test_a_subset_is_balanced_and_a_pure_function_of_the_seed(examples: LabelledImages) -> None:
    first = select(examples, 5, 10, seed=3)
    torch.rand(10)
    again, other = select(examples, 5, 10, seed=3), select(examples, 5, 10, seed=4)
    assert torch.bincount(first.labels).tolist() == [5] * 10
    assert np.array_equal(first.pixels.numpy(), again.pixels.numpy())
    assert not np.array_equal(first.pixels.numpy(), other.pixels.numpy())


def test_a_smaller_subset_is_part_of_a_larger_one(examples: LabelledImages) -> None:
    small, large = (select(examples, count, 10, seed=0).pixels.numpy().reshape(10 * count, -1) for count in (2, 8))
    assert {tuple(row.tolist()) for row in small} < {tuple(row.tolist()) for row in large}


def test_null_selects_all(examples: LabelledImages) -> None:
    assert select(examples, None, 10, seed=0) is examples


def test_more_labels_than_there_are_is_refused_with_the_number_there_is(examples: LabelledImages) -> None:
    with pytest.raises(InputError, match=r"labels_per_class: 600, but class number 0 has (\d+) .* at most \1"):
        select(examples, 600, 10, seed=0)


def test_steps_are_epochs_but_at_least_the_minimum() -> None:
    params = FinetuneParams(epochs=3, batch=10, min_steps=7)
    assert [steps_for(params, count) for count in (10, 23, 24, 100)] == [7, 7, 7, 30]


# The two arms of the lift


def record_batches(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """Let each fit note the pixels that its head is asked about, and how its head starts."""
    runs: list[list[Any]] = []
    forward, build = ImageClassifier.forward, ImageClassifier.__init__

    def built(self: ImageClassifier, *arguments: Any, **given: Any) -> None:
        build(self, *arguments, **given)
        runs.append([tensors(self.output)])

    def asked(self: ImageClassifier, pixels: torch.Tensor) -> torch.Tensor:
        if self.training:
            runs[-1].append(pixels.clone())
        return forward(self, pixels)

    monkeypatch.setattr(ImageClassifier, "__init__", built)
    monkeypatch.setattr(ImageClassifier, "forward", asked)
    return runs


def test_scratch_and_trunk_draw_the_same_batches_and_start_with_equal_heads(
    trunk: Path, examples: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = record_batches(monkeypatch)
    for scratch in (False, True):
        fit(trunk, Data(examples, None), quick(), 0, SCHEMA, scratch=scratch)
    (head, *batches), (other_head, *other_batches) = runs
    assert equal(head, other_head)
    assert len(batches) == 13
    assert all(torch.equal(a, b) for a, b in zip(batches, other_batches, strict=True))


def test_only_the_trunk_arm_starts_from_the_trunk(trunk: Path, examples: LabelledImages) -> None:
    frozen = quick(freeze_trunk=True)
    pretrained = tensors(load_trunk(trunk))
    assert equal(tensors(fit(trunk, Data(examples, None), frozen, 0, SCHEMA).trunk), pretrained)
    assert not equal(tensors(fit(trunk, Data(examples, None), frozen, 0, SCHEMA, scratch=True).trunk), pretrained)


def test_scratch_arms_of_two_seeds_start_differently(trunk: Path, examples: LabelledImages) -> None:
    first, second = (
        tensors(fit(trunk, Data(examples, None), quick(freeze_trunk=True), seed, SCHEMA, scratch=True).trunk)
        for seed in (0, 1)
    )
    assert not equal(first, second)


# The frozen trunk


@pytest.mark.parametrize("joint", [0.0, 0.5])
def test_a_frozen_trunk_stays_as_it_was_batch_statistics_too(
    trunk: Path, examples: LabelledImages, val: LabelledImages, unlabelled: LabelledImages, joint: float
) -> None:
    params = quick(freeze_trunk=True, joint_weight=joint, patience=2)
    model = fit(trunk, Data(examples, val, unlabelled), params, 0, SCHEMA)
    assert equal(tensors(model.trunk), tensors(load_trunk(trunk)))
    assert model.output.weight.abs().sum() > 0, "the head learned"


def test_a_trunk_that_is_not_frozen_learns(trunk: Path, examples: LabelledImages) -> None:
    before, after = (tensors(load_trunk(trunk)), tensors(fit(trunk, Data(examples, None), quick(), 0, SCHEMA).trunk))
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_a_lower_trunk_rate_moves_the_trunk_less(trunk: Path, examples: LabelledImages) -> None:
    before = load_trunk(trunk).convolutions[0].weight
    slow, fast = (
        (fit(trunk, Data(examples, None), quick(trunk_rate=rate), 0, SCHEMA).trunk.convolutions[0].weight - before)
        for rate in (0.01, 1.0)
    )
    assert slow.abs().max() < fast.abs().max() / 10


# The linear probe


def test_with_few_labels_the_head_is_solved_on_the_trunk_as_it_is(trunk: Path, examples: LabelledImages) -> None:
    few = select(examples, 5, 10, seed=0)
    model, params = fit(trunk, Data(few, None), quick(probe_below=6), 0, SCHEMA), quick(probe_below=6)
    assert equal(tensors(model.trunk), tensors(load_trunk(trunk)))
    found = model.probabilities(few.pixels)
    assert (found.argmax(1) == few.labels.numpy()).mean() > 0.7
    layer, bias = solve(model.features(few.pixels), few.labels, 10)
    assert torch.equal(model.output.weight, layer.float()) and torch.equal(model.output.bias, bias.float())
    assert equal(tensors(fit(trunk, Data(few, None), params, 1, SCHEMA)), tensors(model)), "nothing is drawn"


def test_with_more_labels_and_from_scratch_the_trunk_is_trained_as_without_a_probe(
    trunk: Path, examples: LabelledImages
) -> None:
    few = select(examples, 5, 10, seed=0)
    for params, scratch in ((quick(probe_below=5), False), (quick(probe_below=6), True)):
        found, plain = (fit(trunk, Data(few, None), of, 0, SCHEMA, scratch=scratch) for of in (params, quick()))
        assert equal(tensors(found), tensors(plain))


def test_a_head_that_cannot_be_solved_is_not_probed() -> None:
    with pytest.raises(ValueError, match="probe_below needs the head image_classification, not text_generation"):
        FinetuneParams(head=TextGenerationParams(), probe_below=20)


def test_a_solved_head_weighs_the_classes_where_sampling_has_nothing_to_draw(
    trunk: Path, examples: LabelledImages
) -> None:
    few = examples.take(torch.arange(60))
    heads = [
        fit(trunk, Data(few, None), quick(probe_below=50, balance=balance), 0, SCHEMA).output.bias
        for balance in ("none", "sampling", "loss")
    ]
    assert torch.equal(heads[1], heads[2]) and not torch.equal(heads[1], heads[0])


def test_a_joint_objective_beside_a_probe_is_refused() -> None:
    with pytest.raises(ValueError, match="joint_weight does nothing where probe_below"):
        FinetuneParams(probe_below=20, joint_weight=0.5)


# The joint objective


def test_a_joint_objective_of_groups_is_refused(
    trunk: Path, examples: LabelledImages, unlabelled: LabelledImages, tmp_path: Path
) -> None:
    grouped = shutil.copytree(trunk, tmp_path / "trunk")
    config = json.loads((trunk / CONFIG).read_text())
    objective = ContrastiveParams(group="patient").model_dump(mode="json")
    (grouped / CONFIG).write_text(json.dumps({**config, "objective": objective}))
    arguments = quick(joint_weight=0.5), 0, SCHEMA
    with pytest.raises(InputError, match=r"finetune.joint_weight: the trunk's objective has a `group`"):
        fit(grouped, Data(examples, None, unlabelled), *arguments, scratch=True)


def test_the_joint_objective_changes_the_trunk(
    trunk: Path, examples: LabelledImages, unlabelled: LabelledImages
) -> None:
    alone, joint = (
        tensors(fit(trunk, Data(examples, None, unlabelled), quick(joint_weight=weight), 0, SCHEMA).trunk)
        for weight in (0.0, 1.0)
    )
    assert not equal(alone, joint)


def test_the_joint_objective_goes_on_with_the_pretrained_decoder(
    trunk: Path, examples: LabelledImages, unlabelled: LabelledImages, tmp_path: Path
) -> None:
    """With the decoder zeroed the gradients, and so the trunk, are others; from scratch it is not used at all."""
    zeroed = tmp_path / "trunk"
    shutil.copytree(trunk, zeroed)
    weights = {name: torch.zeros_like(w) for name, w in load_file(trunk / OBJECTIVE_WEIGHTS).items()}
    save_file(weights, zeroed / OBJECTIVE_WEIGHTS)
    for scratch in (False, True):
        first, second = (
            tensors(
                fit(folder, Data(examples, None, unlabelled), quick(joint_weight=1), 0, SCHEMA, scratch=scratch).trunk
            )
            for folder in (trunk, zeroed)
        )
        assert equal(first, second) == scratch


def test_the_joint_objective_keeps_painting_better(
    trunk: Path, examples: LabelledImages, unlabelled: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a large weight the reconstruction loss stays lower than fine-tuning alone leaves it."""
    from graftline.trunks.conv.objectives import build_objective
    from graftline.trunks.conv.parameters import MaskedAutoencoderParams

    kept: list[Any] = []
    joint = ImageClassification.joint

    def keep(*arguments: Any, **named: Any) -> Any:
        kept.append(joint(*arguments, **named))
        return kept[-1]

    monkeypatch.setattr(ImageClassification, "joint", keep)
    fit(trunk, Data(examples, None, unlabelled), quick(joint_weight=50, min_steps=40), 0, SCHEMA)
    alone = fit(trunk, Data(examples, None), quick(min_steps=40), 0, SCHEMA)
    before = build_objective(alone.trunk, MaskedAutoencoderParams())
    before.decoder.load_state_dict(load_file(trunk / OBJECTIVE_WEIGHTS))
    pixels = torch.from_numpy(unlabelled.pixels.numpy())
    with torch.no_grad():
        losses = [objective.eval().loss(pixels, 0, 0).item() for objective in (kept[0].objective, before)]
    assert losses[0] < losses[1]


# Early stopping


def desk(folder: Path) -> Desk:
    return Desk("finetune", folder / "metrics.jsonl", Checkpoints(folder / "checkpoints", "identity", 0), 32)


ACCURACY, PERPLEXITY = ImageClassificationParams.scores[0], TextGenerationParams.scores[0]


def score(model: ImageClassifier, val: LabelledImages) -> tuple[float, float]:
    answers = model.answer(val)
    return answers.value, -answers.loss


def watch_looks(
    monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]] | None = None, primary: Score = ACCURACY
) -> list[Any]:
    """Note the weights at each look; it sees `scores` (value, minus the loss) instead of the true ones, if given."""
    looks: list[Any] = []
    measure = ImageClassifier.answer

    def look(self: ImageClassifier, examples: LabelledImages, *, fast: bool = False) -> Any:
        looks.append(tensors(self))
        if not scores:
            return measure(self, examples, fast=fast)
        value, negative = scores[len(looks) - 1]
        return SimpleNamespace(scores=(primary,), value=value, loss=-negative)

    monkeypatch.setattr(ImageClassifier, "answer", look)
    return looks


def test_a_score_of_which_less_is_better_is_kept_at_its_least(
    trunk: Path, examples: LabelledImages, val: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = watch_looks(monkeypatch, [(80.0, -4.4), (60.0, -4.1), (70.0, -4.0), (90.0, -4.5)], PERPLEXITY)
    model = fit(trunk, Data(examples, val), quick(epochs=8, patience=2), 0, SCHEMA)
    assert len(looks) == 4, "two looks without a better one after the second"
    assert equal(tensors(model), looks[1])


def test_early_stopping_ends_the_run_and_keeps_the_best_weights(
    trunk: Path, examples: LabelledImages, val: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = watch_looks(monkeypatch, [(5, -2.0), (9, -1.0), (9, -1.5), (8, -1.0), (7, -1.0), (10, -1.0)])
    model = fit(trunk, Data(examples, val), quick(epochs=8, patience=3), 0, SCHEMA)
    assert len(looks) == 5, "three looks without a better one after the second"
    assert equal(tensors(model), looks[1])


def test_a_score_that_val_does_not_define_is_worse_than_any(
    trunk: Path, examples: LabelledImages, val: LabelledImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undefined = float("nan")
    looks = watch_looks(monkeypatch, [(undefined, -1.0), (-7, -2.0), (undefined, -0.5)])
    model = fit(trunk, Data(examples, val), quick(epochs=3, patience=3), 0, SCHEMA, desk=desk(tmp_path))
    assert equal(tensors(model), looks[1])


def test_equally_many_right_answers_are_told_apart_by_the_loss(
    trunk: Path, examples: LabelledImages, val: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = watch_looks(monkeypatch, [(5, -2.0), (5, -1.0), (5, -1.5)])
    model = fit(trunk, Data(examples, val), quick(epochs=3, patience=3), 0, SCHEMA)
    assert equal(tensors(model), looks[1])


def test_null_patience_uses_all_steps(
    trunk: Path, examples: LabelledImages, val: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = watch_looks(monkeypatch)
    fit(trunk, Data(examples, val), quick(patience=None), 0, SCHEMA)
    assert looks == []


class KilledError(Exception):
    """Stands for kill -9 where one process must go on to look."""


@pytest.mark.parametrize("kill_at_look", [1, 3, 5])
def test_early_stopping_survives_a_resume(
    trunk: Path,
    examples: LabelledImages,
    val: LabelledImages,
    tmp_path: Path,
    kill_at_look: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The best weights, their score and the patience that is left come back from the checkpoint."""
    scores = [(5, -2.0), (9, -1.0), (8, -1.0), (8, -1.0), (7, -1.0), (10, -1.0)]
    data, params = Data(examples.take(torch.arange(128)), val), quick(epochs=8, patience=3)
    with monkeypatch.context() as patch:
        watch_looks(patch, scores)
        unbroken = tensors(fit(trunk, data, params, 0, SCHEMA, desk=desk(tmp_path / "unbroken")))
    with monkeypatch.context() as patch:
        looks = watch_looks(patch, scores)
        after_step: Callable[[EarlyStop, int], bool] = EarlyStop.after_step

        def kill(self: EarlyStop, step: int) -> bool:
            if len(looks) == kill_at_look - 1 and step % self._every == 0:
                raise KilledError
            return after_step(self, step)

        with patch.context() as killing, pytest.raises(KilledError):
            killing.setattr(EarlyStop, "after_step", kill)
            fit(trunk, data, params, 0, SCHEMA, desk=desk(tmp_path / "broken"))
        resumed = tensors(fit(trunk, data, params, 0, SCHEMA, desk=desk(tmp_path / "broken")))
        assert len(looks) == 5
    assert equal(unbroken, resumed)
    assert (tmp_path / "broken/metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()


def test_a_validation_loss_that_is_no_number_ends_the_run(
    trunk: Path, examples: LabelledImages, val: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_looks(monkeypatch, [(5, -2.0), (6, float("nan"))])
    with pytest.raises(GraftlineError, match=r"the validation loss is nan after step 26;"):
        fit(trunk, Data(examples, val), quick(epochs=8, patience=3), 0, SCHEMA)


def test_the_measure_is_of_the_weights_as_they_predict(trunk: Path, val: LabelledImages) -> None:
    torch.manual_seed(0)
    params = ImageClassificationParams()
    model = ImageClassifier(load_trunk(trunk), 10, params)
    model.deciding = params
    torch.nn.init.normal_(model.output.weight)
    value, minus_loss = score(model.train(), val)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(val.pixels.numpy()))
    assert value == int((logits.argmax(dim=1) == val.labels).sum()) / len(val)
    assert minus_loss == pytest.approx(-torch.nn.functional.cross_entropy(logits, val.labels).item(), rel=1e-5)
