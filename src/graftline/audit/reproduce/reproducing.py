"""Make a release again and compare: identical bits, within the metrics' intervals, or diverged, and where first.

Every step runs in a clean checkout of the commit that its record names, with the recorded parameters, on the recorded
number of threads, from the raw data of the recorded digest, and from what the steps before it made here. Within one
determinism tuple and one set of packages equal inputs give equal bits, so there any difference is a divergence; on
another machine the figures may differ within the intervals that the release itself gives. docs/decisions/reproduce.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from graftline.audit.reproduce.conditions import conditions
from graftline.audit.reproduce.steps import run_steps, same_sources
from graftline.audit.reproduce.verdict import STEPS, Reproduction, Work, compare_metrics
from graftline.audit.verify.releases import CARD
from graftline.audit.verify.verifying import Options, verify
from graftline.errors import InputError
from graftline.records.model import Record
from graftline.releases.catalogue import resolve
from graftline.releases.chain import ReleaseChain, read_release_chain
from graftline.releases.fetching import fetch
from graftline.releases.layout import is_content, manifest_files
from graftline.store import Store

_SHOWN = 20
"""Lines about a release that is not sound."""


def reproduce(
    store: Store,
    reference: str,
    folder: Path,
    *,
    anyway: bool = False,
    options: Options | None = None,
    on_event: Callable[[str], None] = lambda line: None,
) -> Reproduction:
    """Make the release again in `folder`, an empty one; return the verdict.

    Args:
        anyway: go on although code, packages or machine are not those recorded; the verdict says which are not.
        options: how to verify the release beforehand: equal bits prove nothing about one that nobody vouches for.
        on_event: called with a line about what is done next.

    Raises:
        InputError: there is no such release, it lacks a record, or this repository lacks a commit.
        GraftlineError: a step was stopped, or the store cannot be read.
    """
    on_event("verifying the release and all that it came from")
    name, wrong = _verify(store, reference, options or Options(keep_state=False))
    if wrong:
        return _not_sound(name, wrong)
    release = resolve(store, name)
    chain = read_release_chain(store, release)
    read = _parts(chain)
    if unmade := _unmade(chain, read):
        return _not_sound(name, unmade)
    work = Work(store, release, folder, on_event, read, Reproduction(release.name, release.manifest))
    result = work.result
    on_event("checking out the recorded commits")
    result.conditions = conditions(work)
    if result.conditions and not anyway:
        result.reasons = ["not reproducible exactly here", *result.conditions]
        return result
    if same_sources(work) and run_steps(work):
        _judge(work)
    return result


def _verify(store: Store, reference: str, options: Options) -> tuple[str, list[str]]:
    """Return the release's name with its version, and what of it or behind it is not as its writers signed it."""
    found = verify(store, reference, options)
    faults = [finding for finding in found.findings if finding.kind != "erased"]
    lines = [f"{f.kind}: {f.place}: found {f.actual or 'nothing'}; expected {f.expected}" for f in faults]
    more = [f"and {len(lines) - _SHOWN} more: `graftline verify {found.scope}`"] if len(lines) > _SHOWN else []
    return found.scope, lines[:_SHOWN] + more


def _unmade(chain: ReleaseChain, read: Mapping[str, Record]) -> list[str]:
    """Return a line for each file of the release that none of the steps made that are run again: not compared, it
    could be anything."""
    made = {file for record in read.values() for file in record.files}
    files = [file for file in manifest_files(chain.manifest) if is_content(file.path) and file.path != CARD]
    return [
        f"{file.path} (sha256 {file.sha256}) is no output of {', '.join(STEPS.values())}"
        for file in files
        if file not in made
    ]


def _not_sound(name: str, reasons: list[str]) -> Reproduction:
    said = "the release is not as it was signed, or holds what no step made: nothing was run"
    return Reproduction(name, "", "not sound", [said, *reasons])


def _parts(chain: ReleaseChain) -> dict[str, Record]:
    """Return the release's records by output. Raises InputError if one is missing, or is of no step of the graph."""
    for name in STEPS:
        if name not in chain.parts:
            raise InputError(chain.release.name, f"it has no record of its {name}", fix="nothing says how to make it")
        if (component := chain.parts[name].component) != STEPS[name]:
            raise InputError(
                chain.release.name, f"its {name} was made by {component}, of what others sent",
                expected=f"one that {STEPS[name]} made", fix="what went in is in its record: `graftline trace`",
            )  # fmt: skip
    return {name: chain.parts[name] for name in STEPS}


def _judge(work: Work) -> None:
    result = work.result
    if result.first is None:
        result.verdict = "identical"
        return
    released = _metrics(fetch(work.store, work.release) / "metrics.json")
    found = _metrics(work.outputs["evaluation"] / "metrics.json")
    result.metrics = compare_metrics(released, found)
    outside = [metric.name for metric in result.metrics if not metric.within]
    within = bool(result.metrics) and not outside
    result.verdict = "within intervals" if within else "diverged"
    result.reasons.append(f"{result.first} is the first that differs; what is otherwise here may explain it")
    if outside:
        result.reasons.append("outside the released interval: " + ", ".join(outside))
    if not result.metrics:
        result.reasons.append("the release gives no interval for any metric")


def _metrics(path: Path) -> dict[str, float]:
    return dict(json.loads(path.read_bytes()))
