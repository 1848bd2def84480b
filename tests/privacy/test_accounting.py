"""The accountant's figure: against opacus' own search, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier
from pydantic import ValidationError

from graftline.errors import InputError
from graftline.gate import Gate
from graftline.privacy.accounting import budget_for, epsilon
from graftline.privacy.parameters import PrivacyParams
from graftline.privacy.promise import metrics, outside, read_promise, told, write_promise, write_rounds_promise
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams

PARAMS = PrivacyParams(epsilon=2, delta=1e-5, accountant="rdp")


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_epsilon_is_that_of_as_many_steps_of_opacus_accountant(accountant: str) -> None:
    counted = create_accountant(mechanism=accountant)
    for _ in range(20):
        counted.step(noise_multiplier=1.1, sample_rate=0.05)
    assert epsilon(1.1, 0.05, 20, 1e-5, accountant) == pytest.approx(counted.get_epsilon(delta=1e-5))  # type: ignore[arg-type]
    assert epsilon(1.1, 0.05, 40, 1e-5, accountant) > epsilon(1.1, 0.05, 20, 1e-5, accountant)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Optimal order")
def test_the_noise_is_the_least_that_keeps_the_bound() -> None:
    found = budget_for(PARAMS, units=2000, sampling_rate=0.03, steps=100)
    assert 1.97 < found.epsilon <= 2
    wanted = get_noise_multiplier(target_epsilon=2, target_delta=1e-5, sample_rate=0.03, steps=100, accountant="rdp")
    assert found.noise_multiplier == pytest.approx(wanted, rel=0.02)
    assert epsilon(0.97 * found.noise_multiplier, 0.03, 100, 1e-5, "rdp") > 2


def test_a_delta_that_would_let_one_row_be_published_is_refused() -> None:
    with pytest.raises(InputError, match=r"finetune.privacy.delta: 1e-05 for 100000 units .* less than 1/100000"):
        budget_for(PARAMS, units=100_000, sampling_rate=0.03, steps=100)


def test_deltas_of_federated_rounds_add_up(tmp_path: Path) -> None:
    """Each round by itself would do: 1/40,000 is above 1e-5, 1/100,000 is not."""
    assert budget_for(PARAMS, units=40_000, sampling_rate=0.03, steps=100, rounds=2).delta == 1e-5
    with pytest.raises(InputError, match=r"1e-05 for 40000 units of .* over 3 federated rounds; .* than 1/120000"):
        budget_for(PARAMS, units=40_000, sampling_rate=0.03, steps=100, rounds=3)


def test_what_breaks_the_bound_is_refused_before_anything_is_computed() -> None:
    privacy = {"epsilon": 2, "delta": 1e-5}
    for more, said in (
        ({"head": {"name": "text_regression"}}, "privacy needs the head .*, not text_regression"),
        ({"joint_weight": 0.5}, "privacy does not go with joint_weight"),
        ({"balance": "loss"}, "privacy does not go with balance: how much a class weighs depends on every row"),
        ({"probe_below": 9}, "privacy does not go with probe_below"),
    ):
        with pytest.raises(ValidationError, match=said):
            FinetuneParams(privacy=privacy, **more)
    assert "privacy" not in FinetuneParams().model_dump(mode="json"), "records without it keep their bytes"


def test_the_gate_knows_epsilon_of_a_private_model_only() -> None:
    section = EvaluateParams(gate=Gate(ceilings={"epsilon": 8, "delta": 1e-4}))
    section.check_head(FinetuneParams().head, "here", PARAMS)
    with pytest.raises(InputError, match="no such score"):
        section.check_head(FinetuneParams().head, "here")


def test_the_promise_says_who_what_and_what_not(tmp_path: Path) -> None:
    found = budget_for(PARAMS, units=2000, sampling_rate=0.03, steps=100)
    assert read_promise(tmp_path) is None
    write_promise(found, ["early stopping"], tmp_path, chosen=False, earlier=0)
    promise = read_promise(tmp_path)
    assert promise is not None and metrics(promise) == {"epsilon": found.epsilon, "delta": 1e-5}
    text = " ".join([*told(promise), *outside(promise)])
    for said in ("each row of 2,000", "100 steps", "secure generator", "pretraining", "early stopping"):
        assert said in text
    seeded = {**promise, "noise": "seeded"}
    assert "the bound does not hold" in " ".join(told(seeded))
    (tmp_path / "privacy.json").write_text(json.dumps({"epsilon": 1}))
    with pytest.raises(InputError, match="not a model's promise"):
        read_promise(tmp_path)


def test_rounds_add_up_the_largest_bound_of_each_and_say_what_they_do_not_add(tmp_path: Path) -> None:
    params = PrivacyParams(epsilon=3, delta=1e-4, unit="subject")
    before: dict[str, Any] | None = None
    for spent in ([(1.0, 1e-5), (2.0, 1e-4)], [(3.0, 1e-5), (0.5, 1e-5)]):
        found = write_rounds_promise(before, spent, params, tmp_path)
        before = read_promise(tmp_path)
    assert before is not None and before["rounds"] == 2
    assert found == metrics(before) == {"epsilon": 5.0, "delta": pytest.approx(1.1e-4)}
    assert "5.00" in told(before)[0] and "person" in told(before)[0]
    text = " ".join(outside(before))
    assert "rows at several sites" in text and "Other runs over the same sites" in text


def test_what_was_drawn_and_learned_before_is_said_to_be_outside(tmp_path: Path) -> None:
    found = budget_for(PARAMS, units=1000, sampling_rate=0.1, steps=10)
    said = {}
    for name, chosen, earlier in (("plain", False, 0), ("drawn", True, 0), ("round", False, 9)):
        (folder := tmp_path / name).mkdir()
        write_promise(found, [], folder, chosen=chosen, earlier=earlier)
        promise = read_promise(folder)
        assert promise is not None
        said[name] = " ".join(outside(promise))
    assert "labels_per_class" in said["drawn"] and "labels_per_class" not in said["plain"]
    assert "The 9 rounds before" in said["round"] and "10 times this epsilon" in said["round"]
    assert "rounds before" not in said["plain"]
