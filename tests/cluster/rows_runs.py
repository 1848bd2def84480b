"""Rows about one run: from submit to a release, from the cache, by two at once, refused, stopped by wrong data."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from acceptance_bench import SMALL, TASK, Bench, Failed, ended_as, expect, last_line, run_of

from graftline import runs

CACHED = ("fetch", "validate", "pretrain", "finetune")


def row_doctor(bench: Bench) -> str:
    done = bench.graftline("doctor", "--profile", bench.profile, "--json")
    try:
        points = json.loads(done.stdout)["points"]
    except ValueError:
        raise Failed(last_line(done)) from None
    wrong = [f"{point['name']}: {point['found']}" for point in points if point["counts"]]
    if wrong:
        raise Failed("; ".join(wrong))
    return f"{len(points)} points"


def row_release(bench: Bench) -> str:
    """A run from submit to release."""
    done = expect(bench.submit({}), 0)
    if not bench.store.list(f"releases/{TASK}/"):
        raise Failed("the run ended well, and the store has no release")
    return f"run {run_of(done)} released {TASK}@1"


def row_trace(bench: Bench) -> str:
    """The lineage of that release shows the run, its steps and their pods."""
    done = expect(bench.graftline("trace", TASK, "--store", bench.store.url), 0)
    found = bench.graftline("trace", TASK, "--store", bench.store.url, "--json")
    text = found.stdout + done.stdout
    run = next((run for run in sorted(bench.runs) if f"run {run}" in done.stdout), "")
    if not run:
        raise Failed(f"trace names no run: {done.stdout.splitlines()[:4]}")
    said = runs.attempts(bench.store, run)
    missing = sorted({attempt.pod for attempt in said if attempt.pod and attempt.pod not in text})
    if missing or not said:
        raise Failed(f"trace does not show the pods {', '.join(missing[:3])}" if said else "no step left a word")
    return f"run {run}, {len(said)} steps with their pods"


def row_cache(bench: Bench) -> str:
    """The same work once more takes fetch to finetune from the cache."""
    done = expect(bench.submit({}, "--again"), 0)
    missed = [step for step in CACHED if not re.search(rf"^{step} +from the cache$", done.stdout, re.MULTILINE)]
    if missed:
        raise Failed(f"not from the cache: {', '.join(missed)}")
    return f"{', '.join(CACHED)} from the cache"


def row_twice(bench: Bench) -> str:
    """Two submits of one run at once: one works, the other follows it."""
    changes = {"evaluate.lift_seeds": 3}
    with ThreadPoolExecutor(2) as pool:
        both = [future.result() for future in [pool.submit(bench.submit, changes) for _ in range(2)]]
    for done in both:
        expect(done, 0)
    keys = {end.start.key: end for run in {run_of(done) for done in both} if (end := bench.end(run))}
    released = [end for end in keys.values() if end.state == "SUCCEEDED"]
    if len(keys) > 1 or len(released) > 1:
        raise Failed(f"{len(released)} runs did the work of {len(keys)} keys")
    return "one worked; " + (
        "the other followed it" if "does this work" in both[0].stdout + both[1].stdout else "the other found it there"
    )


def row_refusal(bench: Bench) -> str:
    """A gate that no model passes: exit code 3, REFUSED in the store, nothing released."""
    gate = dict(SMALL["evaluate.gate"]) | {"floors": {"accuracy": 1.0}}  # type: ignore[call-overload]
    done = expect(bench.submit({"evaluate.gate": gate}), 3)
    return ended_as(bench, "refusal", run_of(done), "REFUSED")


def row_bad_data(bench: Bench) -> str:
    """Data that is not what the run was promised: exit code 2, tried once."""
    run = begin_by_hand(bench, {"data_digest": "0" * 64})
    said = ended_as(bench, "bad data", run, "FAILED")
    attempts = runs.attempts(bench.store, run, "fetch")
    if [attempt.code for attempt in attempts] != [2]:
        raise Failed(f"fetch ended with {[attempt.code for attempt in attempts]}, not once with 2")
    return said


def begin_by_hand(bench: Bench, changes: Mapping[str, str]) -> str:
    """Start a run with parameters that `submit` would not give it; return its id."""
    from graftline.engines.local import task_digest
    from graftline.images import load_images
    from graftline.pipelines.compile import compiled
    from graftline.pipelines.runkey import Run, work_of
    from graftline.profiles import parse_choices
    from graftline.task_data import committed_revision

    pipeline = compiled(TASK, profiles=parse_choices([bench.profile]), overrides=SMALL)
    pipeline = replace(pipeline, parameters=pipeline.parameters | {"store": bench.store.url})
    given = {"data_digest": task_digest(TASK)} | dict(changes)
    work = work_of(pipeline, load_images(), data_digest=given["data_digest"], revision=committed_revision(TASK))
    run = Run(work, f"manual:{uuid.uuid4()}", {"kind": "person", "who": "acceptance"})
    with bench.kubeflow() as api:
        version = api.versions(pipeline.pipeline).get(pipeline.version) or api.upload(
            pipeline.pipeline, pipeline.version, pipeline.spec
        )
        made = api.create_run(run.name, version, run.parameters)
    bench.runs.add(made)
    bench.versions.add(pipeline.version)
    return made
