"""A heartbeat in the store: who listens ends with SIGTERM when nobody follows any more (K40)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest

from graftline.errors import GraftlineError
from graftline.learning import heartbeat as module
from graftline.learning.heartbeat import Heartbeat
from graftline.store.opening import open_store

KEY = "handover/0123abcd/pretrain/heartbeat.json"


class Clock:
    """A clock that only sleep moves, and a store that does at each beat what the test says."""

    def __init__(self, beats: list[str | None], monkeypatch: pytest.MonkeyPatch) -> None:
        """`beats`: what is read each time; None for a store that does not answer."""
        self.now, self.beats, self.ended_at = 1000.0, beats, -1
        self.reads = 0
        monkeypatch.setattr(module.time, "sleep", self._sleep)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.os, "kill", self._kill)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _kill(self, pid: int, number: int) -> None:
        assert number == signal.SIGTERM
        self.ended_at = self.reads

    def listen(self, capsys: pytest.CaptureFixture[str]) -> str:
        heart = Heartbeat(self.store(), KEY)
        heart.listen("trainjob")
        return capsys.readouterr().err

    def store(self) -> Any:
        clock = self

        class Read:
            def get(self, key: str) -> Any:
                clock.reads += 1
                beat = clock.beats[min(clock.reads, len(clock.beats)) - 1]
                if beat is None:
                    raise GraftlineError("no answer")
                return type("Stored", (), {"tag": beat})

        return Read()


def test_silence_for_five_minutes_is_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(["1", "2", "3"], monkeypatch)
    said = clock.listen(capsys)
    assert said == (
        "trainjob: nobody has followed this job for 300 s: its run was ended, or its launcher is lost; "
        "a checkpoint, then the end\n"
    )
    assert clock.ended_at == 3 + 11


def test_an_outage_of_the_store_is_no_silence_and_the_time_begins_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For nine minutes neither side reaches the store; then the launcher beats again within its own time."""
    clock = Clock(["1", *[None] * 18, "1", "1", "2"], monkeypatch)
    clock.listen(capsys)
    assert clock.ended_at == 22 + 11, "five minutes after the beat that followed"


def test_a_store_that_stays_away_for_twice_the_time_is_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(["1", None], monkeypatch)
    assert "the store has not answered for 600 s; a checkpoint" in clock.listen(capsys)


def test_a_process_that_listens_lives_while_another_beats_and_gets_sigterm_after(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    code = (
        "import sys; from graftline.store.opening import open_store; "
        "from graftline.learning.heartbeat import Heartbeat;"
        f"Heartbeat(open_store({str(tmp_path / 'store')!r}), {KEY!r}).listen('trainjob')"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRAFTLINE_SILENT_SECONDS", "1")
        with Heartbeat(store, KEY).beating():
            process = forked.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
            time.sleep(2)
            assert process.poll() is None
        _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert "nobody has followed this job for 1 s" in said


def test_two_who_beat_and_a_store_that_does_not_answer_do_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "store"))
    with Heartbeat(store, KEY).beating(), Heartbeat(store, KEY).beating():
        assert store.list("") == [KEY]

    class Away:
        def get(self, key: str) -> Any:
            raise GraftlineError("no answer")

    away: Any = Away()
    with Heartbeat(away, KEY).beating():
        pass
    assert capsys.readouterr().err == "heartbeat: no answer\n"
