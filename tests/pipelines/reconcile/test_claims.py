"""One run a key and a slot, whoever asks at once: on a real directory store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from graftline.pipelines.reconcile import claims
from graftline.pipelines.reconcile.lease import SECONDS, Lease
from graftline.store import open_store

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_of_many_runs_of_a_key_one_works(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: claims.hold(store, "k", f"run-{number}"), range(16)))
    (winner,) = [number for number, answer in enumerate(answers) if answer is None]
    assert claims.holder(store, "k") == f"run-{winner}"
    assert {answer for answer in answers if answer} == {f"the run run-{winner} does the work of key k"}


def test_a_run_that_is_tried_again_on_another_node_still_holds_its_claim(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert claims.hold(store, "k", "run-1") is None
    assert claims.hold(store, "k", "run-1") is None
    assert claims.hold(store, "k", "run-2") is not None


def test_a_slot_runs_under_one_key(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert claims.hold(store, "old", "run-1", schedule="nightly", slot="20260501T030000Z") is None
    refusal = claims.hold(store, "new", "run-2", schedule="nightly", slot="20260501T030000Z")
    assert refusal == "slot 20260501T030000Z of schedule nightly is run under the key old"
    assert claims.hold(store, "new", "run-2", schedule="nightly", slot="20260502T030000Z") is None


def test_of_many_reconciles_one_asks_the_backend(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))

    def ask(number: int) -> bool:
        return claims.ask(store, "nightly", "s", f"key-{number}", NOW, None)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(16))) == 1
    found = claims.read_intent(store, "nightly", "s")
    assert found is not None
    assert found[0].attempt == 1
    later = NOW + timedelta(minutes=10)
    with ThreadPoolExecutor(16) as pool:
        again = list(pool.map(lambda _: claims.ask(store, "nightly", "s", "key", later, found), range(16)))
    assert sum(again) == 1


def test_a_refusal_need_not_be_waited_for(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    claims.ask(store, "nightly", "s", "key", NOW, None)
    found = claims.read_intent(store, "nightly", "s")
    assert found is not None
    assert found[0].age(NOW + timedelta(seconds=7)) == 7
    claims.refused(store, "nightly", "s")
    found = claims.read_intent(store, "nightly", "s")
    assert found is not None
    assert found[0].age(NOW) == float("inf")


def test_one_lease_at_a_time_until_it_is_given_back_or_runs_out(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    one, two = Lease(store, "one"), Lease(store, "two")
    assert one.acquire(NOW)
    assert not two.acquire(NOW)
    one.release()
    assert two.acquire(NOW)
    assert not one.acquire(NOW)
    assert one.acquire(NOW + timedelta(seconds=SECONDS))
    two.release()  # it is one's now
    assert not two.acquire(NOW + timedelta(seconds=SECONDS))
