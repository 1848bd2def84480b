"""The exporter: champions of a real store, schedules of a real git repository, over a real socket."""

from __future__ import annotations

import http.client
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from graftline.pipelines import metrics
from graftline.pipelines.metrics import Values, collect, due_times, look_times, open_counts, server
from graftline.releases.catalogue import champion
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.runs import Start, begin
from graftline.store.documents import json_bytes
from graftline.store.opening import open_store

SCHEDULES = """\
schedules:
  nightly: {task: digits, cron: "30 2 * * *", zone: Europe/Berlin}
  at-rest: {task: digits, cron: "* * * * *", paused: true}
  on-change: {task: digits, on_change: [data]}
"""
COMMITTED = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose schedules were committed at noon (UTC) of 2 March 2026."""
    root = tmp_path / "checkout"
    (root / "pipelines").mkdir(parents=True)
    (root / "pipelines/schedules.yaml").write_text(SCHEDULES)
    when = COMMITTED.isoformat()
    environment = {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "schedules"]):
        subprocess.run(["git", "-C", str(root), *command], check=True, env=environment)
    return root


@pytest.fixture
def store(tmp_path: Path) -> str:
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.safetensors").write_bytes(bytes(range(256)))
    draft = ReleaseDraft(
        "digits", {"model.safetensors": files / "model.safetensors"}, {"model": b"{}"}, {"accuracy": 0.9}
    )
    publish(open_store(str(tmp_path / "store")), draft, Publication("one"))
    return str(tmp_path / "store")


@contextmanager
def listening(store: str, checkout: Path) -> Iterator[http.client.HTTPConnection]:
    with server(("127.0.0.1", 0), store, checkout) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield http.client.HTTPConnection("127.0.0.1", answering.server_address[1], timeout=10)
        answering.shutdown()


def test_a_schedule_is_due_at_its_first_slot_that_nothing_was_started_for(checkout: Path, store: str) -> None:
    """K45: there is always a sample; before a reconcile has looked, slots count from the commit."""
    first = datetime(2026, 3, 3, 1, 30, tzinfo=UTC).timestamp()
    for now in (COMMITTED, COMMITTED + timedelta(days=3)):
        (labels,) = due_times(checkout, store, now)
        assert dict(labels) == {"schedule": "nightly", "task": "digits"}
        assert due_times(checkout, store, now)[labels] == first
    noted = {
        "times": "30 2 * * * Europe/Berlin",
        "since": "2026-03-05T01:30:00+00:00",
        "looked": "2026-03-05T01:30:01+00:00",
    }
    open_store(store).put_if_absent("runs/schedules/nightly.json", json_bytes(noted))
    assert due_times(checkout, store, COMMITTED)[labels] == first + 3 * 86400
    assert look_times(store) == {(): datetime(2026, 3, 5, 1, 30, 1, tzinfo=UTC).timestamp()}


def test_slots_of_more_than_a_year_ago_do_not_count(checkout: Path, store: str) -> None:
    now = COMMITTED + timedelta(days=3650)
    (due,) = due_times(checkout, store, now).values()
    assert now - timedelta(days=367) < datetime.fromtimestamp(due, UTC) < now - timedelta(days=364)


def test_runs_at_work_are_counted_by_task(store: str) -> None:
    begin(open_store(store), Start("run-1", "k", "digits"))
    begin(open_store(store), Start("run-2", "l", "digits"))
    assert open_counts(store) == {(("task", "digits"),): 2.0}


def test_the_server_answers_in_the_text_format(store: str, checkout: Path) -> None:
    with listening(store, checkout) as connection:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        released = champion(open_store(store), "digits")
        assert released is not None
        seconds = datetime.fromisoformat(released.created).timestamp()
        assert f'graftline_champion_created_timestamp_seconds{{task="digits"}} {seconds:.0f}\n' in text
        assert "graftline_store_readable 1\n" in text
        assert 'graftline_schedule_due_timestamp_seconds{schedule="nightly",task="digits"}' in text
        assert "# TYPE graftline_schedule_due_timestamp_seconds gauge\n" in text
        for path, status in (("/healthz", 200), ("/", 404)):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, path


def test_what_cannot_be_read_is_a_zero_and_hides_nothing_else(
    store: str, checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "pipelines/schedules.yaml").write_text("schedules: {nightly: {task: digits, cron: never}}")
    values = {gauge.name: gauge.values for gauge in collect(store, checkout, COMMITTED)}
    assert values["graftline_schedules_readable"] == {(): 0.0}
    assert values["graftline_store_readable"] == {(): 1.0}
    assert values["graftline_champion_created_timestamp_seconds"]
    assert "metrics: schedules: " in capsys.readouterr().err
    values = {gauge.name: gauge.values for gauge in collect(store, tmp_path, COMMITTED)}
    assert values["graftline_schedules_readable"] == {(): 0.0}, "no git repository"
    (alias,) = (Path(store) / "aliases").rglob("*.json")
    alias.write_text("{}")
    values = {gauge.name: gauge.values for gauge in collect(store, checkout, COMMITTED)}
    assert values["graftline_store_readable"] == {(): 0.0}


@pytest.mark.parametrize("error", [ValueError("Invalid isoformat string: 'yesterday'"), KeyError("created")])
def test_no_error_at_all_keeps_the_other_gauges_from_being_told(
    error: Exception, store: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(store_url: str) -> Values:
        raise error

    monkeypatch.setattr(metrics, "champion_times", fail)
    values = {gauge.name: gauge.values for gauge in collect(store, checkout, COMMITTED + timedelta(days=3))}
    assert values["graftline_store_readable"] == {(): 0.0}
    assert values["graftline_schedule_due_timestamp_seconds"]
    assert f"metrics: store: {error!r}" in capsys.readouterr().err
