"""Make a release again: compare its sources, run its components in order, each in its own checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from graftline.audit.reproduce import checkouts
from graftline.audit.reproduce.verdict import STEPS, StepCheck, Work
from graftline.digests import sha256_file
from graftline.errors import EXIT_PREEMPTED, GraftlineError
from graftline.records.folder import read_record
from graftline.records.model import EXPECTATIONS, RAW, Record
from graftline.releases.catalogue import read_release
from graftline.releases.fetching import fetch
from graftline.releases.layout import read_manifest

SHOWN_FILES = 20


class StepFailedError(GraftlineError):
    """A component that made an output once does not make it here."""


def same_sources(work: Work) -> bool:
    """Compare raw data and contract with the record of the dataset; return whether to go on."""
    record, checkout = work.records["dataset"], work.checkout("dataset")
    recorded = {given.name: given.sha256 for given in record.inputs}
    work.on_event("looking for the raw data")
    raw, actual = checkouts.find_raw(checkout, work.release.task, recorded.get(RAW, ""))
    expectations = checkout.folder / "data" / work.release.task / "expectations.yaml"
    contract = sha256_file(expectations) if expectations.is_file() else None
    result = work.result
    result.steps += [
        StepCheck(RAW, recorded.get(RAW, ""), actual),
        StepCheck(EXPECTATIONS, recorded.get(EXPECTATIONS, ""), contract),
    ]
    if raw is not None:
        work.outputs[RAW] = raw
    work.outputs[EXPECTATIONS] = expectations
    first = next((step for step in result.steps if not step.same), None)
    if first is None:
        return True
    result.first = first.name
    if first.found is None:
        result.reasons.append(
            f"{first.name} with sha256 {first.recorded} is not at hand: neither in the repository nor with DVC"
        )
    else:
        result.verdict = "diverged"
        result.reasons.append(f"{first.name} has sha256 {first.found}, the record says {first.recorded}")
    return False


def run_steps(work: Work) -> bool:
    """Run the components in order; return whether all ran. Stops at a difference that only a defect can explain."""
    document = _document(work)
    address = _store_as_it_was(work)
    for output, component in STEPS.items():
        work.on_event(f"{component}: running again")
        started = time.perf_counter()
        recorded = work.records[output]
        try:
            made = _run_component(work, output, document, address)
        except StepFailedError as error:
            work.result.steps.append(StepCheck(output, recorded.content, None, time.perf_counter() - started))
            work.result.verdict, work.result.first = "diverged", work.result.first or output
            work.result.reasons.append(str(error))
            return False
        step = StepCheck(
            output, recorded.content, made.content, time.perf_counter() - started, _differing(recorded, made)
        )
        work.result.steps.append(step)
        if not step.same and work.result.first is None:
            work.result.first = output
        if not step.same and not work.result.conditions:
            work.result.verdict = "diverged"
            work.result.reasons.append(
                f"{output} has sha256 {made.content}, the record says {recorded.content}; "
                "code, packages, machine and inputs are those recorded"
            )
            return False
    return True


def _document(work: Work) -> str:
    """Return the parameters: each section from the record of the component that it is of."""
    document: dict[str, Any] = {"task": work.release.task}
    for output, component in STEPS.items():
        section = work.records[output].parameters.get(component)
        if section is not None:
            document[component] = section
    return json.dumps(document)


def _run_component(work: Work, output: str, document: str, address: str) -> Record:
    record, checkout, component = work.records[output], work.checkout(output), STEPS[output]
    arguments = ["--params", document, f"--out-{output}", str(work.folder / output), "--store", address]
    if component in ("pretrain", "finetune"):
        arguments = [*arguments[:-2], "--threads", str(int(record.environment.get("threads", 1)))]
    for name in _inputs(component):
        arguments += [f"--in-{name}", str(work.outputs[name])]
    done = subprocess.run(
        [sys.executable, "-m", f"graftline.components.{component}", *arguments],
        cwd=checkout.folder,
        env=checkout.environment(),
        stdout=sys.stderr.fileno(),
        check=False,
    )
    if done.returncode in (EXIT_PREEMPTED, 130, -2, -15):
        raise GraftlineError(f"{component} was stopped")
    if done.returncode:
        raise StepFailedError(f"{component} ended with exit code {done.returncode} here; what it said is above")
    work.outputs[output] = work.folder / output
    return read_record(work.folder / output)


def _inputs(component: str) -> tuple[str, ...]:
    return {
        "validate": (RAW, EXPECTATIONS),
        "pretrain": ("dataset",),
        "finetune": ("dataset", "trunk"),
        "evaluate": ("dataset", "trunk", "model"),
    }[component]


def _differing(recorded: Record, made: Record) -> tuple[str, ...]:
    before = {file.path: file.sha256 for file in recorded.files}
    now = {file.path: file.sha256 for file in made.files}
    return tuple(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))[:SHOWN_FILES]


# Evaluate compares with the champion of its time

_PUBLISH = """\
import json, sys
from pathlib import Path
try:
    from graftline.releases.publishing import Publication, ReleaseDraft as Draft, publish
    from graftline.store.opening import open_store
except ImportError:  # the commit is of a time when they had other names
    from graftline.releases.publishing import Draft, Publication, publish
    from graftline.store import open_store
task, version, folder, address = sys.argv[1:]
store, files = open_store(address), {}
for path in sorted(Path(folder).rglob("*")):
    name = path.relative_to(folder).as_posix()
    if path.is_file() and not name.startswith("records/") and name not in ("claim.json", "manifest.json", "model.sig"):
        files[name] = path
if int(version) > 1:  # the next number is then the champion's
    store.put_if_absent(f"releases/{task}/{int(version) - 1}/claim.json", b'{"payload":"","publication":"none"}')
metrics = json.loads(files["metrics.json"].read_text()) if "metrics.json" in files else {}
receipt = publish(store, Draft(task, files, {}, metrics), Publication("reproduce"))
assert receipt.release.version == int(version), receipt.release
print(receipt.release.digest)
"""


def _store_as_it_was(work: Work) -> str:
    """Return the address of a store in which the champion of then is champion: evaluate compares with it."""
    address = str(work.folder / "store")
    manifest = read_manifest(work.store, work.release.task, work.release.version, expected=work.release.manifest)
    champion = manifest.get("compared_with")
    if not champion:
        return address
    release = read_release(work.store, work.release.task, int(champion["version"]))
    folder, checkout = fetch(work.store, release), work.checkout("evaluation")
    done = subprocess.run(
        [sys.executable, "-c", _PUBLISH, release.task, str(release.version), str(folder), address],
        cwd=checkout.folder,
        env=checkout.environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode or done.stdout.strip() != champion["digest"]:
        lines = done.stderr.strip().splitlines() or ["its content is another"]
        raise GraftlineError(f"{release.name}, the champion of then, cannot be put into a store here: {lines[-1]}")
    return address
