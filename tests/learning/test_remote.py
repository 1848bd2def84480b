"""Checkpoints in the store: a run goes on from them on another machine, which here is an empty folder."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from servers import Proxy
from torch import nn

from graftline import runs
from graftline.components.pretrain import COMPONENT
from graftline.errors import GraftlineError, InputError
from graftline.learning.checkpoint import MANIFEST, STATE, Checkpoints
from graftline.learning.loop import Desk, Run, train
from graftline.learning.metrics import read_metrics
from graftline.learning.randomness import generator
from graftline.learning.remote import RemoteCheckpoints, remote_checkpoints, sweep_checkpoints
from graftline.store import Store
from graftline.store.bundles import list_bundles
from graftline.store.opening import open_store
from graftline.store.s3 import S3Store

STEPS, IDENTITY, RUN, OTHER_RUN = 8, "1" * 64, "0123abcd", "4567cdef"
WORK = f"checkpoints/pretrain/{IDENTITY[:16]}"
PREFIX = f"{WORK}/{RUN}"
UPLOADS = 4
"""Objects of one checkpoint: state, its manifest, metrics, the bundle's manifest."""


class KilledError(Exception):
    """Stands for the end of the machine where one process must go on to look."""


class Watch:
    """Ends the process after `kill_after` steps. Before, it waits for each upload, so that a kill's place is known."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.kill_after = kill_after
        self.remote: RemoteCheckpoints | None = None

    def after_step(self, step: int) -> bool:
        if self.remote:
            self.remote.settle(time.monotonic() + 60)
        if step == self.kill_after:
            raise KilledError
        return False

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return {}, {}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        pass


def make_run(watch: Watch) -> Run:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(step: int) -> torch.Tensor:
        inputs = torch.randn(16, 6, generator=generator(0, step, "inputs"))
        return nn.functional.mse_loss(module(inputs)[:, 0], inputs.sin().sum(dim=1))

    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, fused=True)
    return Run(module, optimizer, loss, STEPS, warmup=2, watcher=watch)


def make_desk(disk: Path, store: Store | None, every_seconds: float = 0, run: str = RUN) -> Desk:
    disk.mkdir(parents=True, exist_ok=True)
    metrics = disk / "metrics.jsonl"
    remote = RemoteCheckpoints(store, "pretrain", IDENTITY, run, metrics) if store else None
    checkpoints = Checkpoints(disk / "checkpoints", IDENTITY, every_seconds, remote)
    return Desk("a run", metrics, checkpoints, batch=16)


def go(disk: Path, store: Store | None, kill_after: int | None = None, run_name: str = RUN) -> nn.Module:
    """Train to the end, or until the machine ends."""
    watch = Watch(kill_after)
    desk = make_desk(disk, store, run=run_name)
    watch.remote = desk.checkpoints.remote
    run = make_run(watch)
    if kill_after is None:
        train(run, desk)
    else:
        with pytest.raises(KilledError):
            train(run, desk)
    if watch.remote:
        watch.remote.settle(time.monotonic() + 60)
    return run.module


def same_bits(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def unbroken(tmp_path: Path) -> nn.Module:
    return go(tmp_path / "unbroken", None)


def check_goes_on(store: Store, tmp_path: Path, unbroken: nn.Module) -> None:
    """Run on an empty disk to the end: the same bits and the same metrics, every line of them."""
    disk = tmp_path / "another machine"
    shutil.rmtree(disk, ignore_errors=True)
    assert same_bits(go(disk, store), unbroken)
    assert (disk / "metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()


def test_a_run_goes_on_from_the_store_on_an_empty_disk_with_the_same_bits(
    store_url: str, tmp_path: Path, unbroken: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(store_url)
    go(tmp_path / "machine", store, kill_after=5)
    assert list_bundles(store, PREFIX) == ["00000003", "00000004"], "the last two"
    check_goes_on(store, tmp_path, unbroken)
    assert f"a run: going on from step 4 of {STEPS}" in capsys.readouterr().err


def test_the_newest_of_disk_and_store_is_taken(
    tmp_path: Path, unbroken: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "store"))
    go(tmp_path / "first", store, kill_after=3)
    shutil.copytree(tmp_path / "first", tmp_path / "behind")
    go(tmp_path / "first", store, kill_after=6)
    go(tmp_path / "behind", store, kill_after=7)
    assert "going on from step 5" in capsys.readouterr().err, "the store's, though the disk had that of step 2"
    for name in list_bundles(store, PREFIX):
        (tmp_path / "store" / PREFIX / f"{name}.json").unlink()
    assert same_bits(go(tmp_path / "behind", store), unbroken)
    assert "going on from step 6" in capsys.readouterr().err, "the disk's"
    assert (tmp_path / "behind/metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path, list[Path]], object]] = {
    "a flipped bit in a part": lambda _, parts: flip(parts[0]),
    "a truncated part": lambda _, parts: cut(parts[-1]),
    "a part that is gone": lambda _, parts: parts[0].unlink(),
    "a truncated manifest": lambda manifest, _: cut(manifest),
    "a flipped bit in the manifest": lambda manifest, _: flip(manifest),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_and_said_and_made_again(
    damage: Callable[[Path, list[Path]], object],
    tmp_path: Path,
    unbroken: nn.Module,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = open_store(str(tmp_path / "store"))
    go(tmp_path / "machine", store, kill_after=5)
    folder = tmp_path / "store" / PREFIX
    damage(folder / "00000004.json", sorted(folder.glob("00000004-*")))
    check_goes_on(store, tmp_path, unbroken)
    said = capsys.readouterr().err
    assert said.count("checkpoint 00000004 in the store is damaged (") == 1
    assert "going on from step 3" in said
    assert list_bundles(store, PREFIX) == ["00000007", "00000008"]


class DyingStore:
    """A store whose machine ends at one of the changes: that one and all later ones do not reach it, or their answer
    does not come back."""

    def __init__(self, store: Store, number: int, before: bool) -> None:
        self._store, self._left, self._before = store, number, before
        self.url = store.url
        self.died = False

    def _change(self, act: Callable[[], Any]) -> Any:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and self._before):
            self.died = True
            raise GraftlineError("the machine ended")
        done = act()
        if self._left == 0:
            self.died = True
            raise GraftlineError("the machine ended")
        return done

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        return bool(self._change(lambda: self._store.put_if_absent(key, content)))

    def delete(self, key: str) -> None:
        self._change(lambda: self._store.delete(key))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("before", [True, False])
def test_an_end_between_any_two_changes_leaves_a_whole_checkpoint(
    before: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of the uploads and deletions of four checkpoints in turn."""
    number, resumed = 0, []
    while True:
        number += 1
        store = open_store(str(tmp_path / f"store-{number}"))
        dying: Any = DyingStore(store, number, before)
        go(tmp_path / f"disk-{number}", dying, kill_after=5)
        if not dying.died:
            break
        desk = make_desk(tmp_path / f"other-{number}", store)
        found = desk.checkpoints.load()
        resumed.append(found.step if found else 0)
        if found:
            assert len(read_metrics(desk.metrics)) == found.step, "with the lines before it"
    assert resumed == sorted(resumed)
    assert set(resumed) == {0, 1, 2, 3, 4}
    assert number > 4 * UPLOADS, "deletions too"
    assert "damaged" not in capsys.readouterr().err, "what was cut short is not visible at all"


def test_parts_of_an_upload_that_was_cut_short_go_with_the_next(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    dying: Any = DyingStore(store, 2 * UPLOADS + 2, True)
    go(tmp_path / "disk", dying, kill_after=5)
    assert [key for key in store.list(f"{PREFIX}/") if "/00000003-" in key]
    go(tmp_path / "other", store, kill_after=6)
    names = {Path(key).name[:8] for key in store.list(f"{PREFIX}/")}
    assert names == {"00000004", "00000005"}


def test_a_store_that_answers_500_is_said_once_and_the_next_checkpoint_is_tried(
    moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Down from the second checkpoint's first upload, for 3 checkpoints of 6 tries each."""
    bucket, _, prefix = moto_url.removeprefix("s3://").partition("/")
    first, last = UPLOADS + 1, UPLOADS + 3 * 6
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with Proxy(endpoint, lambda put: "500-before" if first <= put <= last else "") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        go(tmp_path / "disk", S3Store(bucket, prefix, backoff=0.001), kill_after=7)
    said = capsys.readouterr().err
    assert said.count("is not in the store") == 1
    assert "the checkpoint of step 2 is not in the store, which has that of step 1: " in said
    assert "did not serve it in 6 tries" in said
    assert said.count("the store takes checkpoints again: it has that of step 5") == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert list_bundles(open_store(moto_url), PREFIX) == ["00000005", "00000006"]


def test_a_run_starts_though_the_store_does_not_answer(
    moto_url: str,
    tmp_path: Path,
    unbroken: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket, _, prefix = moto_url.removeprefix("s3://").partition("/")
    with Proxy(os.environ["AWS_ENDPOINT_URL"], lambda _: "down") as proxy:
        proxy.down = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        module = go(tmp_path / "disk", S3Store(bucket, prefix, backoff=0.001))
    assert same_bits(module, unbroken)
    assert "no checkpoint is read from the store" in capsys.readouterr().err


class KeepingStore:
    """A store that takes everything and gives nothing up."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def delete(self, key: str) -> None:
        raise InputError(f"store key {key}", "403 AccessDenied")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_older_checkpoints_that_stay_are_said_once_and_no_failure_of_the_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "store"))
    keeping: Any = KeepingStore(store)
    go(tmp_path / "disk", keeping, kill_after=7)
    said = capsys.readouterr().err
    assert said.count("the store has the checkpoint of step 3; older ones stay there: store key") == 1
    assert said.count("stay there") == 1
    assert "is not in the store" not in said and "takes checkpoints again" not in said
    assert list_bundles(store, PREFIX) == [f"{step:08d}" for step in range(1, 7)]


class SlowStore:
    """A store that takes nothing before `gate` is set."""

    def __init__(self, store: Store, gate: threading.Event) -> None:
        self._store, self._gate = store, gate

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        assert self._gate.wait(60)
        return self._store.put_if_absent(key, content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_slow_store_does_not_hold_the_steps_up_and_gets_the_newest(tmp_path: Path, unbroken: nn.Module) -> None:
    """Training ends while the first upload has not begun; its folder is kept for it, beyond the last two."""
    gate, store = threading.Event(), open_store(str(tmp_path / "store"))
    slow: Any = SlowStore(store, gate)
    desk = make_desk(tmp_path / "disk", slow)
    run = make_run(Watch())
    train(run, desk)
    assert same_bits(run.module, unbroken)
    kept = sorted(path.name for path in (tmp_path / "disk/checkpoints").iterdir())
    assert kept[-2:] == ["00000007", "00000008"] and len(kept) == 3
    gate.set()
    assert desk.checkpoints.remote
    desk.checkpoints.remote.settle(time.monotonic() + 60)
    assert list_bundles(store, PREFIX) == [kept[0], "00000008"], "the one under way, then the newest"


def test_settling_ends_in_time_and_the_checkpoint_before_stands(tmp_path: Path) -> None:
    gate, store = threading.Event(), open_store(str(tmp_path / "store"))
    go(tmp_path / "disk", store, kill_after=3)
    slow: Any = SlowStore(store, gate)
    desk = make_desk(tmp_path / "disk", slow)
    assert desk.checkpoints.load() is not None and desk.checkpoints.remote
    desk.checkpoints.save(3, {"w": torch.ones(1)}, {"metrics_bytes": 0})
    desk.checkpoints.remote.settle(time.monotonic() + 0.05)
    assert list_bundles(store, PREFIX) == ["00000001", "00000002"]
    gate.set()


def test_checkpoints_of_other_parameters_are_not_seen(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    go(tmp_path / "disk", store, kill_after=3)
    other = RemoteCheckpoints(store, "pretrain", "2" * 64, RUN, tmp_path / "metrics.jsonl")
    assert other.found() == []
    # of the same first 16 digits: the whole identity is in the checkpoint's own manifest
    akin = IDENTITY[:16] + "2" * 48
    remote = RemoteCheckpoints(store, "pretrain", akin, RUN, tmp_path / "new/metrics.jsonl")
    assert Checkpoints(tmp_path / "new/checkpoints", akin, 0, remote).load() is None


def test_another_run_of_the_same_work_goes_on_from_the_newest_of_any_run(
    store_url: str, tmp_path: Path, unbroken: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    """K9: a submit of the work of a cancelled run does not begin at step 0; each writes below its own name."""
    store = open_store(store_url)
    go(tmp_path / "cancelled", store, kill_after=3)
    go(tmp_path / "lost", store, kill_after=5, run_name=OTHER_RUN)
    assert "a run: going on from step 2 of" in capsys.readouterr().err
    assert list_bundles(store, PREFIX) == ["00000001", "00000002"], "no other run's to remove"
    assert list_bundles(store, f"{WORK}/{OTHER_RUN}") == ["00000003", "00000004"]
    assert same_bits(go(tmp_path / "third", store, run_name="third"), unbroken)
    assert "a run: going on from step 4 of" in capsys.readouterr().err


def test_a_damaged_one_of_another_run_is_passed_over_and_left_to_that_run(
    tmp_path: Path, unbroken: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "store"))
    go(tmp_path / "first", store, kill_after=4)
    cut(next((tmp_path / "store" / PREFIX).glob("00000003-*")))
    assert same_bits(go(tmp_path / "second", store, run_name=OTHER_RUN), unbroken)
    said = capsys.readouterr().err
    assert "checkpoint 00000003 in the store is damaged (" in said and "going on from step 2" in said
    assert list_bundles(store, PREFIX) == ["00000002", "00000003"]


def test_a_whole_output_leaves_checkpoints_of_open_runs_and_of_other_work_alone(store_url: str, tmp_path: Path) -> None:
    """K9: two runs at once do not share one; what an ended run left of this work goes with the success."""
    store = open_store(store_url)
    go(tmp_path / "ended", store, kill_after=3, run_name="ended")
    go(tmp_path / "open", store, kill_after=5, run_name=OTHER_RUN)
    runs.begin(store, runs.Start(OTHER_RUN, "key", "digits"))
    desk = make_desk(tmp_path / "disk", store)
    train(make_run(Watch()), desk)
    other_work = f"checkpoints/pretrain/{'2' * 16}/ended/00000001.json"
    store.put_if_absent(other_work, b"{}")
    assert desk.checkpoints.remote
    desk.checkpoints.remote.forget()
    assert store.list(f"{PREFIX}/") == store.list(f"{WORK}/ended/") == []
    assert list_bundles(store, f"{WORK}/{OTHER_RUN}") == ["00000003", "00000004"]
    assert store.list(other_work) == [other_work]


def test_checkpoints_of_work_that_was_given_up_are_swept_after_a_while(tmp_path: Path) -> None:
    """K42. One that ended a day ago, an open one and one that nobody knows stay."""
    store = open_store(str(tmp_path / "store"))
    now = datetime(2026, 11, 29, tzinfo=UTC)
    for run, days in (("old", 15), ("recent", 1), ("retried", 15), ("open", None), ("unknown", None)):
        store.put_if_absent(f"{WORK}/{run}/00000001.json", b"{}")
        store.put_if_absent(f"{WORK}/{run}/00000001-ab", b"x")
        start = runs.Start(run, "key", "digits")
        if days:
            runs.conclude(store, runs.End(start, "CANCELED", ended=(now - timedelta(days=days)).isoformat()))
        if run in ("open", "retried"):
            runs.begin(store, start)
    assert sweep_checkpoints(store, now) == ["old"]
    left = {key.split("/")[3] for key in store.list("checkpoints/")}
    assert left == {"recent", "retried", "open", "unknown"}


def test_they_stay_where_the_engine_removes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAFTLINE_KEEP_CHECKPOINTS", "1")
    store = open_store(str(tmp_path / "store"))
    desk = make_desk(tmp_path / "disk", store)
    train(make_run(Watch()), desk)
    assert desk.checkpoints.remote
    desk.checkpoints.remote.settle(time.monotonic() + 60)
    desk.checkpoints.remote.forget()
    assert list_bundles(store, PREFIX)


def test_they_are_off_without_the_engines_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GRAFTLINE_CHECKPOINTS", raising=False)
    monkeypatch.setenv("GRAFTLINE_RUN", "0123abcd")
    assert remote_checkpoints(COMPONENT.name, IDENTITY, tmp_path / "metrics.jsonl") is None


@pytest.mark.parametrize("run", ["", "../../releases", "a b", "a/b"])
def test_a_store_without_the_key_of_a_run_is_bad_input(
    run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLINE_CHECKPOINTS", str(tmp_path / "store"))
    monkeypatch.setenv("GRAFTLINE_RUN", run)
    with pytest.raises(InputError):
        remote_checkpoints(COMPONENT.name, IDENTITY, tmp_path / "metrics.jsonl")


def test_a_bucket_that_is_not_there_stops_the_run_at_its_start(moto_url: str, tmp_path: Path) -> None:
    desk = make_desk(tmp_path, open_store("s3://no-such-bucket/graftline"))
    with pytest.raises(InputError, match="NoSuchBucket"):
        desk.checkpoints.load()


def test_a_checkpoint_holds_only_its_own_lines_of_the_metrics(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    go(tmp_path / "disk", store, kill_after=5)
    remote = RemoteCheckpoints(store, "pretrain", IDENTITY, RUN, tmp_path / "metrics.jsonl")
    assert remote.fetch(3, RUN, tmp_path / "00000003")
    assert {path.name for path in (tmp_path / "00000003").iterdir()} == {STATE, MANIFEST, "metrics.jsonl"}
    assert len(read_metrics(tmp_path / "00000003/metrics.jsonl")) == 3
