"""One run a key and a slot, whoever asks at once: on a real directory store."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from graftline import runs
from graftline.errors import GraftlineError
from graftline.pipelines import conclude
from graftline.pipelines.reconcile import claims
from graftline.store import lease as leases
from graftline.store.lease import RECONCILE, SECONDS, Lease
from graftline.store.opening import open_store

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
    one, two = Lease(store, RECONCILE, "one"), Lease(store, RECONCILE, "two")
    assert one.acquire(NOW)
    assert not two.acquire(NOW)
    one.release()
    assert two.acquire(NOW)
    assert not one.acquire(NOW)
    assert one.acquire(NOW + timedelta(seconds=SECONDS))
    two.release()  # it is one's now
    assert not two.acquire(NOW + timedelta(seconds=SECONDS))


def test_a_lease_that_is_renewed_outlives_its_30_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    monkeypatch.setattr(leases, "RENEWED", 0.01)
    one, two, renewals = Lease(store, RECONCILE, "one"), Lease(store, RECONCILE, "two"), threading.Event()
    later = NOW + timedelta(seconds=SECONDS - 1)
    clock = iter([later, later, later])

    def tick() -> datetime:
        try:
            return next(clock)
        except StopIteration:
            renewals.set()
            return later

    assert one.acquire(NOW)
    with one.renewed(tick):
        assert renewals.wait(60)
        one.check(NOW + timedelta(seconds=SECONDS + 1))
        assert not two.acquire(NOW + timedelta(seconds=SECONDS + 1))
    assert two.acquire(NOW)
    with pytest.raises(leases.LeaseLostError):
        one.check(later + timedelta(seconds=SECONDS))


def test_a_slot_that_a_run_has_begun_is_not_asked_for_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    claims.ask(store, "nightly", "s", "old", NOW, None)
    stale = claims.read_intent(store, "nightly", "s")
    assert claims.hold(store, "old", "run-1", schedule="nightly", slot="s") is None
    assert not claims.ask(store, "nightly", "s", "new", NOW, stale)
    assert not claims.ask(store, "nightly", "s", "new", NOW, claims.read_intent(store, "nightly", "s"))
    claims.refused(store, "nightly", "s")  # the answer to an older request
    held = claims.read_intent(store, "nightly", "s")
    assert held is not None
    assert (held[0].key, held[0].held) == ("old", "run-1")
    assert claims.hold(store, "new", "run-2", schedule="nightly", slot="s") is not None


def test_of_a_run_and_a_reconcile_at_once_one_gets_the_slot(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(20):
        slot, key = f"s{number}", f"old-{number}"
        claims.ask(store, "nightly", slot, key, NOW, None)
        seen = claims.read_intent(store, "nightly", slot)
        with ThreadPoolExecutor(2) as pool:
            first_step = pool.submit(claims.hold, store, key, "run", schedule="nightly", slot=slot)
            ask = pool.submit(claims.ask, store, "nightly", slot, "new", NOW, seen)
        assert (first_step.result() is None) != ask.result()


def test_a_run_that_was_refused_over_its_slot_records_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    reason = json.dumps({"kind": "schedule", "schedule": "nightly", "slot": "s"})

    def end(key: str, run: str) -> str:
        monkeypatch.setenv("GRAFTLINE_RUN", run)
        conclude.main([
            "--status", '{"state": "FAILED"}', "--task", "toy", "--store", str(tmp_path), "--run-key", key,
            "--version", "v", "--revision", "r", "--data-digest", "d", "--reason", reason,
        ])  # fmt: skip
        return capsys.readouterr().out

    assert claims.hold(store, "old", "run-1", schedule="nightly", slot="s") is None
    assert claims.hold(store, "new", "run-2", schedule="nightly", slot="s") is not None
    said = end("new", "run-2")
    assert said == "conclude: slot s of schedule nightly is run under the key old; nothing to record\n"
    assert not runs.ends(store, "run-2")
    end("old", "run-1")
    assert [one.state for one in runs.ends(store, "run-1")] == ["FAILED"]


def test_a_lease_that_is_no_json_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put_if_absent(RECONCILE, b"{")
    with pytest.raises(GraftlineError, match=f"{RECONCILE} is not JSON; it was changed by hand, delete it"):
        Lease(store, RECONCILE, "one").acquire(NOW)
