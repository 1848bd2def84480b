"""Private fine-tuning of real digits and glosses: draws, resume, subjects, refusals, and what the outputs say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import torch

from graftline.canonical import read_json
from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.distributed import World
from graftline.learning.loop import Desk
from graftline.learning.randomness import generator
from graftline.privacy.accounting import Budget
from graftline.privacy.draws import Secure, Seeded
from graftline.privacy.membership import against_shadows, area, attack
from graftline.privacy.training import PrivateSteps
from graftline.privacy.units import read_units
from graftline.problems.documents import Documents
from graftline.problems.fit import Data, fit, training
from graftline.problems.problem import Model
from graftline.problems.reading import read_examples
from graftline.problems.registry import make_problem
from graftline.records.folder import verify
from graftline.tasks.finetune import FinetuneParams
from graftline.trunks.images import load_trunk

PRIVACY = {"epsilon": 8, "delta": 1e-4, "noise": "seeded", "accountant": "rdp"}
QUICK: dict[str, Any] = {"epochs": 1, "min_steps": 6, "batch": 32, "warmup_steps": 0, "privacy": PRIVACY}
TEXT = {"name": "sequence_classification"}


def params(**changes: Any) -> FinetuneParams:
    return FinetuneParams(**{**QUICK, **changes})


def data(params: FinetuneParams, dataset: Path, trunk: Path, **more: Any) -> Data:
    problem = make_problem(params.head, read_schema(dataset))
    return Data(read_examples(problem, dataset, "train", trunk), None, **more)


def weights(of: FinetuneParams, dataset: Path, trunk: Path, **more: Any) -> dict[str, torch.Tensor]:
    model = fit(trunk, data(of, dataset, trunk), of, 0, read_schema(dataset), **more)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# Draws


def test_secure_draws_are_normal_and_even_and_never_the_same_twice() -> None:
    one, other = Secure(), Secure()
    drawn = one.normal(0, 40_001)
    assert drawn.dtype == torch.float64 and len(drawn) == 40_001
    assert abs(float(drawn.mean())) < 0.03 and abs(float(drawn.std()) - 1) < 0.03
    assert abs(float((drawn.abs() > 2).double().mean()) - 0.0455) < 0.006
    even = one.uniform(0, 40_000, "batch")
    assert 0 < float(even.min()) < 0.001 and 0.999 < float(even.max()) < 1 and abs(float(even.mean()) - 0.5) < 0.01
    assert not torch.equal(one.normal(0, 9), one.normal(0, 9)) and one.seed != other.seed


def test_seeded_draws_are_a_function_of_seed_and_step() -> None:
    first, again = Seeded(3), Seeded(3)
    again.normal(5, 7)
    assert torch.equal(first.normal(2, 9), again.normal(2, 9))
    assert not torch.equal(first.normal(2, 9), first.normal(3, 9))
    assert not torch.equal(first.normal(2, 9), Seeded(4).normal(2, 9))


def steps_of(
    units: torch.Tensor, rate: float, *, subject_rows: int = 3, noise: float = 0.0
) -> tuple[PrivateSteps, Any]:
    model = torch.nn.Linear(2, 1, bias=False)
    count = int(units.max()) + 1
    budget = Budget(1, 1e-5, "row", count, rate, 10, noise, 0.5, "seeded", "rdp")
    return PrivateSteps(model, budget, Seeded(0), units, subject_rows, lambda rows: [torch.arange(len(rows))]), model


def test_each_unit_is_drawn_by_itself_with_all_its_rows_but_not_more_than_so_many() -> None:
    units = torch.arange(200) % 40  # 5 rows each
    steps, model = steps_of(units, 0.3)
    sizes, taken = [], set()
    for step in range(30):
        steps.loss(step, lambda rows, seed: model(torch.ones(len(rows), 2)).mean())
        of = units[steps.rows]
        assert of.bincount().max() <= 3
        assert set(of.bincount()[of].tolist()) == {3}
        sizes.append(len(of.unique()))
        taken |= set(steps.rows.tolist())
    assert len(set(sizes)) > 5, "sizes vary: Poisson, no fixed batch"
    assert abs(np.mean(sizes) - 12) < 2 and taken == set(range(200))


def test_a_step_is_the_clipped_mean_over_the_expected_number_of_units_and_noise() -> None:
    inputs = torch.tensor([[3.0, 4.0], [0.1, 0.0]])  # of norm 5 and 0.1, clipped at 0.5
    steps, model = steps_of(torch.arange(2), 1.0)
    steps.loss(0, lambda rows, seed: model(inputs[rows]).mean()).backward()
    steps.finish(0)
    assert torch.allclose(model.weight.grad, (torch.tensor([[0.3, 0.4]]) + inputs[1]) / 2, atol=1e-6)
    noisy, model = steps_of(torch.arange(2), 1.0, noise=4.0)
    found = []
    for step in range(400):
        noisy.loss(step, lambda rows, seed: model(inputs[rows]).mean()).backward()
        noisy.finish(step)
        found.append(model.weight.grad.clone())
    assert abs(float(torch.stack(found).std(0).mean()) - 4 * 0.5 / 2) < 0.07


def test_a_step_that_drew_nobody_moves_by_noise_alone() -> None:
    steps, model = steps_of(torch.arange(2), 1e-9, noise=1.0)
    loss = steps.loss(0, lambda rows, seed: model(torch.ones(len(rows), 2)).mean())
    loss.backward()
    steps.finish(0)
    assert loss.item() == 0 and bool((model.weight.grad != 0).all())


def test_documents_of_a_batch_are_computed_in_groups_of_similar_length() -> None:
    lengths = torch.randint(3, 90, (64,), generator=torch.Generator().manual_seed(0))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    documents = Documents(torch.zeros(int(lengths.sum()), dtype=torch.int32), offsets, torch.arange(64))
    groups = documents.alike_in_size()
    assert sorted(torch.cat(groups).tolist()) == list(range(64))
    assert 2 < len(groups) < 8 and all(len(group) % 8 == 0 for group in groups)
    padded = sum(len(group) * int(lengths[group].max()) for group in groups)
    assert padded < 1.3 * int(lengths.sum()) < 0.8 * 64 * int(lengths.max()), "in one group half would be padding"
    assert lengths[torch.cat(groups)].diff().min() >= 0, "the shortest come first"
    fewer = [len(group) for group in documents.take(torch.arange(61)).alike_in_size()]
    assert fewer[0] % 8 == 5 and len(fewer) > 2 and not any(size % 8 for size in fewer[1:])
    assert [len(group) for group in documents.take(torch.arange(1)).alike_in_size()] == [1]


def test_documents_of_one_length_are_one_group() -> None:
    offsets = torch.arange(65) * 20
    documents = Documents(torch.zeros(64 * 20, dtype=torch.int32), offsets, torch.arange(64))
    assert [len(group) for group in documents.alike_in_size()] == [64]


# Training


class KilledError(Exception):
    """Stands for kill -9 where one process must go on to look."""


def desk(folder: Path) -> Desk:
    return Desk("test", folder / "metrics.jsonl", Checkpoints(folder / "checkpoints", "test", every_seconds=0.0), 32)


@pytest.mark.parametrize("noise", ["seeded", "secure"])
def test_a_killed_run_goes_on_from_its_checkpoint(
    dataset: Path, trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str
) -> None:
    """With seeded noise to the same bits; with secure noise from the same state, and no noise is drawn as before."""
    of = params(privacy={**PRIVACY, "noise": noise})
    unbroken = weights(of, dataset, trunk, desk=desk(tmp_path / "unbroken"))
    finish: Callable[[PrivateSteps, int], None] = PrivateSteps.finish

    def kill(self: PrivateSteps, step: int) -> None:
        if step == 4:
            raise KilledError
        finish(self, step)

    with monkeypatch.context() as killing, pytest.raises(KilledError):
        killing.setattr(PrivateSteps, "finish", kill)
        weights(of, dataset, trunk, desk=desk(tmp_path / "broken"))
    again = desk(tmp_path / "broken")
    checkpoint = again.checkpoints.load()
    assert checkpoint is not None and checkpoint.step == 4
    begun: list[dict[str, torch.Tensor]] = []
    begin: Callable[..., torch.Tensor] = PrivateSteps.loss

    def note(self: PrivateSteps, step: int, of: Any) -> torch.Tensor:
        if not begun:
            begun.append({str(n): p.clone() for n, p in enumerate(self._gradients.parameters)})
        return begin(self, step, of)

    with monkeypatch.context() as noting:
        noting.setattr(PrivateSteps, "loss", note)
        resumed = weights(of, dataset, trunk, desk=desk(tmp_path / "broken"))
    kept = [t for name, t in checkpoint.tensors.items() if name.startswith("model.")]
    assert all(any(torch.equal(weight, t) for t in kept) for weight in begun[0].values())
    assert same(unbroken, resumed) == (noise == "seeded")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise: it would move a weight that nothing is learned of."""
    monkeypatch.setattr(Seeded, "normal", lambda self, step, count: torch.zeros(count, dtype=torch.float64))


@pytest.mark.usefixtures("silent")
def test_batch_statistics_stay_and_the_rest_is_trained(dataset: Path, trunk: Path) -> None:
    before, after = load_trunk(trunk).state_dict(), weights(params(weight_decay=0.0), dataset, trunk)
    for name, tensor in before.items():
        stays = "running" in name or "num_batches" in name
        assert torch.equal(tensor, after[f"trunk.{name}"]) == stays, name


WAYS: dict[str, dict[str, Any]] = {
    "all weights": {"head": {**TEXT, "dropout": 0.1}},
    "adapters": {"head": {**TEXT, "lora": {"rank": 2}}},
    "head only": {"head": TEXT, "freeze_trunk": True},
}


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("way", WAYS)
def test_text_is_trained_whole_by_adapters_and_the_head_alone(texts: Path, text_trunk: Path, way: str) -> None:
    of, schema = params(min_steps=3, weight_decay=0.0, **WAYS[way]), read_schema(texts)
    start = make_problem(of.head, schema).build(text_trunk, schema, scratch=False).state_dict()
    found = weights(of, texts, text_trunk)
    moved = {name for name, tensor in found.items() if not torch.equal(tensor, start[name])}
    assert "network.classifier.weight" in moved
    inside = {name for name in moved if name.startswith("network.model.")}
    assert bool(inside) == (way != "head only")
    trained = {name for name in start if name.startswith("network.model.")}
    assert way != "all weights" or inside == trained
    assert way != "adapters" or inside == {name for name in trained if "lora_" in name}


def test_what_would_break_the_bound_at_the_start_is_refused(
    dataset: Path, trunk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = params()
    given = data(of, dataset, trunk)
    with pytest.raises(InputError, match="torchrun with 2 processes"):
        training(trunk, given, of, 0, read_schema(dataset), part=World(size=2))
    weighted = Data(given.train.weighted(torch.ones(len(given.train))), None)
    with pytest.raises(InputError, match="a column of the role weight"):
        training(trunk, weighted, of, 0, read_schema(dataset))
    monkeypatch.setattr(Model, "rows_apart", False)
    with pytest.raises(InputError, match="a row's neighbours in a batch change nothing of"):
        training(trunk, given, of, 0, read_schema(dataset))


def test_subjects_are_units_and_a_row_without_one_is_its_own(dataset: Path, tmp_path: Path) -> None:
    subject = FinetuneParams(privacy={**PRIVACY, "unit": "subject"}).privacy
    rows = torch.tensor([5, 1, 3, 8, 9])
    assert read_units(FinetuneParams(privacy=PRIVACY).privacy, dataset, rows) is None
    with pytest.raises(InputError, match=r"rows.parquet: no subjects; .*unit: row"):
        read_units(subject, dataset, rows)
    hashes = pa.array([b"b", b"a", None, b"b", b"b", b"a", b"c", b"c", None, b"a"], pa.binary(1))
    pq.write_table(pa.table({"row": list(range(10)), "subject": hashes}), tmp_path / "rows.parquet")
    found = read_units(subject, tmp_path, rows)  # a a b none a
    assert found is not None and sorted(found.unique().tolist()) == [0, 1, 2]
    assert found[0] == found[1] == found[4] != found[2] and found[3] not in found[[0, 2]]


# What the components make of it


@pytest.fixture(scope="module")
def private(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of the small task of digits, fine-tuned privately, attacked and released."""
    folder = tmp_path_factory.mktemp("private")
    for name in ("dataset", "trunk"):
        shutil.copytree(small.released(home) / name, folder / name)
    gate = {"ceilings": {"epsilon": 8, "membership_auc": 0.9}, "max_champion_loss": None}
    section = {**small.PARAMS["evaluate"], "membership": {"rows": 80}, "gate": gate}
    document = {**small.PARAMS, "evaluate": section, "finetune": {**small.PARAMS["finetune"], "privacy": PRIVACY}}
    return small.release_of(folder / "trunk", folder / "dataset", document)


def test_the_model_says_what_it_promises_and_tells_no_loss(private: Path) -> None:
    record = verify(private / "model")
    names = [file.path for file in record.files]
    assert "privacy.json" in names and "curve.png" not in names
    assert 7.9 < record.metrics["epsilon"] <= 8 and record.metrics["delta"] == 1e-4
    assert record.environment["noise"] == "seeded"
    assert record.metrics["privacy_units"] == record.metrics["examples"]
    lines = [json.loads(line) for line in (private / "model/metrics.jsonl").read_text().splitlines()]
    assert lines and all(line.keys() == {"step", "learning_rate"} for line in lines)


def test_gate_report_and_card_know_the_bound_and_the_attack(private: Path) -> None:
    evaluation = private / "evaluation"
    measured = read_json(evaluation / "metrics.json")
    assert measured["epsilon"] == read_json(private / "model/privacy.json")["epsilon"]
    assert 0 <= measured["membership_auc_low"] <= measured["membership_auc"] <= measured["membership_auc_high"] <= 1
    assert measured["membership_members"] == 80 and "membership_shadow_auc" in measured
    rules = {rule["name"]: rule["passed"] for rule in read_json(evaluation / "decision.json")["rules"]}
    assert rules["ceilings.epsilon"] and rules["ceilings.membership_auc"]
    titles = [section["title"] for section in read_json(evaluation / "sections.json")]
    assert {"What it promises", "Who was learned from"} <= set(titles)
    (card,) = (private / "store").glob("releases/*/1/README.md")
    text = card.read_text()
    assert "## What it promises" in text and "pretraining" in text and "the bound does not hold" in text
    assert (card.parent / "privacy.json").is_file()


def test_membership_needs_answers_that_say_how_sure_they_are(private: Path) -> None:
    from graftline.tasks.evaluate import EvaluateParams

    with pytest.raises(InputError, match="the head text_regression, whose answers do not say how sure"):
        EvaluateParams(membership={}).check_head(FinetuneParams(head={"name": "text_regression"}).head, "here")


# The attack


def test_the_area_is_the_share_of_pairs_and_its_interval_covers() -> None:
    draw = np.random.default_rng(0)
    members, others = draw.normal(0.3, 1, 60).round(1), draw.normal(0, 1, 70).round(1)
    pairs = (members[:, None] > others).mean() + (members[:, None] == others).mean() / 2
    assert area(members, others).value == pytest.approx(pairs)
    hits = 0
    for _ in range(300):
        found = area(draw.normal(0.5, 1, 80), draw.normal(0, 1, 80))
        hits += found.low <= 0.6382 <= found.high  # Phi(0.5 / sqrt(2))
    assert 0.91 < hits / 300 < 0.985
    same = area(np.ones(20), np.ones(20))
    assert (same.value, same.low, same.high) == (0.5, 0.0, 1.0), "nothing is known of it"
    apart = area(np.arange(5) + 10.0, np.arange(5.0))
    assert apart.value == apart.high == 1 and apart.low < 0.7, "five rows prove little"


def test_members_found_at_one_percent_of_false_alarms() -> None:
    others = np.arange(100.0)
    assert attack(np.array([98.5, 99.5, 0, 1]), others, seed=0).tpr.value == 0.5, "one of the others is above 98"


def test_shadow_models_say_how_hard_a_row_is() -> None:
    shadows = np.array([[1.0, np.nan, 4.0], [3.0, 5.0, np.nan]])
    assert against_shadows(np.array([5.0, 5.0, 5.0]), shadows).tolist() == [3, 0, 1]
    assert np.isnan(against_shadows(np.array([1.0]), np.full((2, 1), np.nan)))


def test_the_attack_finds_what_was_learned_by_heart_and_not_under_a_tight_bound(texts: Path, text_trunk: Path) -> None:
    schema, found = read_schema(texts), {}
    for name, privacy in (("plain", None), ("private", {**PRIVACY, "epsilon": 0.5})):
        of = params(head=TEXT, min_steps=40, learning_rate=0.01, privacy=privacy, epochs=1)
        given = data(of, texts, text_trunk).train
        given = given.take(torch.randperm(len(given), generator=generator(0, 0, "halves")))
        half = len(given) // 2
        model = fit(text_trunk, Data(given.take(torch.arange(half)), None), of, 0, schema)
        odds = model.answer(given).odds()
        found[name] = area(odds[:half], odds[half:])
    assert found["plain"].low > 0.6
    assert found["private"].low < 0.5 < found["private"].high
