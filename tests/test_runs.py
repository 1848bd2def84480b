"""What the store knows of runs (graftline.runs)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graftline import runs
from graftline.errors import GraftlineError
from graftline.runs import Attempt, End, Source, Start
from graftline.store import Store
from graftline.store.documents import json_bytes
from graftline.store.opening import open_store
from graftline.tasks.parameters import COMPONENTS

START = Start(
    "f9168fed-f7a5-45e8-a21a-c976499d223e",
    "e0f2384ca7de8d8c",
    "mnist",
    "retrain-mnist-c4415d72cb80",
    "9971cdec",
    "37a2b2ec",
    {"kind": "person", "who": "ada"},
)
STEPS = ("claim", "fetch", *COMPONENTS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def said(step: str, code: int, minute: int, line: str = "") -> Attempt:
    moment = f"2026-11-28T23:{minute:02}:00Z"
    return Attempt(START.run, step, code, line, moment, moment)


def test_a_run_is_open_from_its_beginning_to_its_end(store: Store) -> None:
    runs.begin(store, START)
    runs.begin(store, START)
    assert runs.open_runs(store) == [START]

    assert runs.conclude(store, End(START, "SUCCEEDED")) == f"runs/{START.run}.json"
    assert runs.open_runs(store) == []
    assert runs.ends(store, START.run) == [End(START, "SUCCEEDED")]


def test_the_same_end_twice_is_one_end_and_another_one_is_kept_beside_it(store: Store) -> None:
    failed, succeeded = End(START, "FAILED", "publish", "no room"), End(START, "SUCCEEDED")
    runs.conclude(store, failed)
    runs.conclude(store, failed)
    assert runs.ends(store, START.run) == [failed]

    assert runs.begin_again(store, START.run) == 1
    assert runs.open_runs(store) == [START]
    assert runs.conclude(store, succeeded) == f"runs/{START.run}.2.json"
    runs.conclude(store, succeeded)
    assert runs.ends(store, START.run) == [failed, succeeded]
    assert runs.open_runs(store) == []


def test_beginning_again_a_run_that_never_ended_opens_nothing(store: Store) -> None:
    assert runs.begin_again(store, START.run) == 0
    assert runs.open_runs(store) == []


def test_attempts_are_numbered_by_step_and_read_in_the_order_of_their_ends(store: Store) -> None:
    made = replace(said("pretrain", 0, 3), inputs={"dataset": Source("ab" * 32, "another-run")}, pod="p", node="n")
    for attempt in (said("pretrain", 1, 2, "no room"), made, said("fetch", 0, 1)):
        runs.add_attempt(store, attempt)
    assert [(one.step, one.number, one.code) for one in runs.attempts(store, START.run)] == [
        ("fetch", 1, 0),
        ("pretrain", 1, 1),
        ("pretrain", 2, 0),
    ]
    assert runs.attempts(store, START.run, "pretrain")[-1] == replace(made, number=2)
    assert runs.attempts(store, START.run, "pre") == []


def test_a_document_of_a_later_version_is_read_and_one_changed_by_hand_is_named(store: Store) -> None:
    store.put_if_absent("runs/r.json", b'{"run":"r","key":"k","task":"t","state":"LOST","added_later":1}')
    assert runs.ends(store, "r") == [End(Start("r", "k", "t"), "LOST")]
    store.put_if_absent("runs/x.json", b'{"run":"x","key":"k","task":"t","state":"DONE"}')
    with pytest.raises(GraftlineError, match=r"runs/x.json: state 'DONE' is none of SUCCEEDED"):
        runs.ends(store, "x")
    store.put_if_absent("runs/open/y.json", b'{"run":"y"}')
    with pytest.raises(GraftlineError, match=r"runs/open/y.json: not the start of a run"):
        runs.begun(store, "y")


@pytest.mark.parametrize(
    ("attempts", "engine", "expected"),
    [
        ([said("publish", 3, 4, "nothing was released")], "FAILED", ("REFUSED", "publish", "nothing was released")),
        ([said("validate", 2, 2, "bad row")], "FAILED", ("FAILED", "validate", "bad row")),
        ([said("pretrain", 1, 2, "x"), said("pretrain", 0, 3)], "SUCCEEDED", ("SUCCEEDED", "", "")),
        ([said("pretrain", 0, 3), said("publish", 0, 4, "equal")], "SUCCEEDED", ("SUCCEEDED", "publish", "equal")),
        ([said("pretrain", 75, 3, "pre-empted")], "CANCELED", ("CANCELED", "pretrain", "pre-empted")),
        ([], "LOST", ("LOST", "", "")),
        ([said("finetune", 1, 2, "later"), said("pretrain", 1, 3, "first")], "FAILED", ("FAILED", "pretrain", "first")),
    ],
)
def test_the_first_step_that_failed_for_good_decides(
    attempts: list[Attempt], engine: runs.State, expected: tuple[str, str, str]
) -> None:
    assert runs.decide(attempts, engine, STEPS) == expected


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"code": "0"}, "code is no int"),
        ({"line": 5}, "line is no str"),
        ({"inputs": []}, "inputs is no dict"),
        ({"inputs": {"dataset": {"record": None}}}, "record is no str"),
        ({"inputs": {"dataset": 1}}, "not iterable"),
    ],
)
def test_a_word_whose_fields_are_of_another_kind_is_named(store: Store, change: dict[str, object], found: str) -> None:
    word = runs.add_attempt(store, said("pretrain", 0, 1))
    key = f"runs/steps/{START.run}/pretrain.{word.number}.json"
    value = json.loads(store.get(key).data) | change
    store.delete(key)
    store.put_if_absent(key, json_bytes(value))
    with pytest.raises(GraftlineError, match=rf"{key}: not the (attempt|source) of a run \(.*{found}"):
        runs.attempts(store, START.run)


def test_an_open_run_that_cannot_be_read_is_named_and_holds_up_no_other(store: Store) -> None:
    runs.begin(store, START)
    store.put_if_absent("runs/open/broken.json", b"{}")
    with pytest.raises(GraftlineError, match=r"runs/open/broken\.json"):
        runs.open_runs(store)
    said: list[str] = []
    assert runs.open_runs(store, lambda error: said.append(str(error))) == [START]
    assert len(said) == 1 and "runs/open/broken.json" in said[0]
