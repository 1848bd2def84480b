"""Rows about schedules: what a clone of this checkout declares, and what its reconcile then starts."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from acceptance_bench import SMALL, TASK, Bench, Failed, expect, last_line, run_ids

from graftline import runs
from graftline.environment import ROOT

DEV = {"all": "dev"}
"""The pool of what reconcile starts."""


def row_slots(bench: Bench) -> str:
    """Three slots a minute apart, each started by reconcile and run once."""
    name, bench = f"acceptance-{bench.id}", bench.part("slots")
    clone = cloned(bench, "slots")
    declare(clone, name, cron="* * * * *", concurrency=3)

    def slots() -> list[str]:
        reconcile(bench, clone)
        return sorted(key.rpartition("/")[2] for key in bench.store.list(f"runs/intents/{name}/"))

    bench.wait("three slots", "three slots to be started", lambda: len(slots()) >= 3, 280)
    declare(clone, name, cron="* * * * *", concurrency=3, paused=True)
    reconcile(bench, clone)

    def concluded() -> list[str]:
        found = [end for run in run_ids(bench) if (end := bench.end(run)) and end.start.reason.get("schedule") == name]
        return [str(end.start.reason.get("slot")) for end in found if end.state == "SUCCEEDED"]

    done = bench.wait("three slots", "three runs to end", lambda: len(concluded()) >= 3 and concluded(), 420)
    if len(set(done)) != len(done):
        raise Failed(f"a slot was run twice: {sorted(done)}")
    return ", ".join(sorted(done))


def row_change(bench: Bench) -> str:
    """A commit that changes parameters starts a run of a new version; after its revert nothing is left to do."""
    from graftline.pipelines.compile import compiled

    name, bench = f"change-{bench.id}", bench.part("change")
    clone = cloned(bench, "change")
    declare(clone, name, cron="0 0 1 1 *", on_change=["parameters"], concurrency=3)
    before = compiled(TASK, profiles=DEV, overrides=SMALL).version
    reconcile(bench, clone)
    parameters = clone / f"data/{TASK}/params.yaml"
    changed = parameters.read_text().replace("mask_ratio: 0.5", "mask_ratio: 0.4")
    parameters.write_text(changed)
    expect(bench.graftline("compile", TASK, place=clone), 0)
    commit(clone, "Change")

    def begun() -> runs.Start | None:
        reconcile(bench, clone)
        known = [runs.begun(bench.store, run) or bench.end(run) for run in run_ids(bench)]
        starts = [one.start if isinstance(one, runs.End) else one for one in known]
        return next((start for start in starts if start and start.version != before), None)

    start = bench.wait("a change", "a run of the change", begun, 240)
    bench.versions.add(start.version)
    bench.terminate(start.run)
    git(clone, "revert", "--no-edit", "HEAD")
    reverted = time.monotonic()

    def same() -> bool:
        reconcile(bench, clone)
        return not bench.graftline("drift", "--store", bench.store.url, place=clone).returncode

    bench.wait("a change", "no drift after the revert", same, 180)
    return f"{start.version} started; its revert took hold in {time.monotonic() - reverted:.0f} s"


def git(place: Path, *arguments: str) -> None:
    who = ["-c", "user.name=acceptance", "-c", "user.email=acceptance@localhost"]
    subprocess.run(["git", "-C", str(place), *who, *arguments], check=True, capture_output=True)


def commit(place: Path, message: str) -> None:
    git(place, "commit", "--quiet", "--all", "--message", message)


def cloned(bench: Bench, name: str) -> Path:
    """Return a clone of this checkout's commit whose own code is what runs in it."""
    place = bench.folder / name
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True, capture_output=True)
    package = place / "build/package/graftline"
    package.mkdir(parents=True)
    for part in [*(place / "src/graftline").iterdir(), place / "components", place / "pipelines"]:
        (package / part.name).symlink_to(part)
    return place


def declare(place: Path, name: str, *, cron: str, on_change: list[str] | None = None, **more: Any) -> None:
    """Commit one schedule, in place of all."""
    import yaml

    schedule = {"task": TASK, "cron": cron, "profile": dict(DEV), "set": dict(SMALL), "on_change": on_change or []}
    path = place / "pipelines/schedules.yaml"
    path.write_text(yaml.safe_dump({"schedules": {name: schedule | more}}))
    commit(place, f"Schedule {name}")


def reconcile(bench: Bench, place: Path) -> None:
    """Let a clone reconcile once; another one at work, or a call that failed, is for the next time."""
    done = bench.graftline("reconcile", "--store", bench.store.url, place=place)
    if done.returncode not in (0, 75):
        raise Failed(f"reconcile ended with {done.returncode}: {last_line(done)}")
