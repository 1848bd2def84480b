"""The plan of an erasure as the store keeps it: an order to delete, so it is signed, and looked through before use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import PurePosixPath

from graftline.audit.erase.plan import ErasurePlan, identity_of, plan_key
from graftline.canonical import canonical_json
from graftline.errors import GraftlineError, InputError
from graftline.raw.media import is_media
from graftline.signing.envelope import open_envelope, seal
from graftline.signing.keyring import load_keyring
from graftline.signing.trusted import check_signed
from graftline.store import MissingError, Store
from graftline.tasks.parameters import TASK_NAME

PLAN_TYPE = "application/vnd.graftline.erasure-plan+json"
_ID = re.compile(r"[0-9a-f]{16}-[0-9]{1,9}")
_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
_DIGEST = {"row": re.compile(r"[0-9a-f]{64}"), "subject": re.compile(r"[0-9a-f]{32}")}
_FIX = "delete it, and begin again, unless someone whose key you should trust began this erasure"


def store_plan(store: Store, plan: ErasurePlan) -> None:
    """Store the plan, signed. Doing it again changes nothing.

    Raises:
        InputError: it names something that no erasure touches, or there is no key to sign with.
        GraftlineError: another plan for the same is stored.
    """
    key, value = plan_key(plan.id), canonical_json(asdict(plan))
    check_orders(plan, where=key)
    if store.put_if_absent(key, seal(value, PLAN_TYPE, load_keyring().signer())):
        return
    known = stored_plan(store, plan.kind, plan.target)  # sealed by an earlier key, or by one that never signs alike
    if known is None or canonical_json(asdict(known)) != value:
        raise GraftlineError(f"{store.url}/{key}: another erasure of this is under way; run it again")


def stored_plan(store: Store, kind: str, target: list[str]) -> ErasurePlan | None:
    """Return the plan of an erasure of this that has not ended; None if there is none.

    Raises:
        InputError: no key that is trusted here signed it, or it is of something else, or names what no erasure touches.
    """
    identity = identity_of(store, kind, target)
    try:
        data = store.get(plan_key(identity)).data
    except MissingError:
        return None
    where = f"{store.url}/{plan_key(identity)}"
    payload = open_envelope(data, where=where).payload
    check_signed(payload, PLAN_TYPE, data, load_keyring(), where=where, fix=_FIX)
    try:
        plan = ErasurePlan(**json.loads(payload))
        if (plan.id, plan.kind, plan.target) != (identity, kind, target):
            raise ValueError("it is of something else")
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(where, f"not the plan of this erasure ({error})", fix=_FIX) from None
    check_orders(plan, where=where)
    return plan


def check_orders(plan: ErasurePlan, *, where: str) -> None:
    """Raise InputError if the plan names anything that an erasure does not touch, or that leads elsewhere."""
    try:
        _check("an id", [plan.id], _ID.fullmatch)
        _check("a target", plan.target, _DIGEST[plan.kind].fullmatch)
        _check("a row's digest", plan.digests, _DIGEST["row"].fullmatch)
        _check("a row's entry", plan.entries, _DIGEST["subject"].fullmatch)
        _check("an object of DVC's", plan.objects, _OID.fullmatch)
        _check("an output", plan.outputs, lambda name: _inside(name, "outputs", 3))
        _check("a hand-over", plan.bundles, lambda key: _inside(key, "handover"))
        _check("a shard", plan.shards, lambda place: _inside(place, "rows") or _inside(place, "subjects"))
        of_tasks = [value["task"] for value in (*plan.hits, *plan.raw, *plan.releases)]
        _check("a task", [*plan.tasks, *of_tasks], TASK_NAME.fullmatch)
        _check("a version", [release["version"] for release in plan.releases], lambda n: type(n) is int and n > 0)
        _check("a raw file", [file["file"] for file in plan.raw], _inside)
        here = [file["file"] for file in plan.raw if file["version"] is None]
        _check("a raw file of the work tree", here, _beside_or_media)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(where, f"not the plan of an erasure ({error})", fix=_FIX) from None


def _check(what: str, values: Iterable[object], is_one: Callable[..., object]) -> None:
    for value in values:
        if not is_one(value):
            raise ValueError(f"{str(value)[:80]!r} is not {what}")


def _beside_or_media(name: str) -> bool:
    return "/" not in name or is_media(PurePosixPath(name))


def _inside(path: str, folder: str = "", depth: int = 0) -> bool:
    """Return whether `path` stays below `folder`; with `depth`, whether it has that many parts."""
    parts = path.split("/")
    contained = not {"", ".", ".."} & set(parts)
    return contained and (not folder or (parts[0] == folder and len(parts) > 1)) and depth in (0, len(parts))
