"""What a real git repository says of schedules, and the local backend that follows it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.canonical import read_json
from graftline.durable import write_new
from graftline.engines import local as engine
from graftline.environment import ROOT
from graftline.errors import GraftlineError, InputError
from graftline.pipelines import compile as compiling
from graftline.pipelines.compile import compiled
from graftline.pipelines.reconcile import claims, shift
from graftline.pipelines.reconcile import repository as of_git
from graftline.pipelines.reconcile.agenda import Agenda
from graftline.pipelines.reconcile.desired import Desired, OneRun, Unknown
from graftline.pipelines.reconcile.local import LocalBackend
from graftline.pipelines.reconcile.reconcile import Outcome, reconcile
from graftline.pipelines.reconcile.repository import Changed, GitRepository
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store

SCHEDULES = """
schedules:
  digits:
    task: digits
    cron: "0 3 * * *"
    on_change: [data, parameters, code]
"""
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Checkout:
    """A small repository of the same layout, a store, a clock, and runs that are only noted."""

    def __init__(self, folder: Path) -> None:
        self.root, self.now = folder / "checkout", NOON
        self.store = open_store(str(folder / "store"))
        self.runs: list[OneRun] = []
        self.status = 0
        self.root.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("data/digits/raw.dvc", "outs: [{md5: 1, path: raw}]\n")
        self.write("data/digits/params.yaml", "task: digits\n")
        self.write("data/digits/expectations.yaml", "columns: {}\n")
        self.write("src/graftline/code.py", "1\n")
        self.write("pipelines/schedules.yaml", SCHEDULES)
        self.commit()

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, text.encode())

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a change")
        return self.git("rev-parse", "HEAD")

    def change(self, name: str, text: str) -> str:
        self.write(name, text)
        return self.commit()

    def repository(self) -> GitRepository:
        return GitRepository(self.root, local=True, store_url=self.store.url)

    def desire(self, now: datetime) -> Desired:
        return Agenda(self.repository(), self.store).desired(now)

    def reconcile(self) -> Outcome:
        """As `graftline reconcile --backend local` does."""
        repository = self.repository()
        backend = LocalBackend(self.store, commit=repository.commit, run=self._run)
        return reconcile(backend, Agenda(repository, self.store), lambda: self.now)

    def _run(self, run: OneRun) -> int:
        self.runs.append(run)
        return self.status

    def slots(self) -> list[str]:
        return [run.slot for run in self.runs]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_commit_that_changed_what_is_watched_is_named(checkout: Checkout) -> None:
    first = checkout.git("rev-parse", "HEAD")
    assert checkout.repository().changed("digits") == Changed(first, ("code", "data", "parameters"))
    checkout.change("README.md", "words\n")
    assert checkout.repository().changed("digits") == Changed(first, ("code", "data", "parameters"))
    data = checkout.change("data/digits/raw.dvc", "outs: [{md5: 2, path: raw}]\n")
    assert checkout.repository().changed("digits") == Changed(data, ("data",))
    params = checkout.change("data/digits/params.yaml", "task: digits\npretrain: {epochs: 2}\n")
    assert checkout.repository().changed("digits") == Changed(params, ("parameters",))


def test_a_merge_counts_where_it_arrives(checkout: Checkout) -> None:
    checkout.git("checkout", "-q", "-b", "side")
    checkout.change("data/digits/params.yaml", "task: digits\npretrain: {epochs: 3}\n")
    checkout.git("checkout", "-q", "main")
    checkout.change("README.md", "words\n")
    checkout.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    merge = checkout.git("rev-parse", "HEAD")
    assert checkout.repository().changed("digits") == Changed(merge, ("parameters",))


def test_a_shallow_clone_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    checkout.change("README.md", "words\n")
    url = checkout.root.as_uri()
    subprocess.run(["git", "clone", "-q", "--depth", "1", url, str(tmp_path / "shallow")], check=True)
    with pytest.raises(InputError, match="git fetch --unshallow"):
        GitRepository(tmp_path / "shallow", local=True)


def test_a_change_that_is_not_committed_is_refused(checkout: Checkout) -> None:
    checkout.write("data/digits/params.yaml", "task: digits\nfinetune: {epochs: 1}\n")
    with pytest.raises(InputError, match=r"data/digits/params\.yaml is not committed"):
        checkout.repository()


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a git repository"):
        GitRepository(tmp_path, local=True)


def test_the_same_commit_never_runs_twice_and_a_revert_runs_again(checkout: Checkout) -> None:
    before = checkout.repository().work("digits")
    checkout.reconcile()
    checkout.reconcile()
    first = checkout.git("rev-parse", "HEAD")
    checkout.change("README.md", "words\n")
    checkout.reconcile()
    assert checkout.slots() == [f"commit:{first}"]
    changed = checkout.change("data/digits/params.yaml", "task: digits\npretrain: {epochs: 2}\n")
    checkout.reconcile()
    checkout.git("revert", "--no-edit", "HEAD")
    reverted = checkout.git("rev-parse", "HEAD")
    checkout.reconcile()
    checkout.reconcile()
    assert checkout.slots() == [f"commit:{commit}" for commit in (first, changed, reverted)]
    assert checkout.repository().work("digits").parameters == before.parameters


def test_the_record_says_why_a_run_was_started(checkout: Checkout) -> None:
    checkout.reconcile()
    (run,) = checkout.runs
    record = read_json(Path(checkout.store.url, "runs", f"{run.key}.json"))
    assert (record["task"], record["state"], record["reason"]["kind"]) == ("digits", "SUCCEEDED", "commit")
    checkout.change("data/digits/raw.dvc", "outs: [{md5: 2, path: raw}]\n")
    checkout.reconcile()
    record = read_json(Path(checkout.store.url, "runs", f"{checkout.runs[-1].key}.json"))
    assert record["reason"]["kind"] == "data"
    assert record["reason"]["commit"] == record["revision"] == checkout.git("rev-parse", "HEAD")
    checkout.now += timedelta(days=1)
    checkout.reconcile()
    record = read_json(Path(checkout.store.url, "runs", f"{checkout.runs[-1].key}.json"))
    assert record["reason"] == {"kind": "schedule", "schedule": "digits", "slot": "20260502T030000Z"}


def test_slots_run_once_each_and_a_machine_that_was_off_runs_the_latest(checkout: Checkout) -> None:
    checkout.reconcile()
    for hours in (10, 10, 10, 24 * 5, 1):
        checkout.now += timedelta(hours=hours)
        checkout.reconcile()
        checkout.reconcile()
    assert checkout.slots()[1:] == ["20260502T030000Z", "20260507T030000Z"]


def test_catching_up_runs_every_missed_slot_oldest_first(checkout: Checkout) -> None:
    checkout.change("pipelines/schedules.yaml", SCHEDULES + "    catch_up: true\n    concurrency: 5\n")
    checkout.reconcile()
    checkout.now += timedelta(days=3)
    checkout.reconcile()
    assert checkout.slots()[1:] == [f"2026050{day}T030000Z" for day in (2, 3, 4)]


def test_a_schedule_that_was_paused_or_is_new_repeats_no_slot_of_before(checkout: Checkout) -> None:
    checkout.reconcile()
    checkout.change("pipelines/schedules.yaml", SCHEDULES + "    paused: true\n")
    for _ in range(3):
        checkout.now += timedelta(days=1)
        checkout.reconcile()
    checkout.change("pipelines/schedules.yaml", SCHEDULES)
    checkout.reconcile()
    assert len(checkout.runs) == 1
    checkout.now += timedelta(days=1)
    checkout.reconcile()
    assert checkout.slots()[1:] == ["20260505T030000Z"]


@pytest.mark.parametrize("status", [75, -9, 130])
def test_a_run_that_was_stopped_is_taken_up_again_under_its_key(checkout: Checkout, status: int) -> None:
    checkout.status = status
    assert not checkout.reconcile().settled
    stopped = len(checkout.runs)
    checkout.status = 0
    assert checkout.reconcile().settled
    assert len(checkout.runs) == stopped + 1
    assert len({run.key for run in checkout.runs}) == 1


@pytest.mark.parametrize(("status", "state"), [(1, "FAILED"), (2, "FAILED"), (3, "REFUSED")])
def test_a_run_that_failed_is_recorded_and_not_repeated(checkout: Checkout, status: int, state: str) -> None:
    checkout.status = status
    checkout.reconcile()
    checkout.reconcile()
    (run,) = checkout.runs
    assert read_json(Path(checkout.store.url, "runs", f"{run.key}.json"))["state"] == state


class Killed(BaseException):
    pass


def test_a_reconcile_that_is_killed_during_a_run_goes_on_with_it(checkout: Checkout) -> None:
    def die(run: OneRun) -> int:
        raise Killed

    repository = checkout.repository()
    backend = LocalBackend(checkout.store, commit=repository.commit, run=die)
    with pytest.raises(Killed):
        reconcile(backend, Agenda(repository, checkout.store), lambda: checkout.now)
    assert checkout.reconcile().settled
    assert len(checkout.runs) == 1


def test_a_run_that_failed_on_a_full_disk_is_tried_again(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(checkout.root))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10**6))
    checkout.status = 2
    outcome = checkout.reconcile()
    assert not outcome.settled
    assert "has 1 MB left; make room" in outcome.failures[0]
    monkeypatch.undo()
    checkout.status = 0
    assert checkout.reconcile().settled
    assert len({run.key for run in checkout.runs}) == 1


def test_a_slot_that_a_run_elsewhere_has_begun_is_not_run_here(checkout: Checkout) -> None:
    (run,) = checkout.desire(checkout.now).runs
    held = claims.hold(checkout.store, "k", "run-on-a-cluster", schedule=run.schedule, slot=run.slot_file)
    assert held is None
    assert checkout.reconcile().settled
    assert not checkout.runs


def test_parameters_of_a_schedule_are_for_clusters(checkout: Checkout) -> None:
    checkout.change("pipelines/schedules.yaml", SCHEDULES + "    set: {finetune.epochs: 3}\n")
    outcome = checkout.reconcile()
    assert not outcome.settled
    assert "the local backend runs the checkout as it is" in outcome.unknown[0].reason


def raw_images(folder: Path, brightness: int) -> None:
    """Write 300 images of 8 by 8 pixels in two classes."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 100, (300, 64), dtype=np.uint8) + np.uint8(brightness)
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": pa.array(list(pixels)), "label": pa.array([row % 2 for row in range(300)])})
    pq.write_table(table, folder / "images.parquet")


IMAGES = """
columns:
  image: {type: image, shape: [8, 8]}
  label: {type: integer, role: label, classes: [0, 1]}
"""


def test_new_data_runs_only_when_it_has_shifted_beyond_the_limit_of_now(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured by the real validate against a champion in the store. DVC brings no data: it lies there already."""
    monkeypatch.setattr(engine, "pull_raw", lambda task: False)
    measured: list[str] = []
    measure = shift._validate

    def counted(task: str, store_url: str, root: Path) -> dict[str, Any]:
        measured.append(task)
        return measure(task, store_url, root)

    monkeypatch.setattr(shift, "_validate", counted)
    checkout.change("data/digits/expectations.yaml", IMAGES)
    checkout.change("pipelines/schedules.yaml", SCHEDULES.replace("[data, parameters, code]", "[shift]"))
    raw = checkout.root / "data/digits/raw"
    raw_images(raw, 0)
    checkout.reconcile()
    assert not checkout.runs, "nothing was released yet"

    learnt = checkout.root.with_name("learnt")
    validate = [
        sys.executable, "-m", "graftline.components.validate", "--params", '{"task": "digits"}', "--in-raw", raw,
        "--in-expectations", raw.with_name("expectations.yaml"), "--out-dataset", learnt,
    ]  # fmt: skip
    assert forked.run([*validate, "--store", checkout.store.url]).returncode == 0
    draft = ReleaseDraft("digits", {"profile.json": learnt / "profile.json"}, {})
    publish(checkout.store, draft, Publication("0" * 32, fresh=True))
    checkout.change("data/digits/params.yaml", "task: digits\nvalidate: {drift_warning: 50}\n")
    raw_images(raw, 60)
    checkout.change("data/digits/raw.dvc", "outs: [{md5: 2, path: raw}]\n")
    checkout.reconcile()
    assert not checkout.runs, "shifted, and not beyond the limit"
    checkout.change("data/digits/params.yaml", "task: digits\nvalidate: {drift_warning: 0.25}\n")
    checkout.reconcile()
    checkout.reconcile()
    (run,) = checkout.runs
    assert len(measured) == 1, "once for this data and champion"
    reason = read_json(Path(checkout.store.url, "runs", f"{run.key}.json"))["reason"]
    assert (reason["kind"], reason["champion"], reason["limit"]) == ("shift", "digits@1", 0.25)
    assert "label" not in reason["index"]
    assert 0.25 < reason["index"]["image.mean"] < 50


def test_data_whose_shift_cannot_be_measured_stops_no_other_schedule(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "  other:\n    task: digits\n    on_change: [shift]\n"
    checkout.change("pipelines/schedules.yaml", SCHEDULES + other)
    tries: list[str] = []

    def broken(task: str, *_: Any) -> None:
        tries.append(task)
        raise GraftlineError("data/digits: its shift could not be measured")

    monkeypatch.setattr(of_git, "measure_shift", broken)
    outcome = checkout.reconcile()
    assert len(checkout.runs) == 1
    assert outcome.unknown == (Unknown("other", "data/digits: its shift could not be measured"),)
    assert not outcome.settled
    repository = checkout.repository()
    tries.clear()
    for _ in range(2):
        with pytest.raises(GraftlineError):
            repository.shift("other")
    assert len(tries) == 1, "reading the data again would fail alike"


def test_the_versions_that_a_commit_holds_compiled_are_known(checkout: Checkout) -> None:
    assert checkout.repository().manifests == frozenset()
    shutil.copytree(ROOT / "pipelines/compiled", checkout.root / "pipelines/compiled")
    checkout.commit()
    found = checkout.repository().manifests
    assert compiled("mnist").version in found
    assert len(found) == len(list((ROOT / "pipelines/compiled").glob("*.yaml")))


def test_runs_are_told_the_store_that_reconcile_uses(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "compiled", lambda task, **_: compiled("mnist"))
    monkeypatch.setattr(GitRepository, "_data_digest", lambda repository, task: "d" * 64)
    shutil.copy(ROOT / "images.lock", checkout.root)
    work = GitRepository(checkout.root, store_url="s3://other/place").work("digits")
    assert work.parameters["store"] == "s3://other/place"
    assert work.parameters.keys() == compiled("mnist").parameters.keys()


def test_a_store_on_this_machine_is_none_for_a_cluster(checkout: Checkout) -> None:
    with pytest.raises(InputError, match="is a folder of this machine, and the runs are on a cluster"):
        GitRepository(checkout.root, store_url=checkout.store.url)
