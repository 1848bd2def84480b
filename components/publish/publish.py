"""Release the model if the gate decided so: check the inputs and the decision, gather the files, publish."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.canonical import canonical_json, read_json
from graftline.components.publish.card import model_card
from graftline.components.publish.chain import check_chain
from graftline.digests import ENVELOPE, RECORD, sha256_bytes
from graftline.durable import write_atomic
from graftline.environment import lock_bytes
from graftline.errors import GraftlineError, InputError, RefusalError
from graftline.gate import Decision, read_decision
from graftline.privacy.promise import read_promise
from graftline.records.model import COMPARED
from graftline.releases.catalogue import Release
from graftline.releases.layout import CHAMPION
from graftline.releases.provenance import Provenance, keep
from graftline.releases.publishing import Receipt, ReleaseDraft, open_publication, publish
from graftline.rows.blocklist import check_key, count_blocked, has_subjects, read_blocklist
from graftline.rows.building import build
from graftline.rows.subjects import load_key
from graftline.score import DESCRIPTIONS
from graftline.signing.keyring import load_keyring
from graftline.signing.rotation import open_ledger
from graftline.tasks.publish import PublishParams

if TYPE_CHECKING:
    from graftline.component import Context

FILES = {
    "head.json": "model",
    "model.safetensors": "model",
    "metrics.json": "evaluation",
    "profile.json": "dataset",
    "schema.json": "dataset",
}
"""Files that every release holds, and the input that has each. With them go the model's other files (in the layout
of its library, such as config.json and tokenizer.json), and the evaluation's pictures."""
_OF_THE_RUN = ("metrics.json", "metrics.jsonl", "record.json", "execution.json")
"""Files of a model that tell of its training and are no part of it."""
CARD, RECEIPT, ROWS = "README.md", "release.json", "rows.parquet"


def run(context: Context) -> None:
    """Publish the model and write the receipt into `context.out`.

    Raises:
        InputError: the inputs do not belong together, or one lacks a file.
        RefusalError: the gate's decision is no; nothing was published.
    """
    params = context.section("publish", PublishParams)
    check_chain(context.records)
    decision = read_decision(context.paths["evaluation"])
    provenance = _provenance(context)
    try:
        decision.check(context.task)
    except RefusalError:
        _keep_refused(context, provenance)
        raise
    draft = _draft(context, params, decision, provenance)
    _check_store(context)
    # Before the release: one whose rows cannot be found would be missing from an erasure's plan.
    _index_rows(context)
    receipt = publish(context.store(), draft, open_publication(context.work, draft))
    if receipt.equal:
        print(f"publish: equal to {receipt.release.name}: no new version was made", file=sys.stderr)
    if not receipt.promoted:
        print(_warning(decision, receipt), file=sys.stderr)
    (context.out / RECEIPT).write_text(json.dumps(_receipt(receipt), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    context.draft.metrics = {"version": receipt.release.version, "promoted": int(receipt.promoted)}


def _keep_refused(context: Context, provenance: Provenance) -> None:
    """Store the lineage of what was refused, and its rows' places. A store that fails changes nothing about it."""
    try:
        _check_store(context)
        _index_rows(context)
        keep(context.store(), provenance, load_keyring())
    except GraftlineError as error:
        print(f"publish: warning: the records of what was refused are not in the store: {error}", file=sys.stderr)


def _check_store(context: Context) -> None:
    """Return if the store may take rows from here, of a model that is released or refused.

    Raises:
        InputError: a row of the dataset was erased since validate made it, and must not come back.
        RefusalError: the store's ledger does not trust this machine, which therefore must not sign the index either.
    """
    _refuse_erased(context)
    open_ledger(context.store(), load_keyring())


def _refuse_erased(context: Context) -> None:
    rows = context.paths["dataset"] / ROWS
    blocklist = read_blocklist(context.store(), context.task)
    if blocklist.subjects and has_subjects(rows):
        check_key(blocklist, load_key(create=False), "the store's list")
    if rows.is_file() and (count := count_blocked(rows, blocklist)):
        raise InputError(
            rows,
            f"{count} rows that were erased",
            expected="a dataset made since `graftline erase`",
            fix=f"make it anew: graftline run {context.task} --force",
        )


def _index_rows(context: Context) -> None:
    """Enter the dataset's rows into the store's row index. A dataset that validate made has a rows.parquet."""
    dataset = context.records["dataset"]
    if ROWS in {file.path for file in dataset.files}:
        build(context.paths["dataset"] / ROWS, context.store(), context.task, dataset.content)
    else:
        print(f"publish: warning: the dataset has no {ROWS}: no question finds its rows", file=sys.stderr)


def _draft(context: Context, params: PublishParams, decision: Decision, provenance: Provenance) -> ReleaseDraft:
    sources = _sources(context)
    files = {name: context.paths[of] / name for name, of in sources.items()}
    plots = {path.name: path for path in sorted(context.paths["evaluation"].glob("*.png"))}
    for path in files.values():
        if not path.is_file():
            raise InputError(path, "the file is missing", fix="run the stage that makes it")
    metrics = _metrics(files["metrics.json"])
    card, promise = context.work / CARD, read_promise(context.paths["model"])
    write_atomic(card, model_card(context.task, params, context.records, metrics, list(plots), promise).encode())
    draft = ReleaseDraft(
        task=context.task,
        files=files | plots | {CARD: card},
        records=provenance.records,
        metrics=metrics,
        compared_with=decision.champion,
        alias=params.alias,
        envelopes=provenance.envelopes,
        locks=provenance.locks,
    )
    draft = replace(draft, identity=_identity(context, params, draft, sources, list(plots)))
    _check_unchanged(context, draft, sources | dict.fromkeys(plots, "evaluation"))
    return draft


def _identity(
    context: Context, params: PublishParams, draft: ReleaseDraft, sources: Mapping[str, str], plots: list[str]
) -> str:
    """Return the sha256 of what a release is whichever champion it was compared with.

    The files that model and dataset have, and the card, which says all else, as if there had been no champion: of the
    evaluation then remains what it measured of the model itself.
    """
    measured = {name: value for name, value in draft.metrics.items() if not name.startswith(f"{COMPARED}_")}
    made = {name: record for name, record in context.records.items() if name != "evaluation"}
    files = [file.as_dict() for file in draft.listing if sources.get(file.path) in made]
    card = model_card(context.task, params, made, measured, plots, read_promise(context.paths["model"]))
    return sha256_bytes(canonical_json({"card": card, "files": files}))


def _sources(context: Context) -> dict[str, str]:
    """Return each file of the release that an input holds, and which."""
    of_model = [
        file.path
        for file in context.records["model"].files
        if file.path not in _OF_THE_RUN and not file.path.endswith(".png")
    ]
    return dict.fromkeys(of_model, "model") | FILES


def _check_unchanged(context: Context, draft: ReleaseDraft, sources: Mapping[str, str]) -> None:
    """Return if each file of the draft that an input holds is the one that the input's record lists."""
    listed = {name: {file.path: file for file in record.files} for name, record in context.records.items()}
    for file in draft.listing:
        source = sources.get(file.path)
        if source is not None and listed[source].get(file.path) != file:
            raise InputError(draft.files[file.path], "changed while publishing", fix="run publish again")


def _metrics(path: Path) -> dict[str, Any]:
    """Return what was measured: numbers by name, and `primary` and `scores`, which say what the numbers are."""
    metrics = read_json(path)
    if not isinstance(metrics, dict):
        raise InputError(path, f"a {type(metrics).__name__}", expected="a mapping of names to numbers")
    for name, value in metrics.items():
        if name in DESCRIPTIONS:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(path, f"{name} is {value!r}", expected="a finite number", fix="run evaluate again")
    return metrics


def _provenance(context: Context) -> Provenance:
    """Return each input's record, the bytes that were verified, its envelope, and the lock file if they name ours."""
    records = {name: (context.paths[name] / RECORD).read_bytes() for name in context.records}
    for name, data in records.items():
        if sha256_bytes(data) != context.records[name].sha256:
            raise InputError(context.paths[name] / RECORD, "changed while publishing", fix="run publish again")
    envelopes = {name: (context.paths[name] / ENVELOPE).read_bytes() for name in records}
    lock = lock_bytes()
    named = {record.lock for record in context.records.values()}
    locks = {digest: lock for digest in named if lock is not None and digest == sha256_bytes(lock)}
    return Provenance(records, envelopes, locks)


def _receipt(receipt: Receipt) -> dict[str, Any]:
    release = receipt.release
    return {
        "task": release.task,
        "version": release.version,
        "digest": release.digest,
        "manifest": release.manifest,
        "alias": receipt.alias,
        "promoted": receipt.promoted,
        "previous_champion": _named(receipt.previous_champion),
        "equal": receipt.equal,
    }


def _named(release: Release | None) -> dict[str, Any] | None:
    return None if release is None else {"version": release.version, "digest": release.digest}


def _warning(decision: Decision, receipt: Receipt) -> str:
    name, alias = receipt.release.name, receipt.alias
    if alias != CHAMPION:
        return f"publish: warning: {name} was not promoted: {alias} points at a later version, {_at(receipt)}"
    task = receipt.release.task
    done = "" if receipt.equal else "released but "
    compared = f"{task}@{decision.champion['version']}" if decision.champion else "no champion"
    return (
        f"publish: warning: {name} was {done}not promoted: it was compared with {compared}, and the "
        f"champion is {_at(receipt)}; run evaluate again to compare with that, then publish"
    )


def _at(receipt: Receipt) -> str:
    return f"{receipt.current.name} ({receipt.current.digest[:12]})" if receipt.current else "none"
