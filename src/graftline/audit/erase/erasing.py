"""Erase a row or a person: remove the content, keep it from coming back, mark every model, leave a signed receipt.

The order is what makes it safe to be killed anywhere. The ledger is opened first: where it would refuse the entry,
nothing is touched. The plan is stored next, signed, for what is removed cannot be looked up any more. Then the rows
are blocked, so that no run brings them back meanwhile. Then they are removed: from the raw data, from DVC's cache and
remote, from outputs and hand-overs, from the row index. The receipt follows, then the ledger's entries that name it,
and the plan is deleted last. Each part does nothing the second time. docs/decisions/erase.md says what is not covered.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.audit.erase import dvc_content
from graftline.audit.erase.plan import ErasurePlan, check_subjects_key, index_targets, make_plan, plan_key, receipt_key
from graftline.audit.erase.raw import Target, find_rows, is_whole, remove_files, rewrite
from graftline.audit.erase.stored import store_plan
from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes
from graftline.errors import GraftlineError, InputError
from graftline.ledger.entries import Fact
from graftline.rows.blocklist import block, block_in_contract
from graftline.rows.erasing import remove, shard_now
from graftline.signing.envelope import open_envelope, seal
from graftline.signing.keyring import load_keyring
from graftline.signing.rotation import open_ledger
from graftline.signing.trusted import check_signed
from graftline.store import MissingError, Store
from graftline.times import utc_now

if TYPE_CHECKING:
    from graftline.ledger.log import Ledger
    from graftline.values.contract import Contract

__all__ = ["ErasurePlan", "Target", "erase", "make_plan"]

PAYLOAD_TYPE = "application/vnd.graftline.erasure+json"


def erase(
    store: Store,
    root: Path,
    plan: ErasurePlan,
    wanted: Target,
    contracts: Mapping[str, Contract],
    *,
    on_event: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Carry out a plan, a new one or one that was begun; return the receipt.

    Raises:
        InputError: a list of what is kept out was made with another key; or something was changed meanwhile, or a part
            of the store is damaged: run the same command again.
        RefusalError: the ledger does not take entries of this machine's key.
    """
    if wanted.subject is not None:  # also of a plan that was begun: lists may have come since
        check_subjects_key(store, contracts, wanted.key)
    ledger = open_ledger(store, load_keyring())
    on_event("storing the plan")
    store_plan(store, plan)
    on_event("blocking what is erased from coming back")
    _block(store, root, plan, wanted)
    known = _stored_receipt(store, plan)
    if known is None:  # else everything was removed, and this was killed later
        notes = _remove(store, root, plan, wanted, contracts, on_event)
        on_event("writing the receipt")
        known = _store_receipt(store, plan, notes)
    digest, receipt = known
    for fact in facts(plan, digest):
        on_event(f"entering {fact.task}@{fact.version} into the ledger")
        _enter(ledger, fact)
    store.delete(plan_key(plan.id))
    return receipt


def _remove(
    store: Store,
    root: Path,
    plan: ErasurePlan,
    wanted: Target,
    contracts: Mapping[str, Contract],
    on_event: Callable[[str], None],
) -> list[str]:
    """Remove everything that the plan names; return what is left to do by hand."""
    for task in plan.tasks:
        if task in contracts:
            on_event(f"taking rows out of data/{task}/raw")
            _rewrite_raw(root, task, contracts[task], wanted, plan)
    on_event(f"deleting {len(plan.objects)} objects from DVC's cache and remote")
    notes = _delete_objects(root, plan)
    for name in plan.outputs:
        on_event(f"deleting {name}")
        _delete_output(root, name)
    for task in plan.tasks:  # outputs and cache of the container engine, which makes them again
        for folder in (root / "build/docker" / task, root / "build/docker" / f".{task}"):
            shutil.rmtree(folder, ignore_errors=True)
    on_event(f"deleting {len(plan.bundles)} hand-overs")
    for key in plan.bundles:
        store.delete(key)
    on_event("taking the rows out of the row index")
    _clean_index(store, plan)
    return notes


def _block(store: Store, root: Path, plan: ErasurePlan, wanted: Target) -> None:
    subjects = plan.target if plan.kind == "subject" else []
    key = wanted.key if subjects else None
    for task in plan.tasks:
        block(store, task, plan.digests, subjects, key=key)
        contract = root / "data" / task / "expectations.yaml"
        if contract.is_file():
            block_in_contract(contract, plan.digests, subjects, key=key)


def _rewrite_raw(root: Path, task: str, contract: Contract, wanted: Target, plan: ErasurePlan) -> None:
    folder = root / "data" / task / "raw"
    names = sorted({str(file["file"]) for file in plan.raw if file["task"] == task and file["version"] is None})
    whole = is_whole(folder, contract.source)
    if whole and names:
        remove_files(folder, names, contract, wanted)
    for name in [] if whole else names:
        path = folder / name
        (folder / f".{name}.erasing").unlink(missing_ok=True)  # of a run that was killed
        if path.is_file() and (found := find_rows(path, contract, wanted)).positions:
            rewrite(path, found.positions, contract.asked)
    if names and (root / f"data/{task}/raw.dvc").is_file():
        dvc_content.add_raw(root, task)


def _delete_objects(root: Path, plan: ErasurePlan) -> list[str]:
    """Delete the objects; return what to do about those that git's history still holds."""
    with dvc_content.places(root) as found:
        for place in found:
            for oid in plan.objects:
                place.delete(oid)
        in_git = next((place for place in found if place.in_git), None)
    if in_git is None or not plan.objects:
        return []
    folder = Path(str(in_git.odb.path)).relative_to(root.resolve())
    paths = " ".join(f"--path {folder}/{oid[:2]}/{oid[2:]}" for oid in plan.objects)
    return [
        f"the DVC remote {folder} is kept in git, whose history still holds the deleted files: commit the deletion, "
        f"then `git filter-repo --invert-paths {paths}`, push with --force to every remote, and have every clone made "
        "anew"
    ]


def _delete_output(root: Path, name: str) -> None:
    path = (root / name).resolve()
    if not path.is_relative_to((root / "outputs").resolve()) or path == (root / "outputs").resolve():
        raise GraftlineError(f"the plan names {name}, which is not in outputs/; nothing there was deleted")
    beside = [path.with_name(f".{path.name}.{kind}") for kind in ("work", "records")]
    for folder in (path, *beside):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink(missing_ok=True)


def _clean_index(store: Store, plan: ErasurePlan) -> None:
    for kind, values in index_targets(plan):
        remove(store, kind, *map(bytes.fromhex, values))


def _store_receipt(store: Store, plan: ErasurePlan, notes: list[str]) -> tuple[str, dict[str, Any]]:
    """Store the signed receipt; return its sha256 and content."""
    shards = [
        {"place": place, "before": before, "after": shard_now(store, place)}
        for place, before in sorted(plan.shards.items())
    ]
    value = asdict(plan) | {
        "shards": shards,
        "finished": utc_now(),
        "not_covered": [*notes, *plan.not_covered],
        "objects_of_store": [
            *plan.bundles,
            *(f"{place}-{before[:16]}.bin" for place, before in sorted(plan.shards.items())),
        ],
    }
    data = seal(canonical_json(value), PAYLOAD_TYPE, load_keyring().signer())
    store.put_if_absent(receipt_key(plan.id), data)
    stored = _stored_receipt(store, plan)  # of another process, if it was quicker
    assert stored is not None
    return stored


def _stored_receipt(store: Store, plan: ErasurePlan) -> tuple[str, dict[str, Any]] | None:
    """Return the sha256 and content of the plan's receipt; None if there is none yet.

    Raises:
        InputError: no key that is trusted here signed it, or it is another erasure's.
    """
    key = receipt_key(plan.id)
    try:
        data = store.get(key).data
    except MissingError:
        return None
    where, fix = f"{store.url}/{key}", "delete it, then run the same command again"
    payload = open_envelope(data, where=where).payload
    check_signed(payload, PAYLOAD_TYPE, data, load_keyring(), where=where, fix=fix)
    receipt: dict[str, Any] = json.loads(payload)
    if receipt.get("id") != plan.id:
        raise InputError(where, f"the receipt of {str(receipt.get('id'))[:80]}", fix=fix)
    return sha256_bytes(data), receipt


def facts(plan: ErasurePlan, receipt: str) -> list[Fact]:
    """Return the ledger's entries: one for each release that was made with the rows; else one for each task."""
    detail = {"receipt": receipt_key(plan.id), "kind": plan.kind}
    of = [(release["task"], release["version"]) for release in plan.releases]
    of = of or [(task, 0) for task in plan.tasks] or [("", 0)]
    return [
        Fact("erase", task, version, receipt, f"{plan.id}:erase:{task}@{version}", detail=detail)
        for task, version in of
    ]


def _enter(ledger: Ledger, fact: Fact) -> None:
    ledger.append(lambda _: fact)
