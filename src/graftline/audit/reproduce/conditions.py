"""What of code, packages and machine is otherwise here than when a release was made."""

from __future__ import annotations

from graftline.audit.reproduce import checkouts
from graftline.audit.reproduce.checkouts import Code
from graftline.audit.reproduce.verdict import STEPS, Work
from graftline.environment import determinism
from graftline.records.model import Record


def conditions(work: Work) -> list[str]:
    """Return what of code, packages and machine is not as recorded."""
    found: list[str] = []
    for output, record in work.records.items():
        code = Code.of(record)
        made = f"{STEPS[output]} ran"
        if code.dirty is not None and not checkouts.has_changes_at_hand(code):
            found.append(
                f"{made} with uncommitted changes (sha256 {code.dirty[:12]}) that are not at hand: commit only"
            )
        if code.image is not None:
            found.append(f"{made} in the image sha256:{code.image[:12]}, here it runs without one")
        privacy = record.parameters.get("finetune", {}).get("privacy")
        if privacy is not None and privacy["noise"] == "secure":
            found.append(f"{made} with batches and noise of a secure generator: by design no run has its bits again")
        found += [f"{made} otherwise: {line}" for line in _packages(work, output, code)]
        found += [f"{made} on {line}" for line in _machine(record)]
    return list(dict.fromkeys(found))


def _packages(work: Work, output: str, code: Code) -> list[str]:
    checkout = work.checkout(output)
    if code.lock is None:
        return ["its record names no requirements.lock"]
    lock = checkouts.lock_at_hand(checkout, code.lock, work.store)
    if lock is None:
        return [f"its requirements.lock (sha256 {code.lock[:12]}) is neither in the commit nor in the store"]
    different = checkouts.package_differences(lock)
    return [*different[:5]] + ([f"{len(different) - 5} more packages differ"] if len(different) > 5 else [])


def _machine(record: Record) -> list[str]:
    """Return the parts of the determinism tuple that cannot be had here; the number of threads can."""
    if not record.environment:
        return []
    here = determinism(1)
    found = [
        f"{name} {record.environment[name]}, here is {here[name]}"
        for name in ("torch", "isa")
        if record.environment.get(name, here[name]) != here[name]
    ]
    # a record that names no GPU was made on a CPU: here a GPU would do the work
    gpus = [str(environment.get("gpu", "no GPU")) for environment in (record.environment, here)]
    return found if gpus[0] == gpus[1] else [*found, f"{gpus[0]}, here is {gpus[1]}"]
