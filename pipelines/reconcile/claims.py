"""Who does the work of a run: kept in the store, since Kubeflow's API takes no request id.

    runs/intents/<schedule>/<slot>.json   the key that a slot is run under, when it was last asked for, who began it
    runs/claims/<key>.json                the one run that may do the work of a key

Reconcile writes the intent before it asks the backend for a run. If the answer is lost, the next look at the
backend tells; if nothing is there GRACE_SECONDS later, the run is asked for again. Should the first request arrive
after all, there are two runs: each asks `hold` in its first step (claim.py), and one of them is told to stop. The
claim names a run by its id, so a run that is tried again on another node still holds it.

The intent changes by compare-and-swap alone: from the moment that a run holds its slot, a reconcile that read the
intent before cannot replace it by another key.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from graftline.store import Store
from graftline.store.documents import json_bytes, stored_json

GRACE_SECONDS = 300.0
"""How long an unanswered request may still take effect: well above the timeouts of proxies, 60 s as a rule."""


@dataclass(frozen=True)
class Intent:
    """A slot of a schedule is to be run, or was."""

    key: str
    """The run key."""
    attempt: int
    """How often the backend was asked, from 1; 0 for a run that came without being asked for."""
    at: str
    """When it was last asked; ISO 8601, UTC. Empty if the backend refused: then it may be asked again at once."""
    held: str = ""
    """Id of the run that began the slot's work; empty if none has."""

    def age(self, now: datetime) -> float:
        """Return the seconds since the backend was last asked; infinite if it refused."""
        return (now - datetime.fromisoformat(self.at)).total_seconds() if self.at else float("inf")


def intent_key(schedule: str, slot: str) -> str:
    return f"runs/intents/{schedule}/{slot}.json"


def claim_key(key: str) -> str:
    return f"runs/claims/{key}.json"


def read_intent(store: Store, schedule: str, slot: str) -> tuple[Intent, str] | None:
    """Return the intent and its tag, or None."""
    found = stored_json(store, intent_key(schedule, slot))
    return None if found is None else (Intent(**found[0]), found[1])


def ask(store: Store, schedule: str, slot: str, key: str, now: datetime, before: tuple[Intent, str] | None) -> bool:
    """Note that the backend is about to be asked for a run; False if another reconcile or a run was quicker.

    Args:
        store: where intents live.
        schedule: the schedule's name.
        slot: the slot's name.
        key: the run key.
        now: the time, with a zone.
        before: what `read_intent` returned: the intent to replace, or None for the first.
    """
    if before and before[0].held:
        return False
    attempt = before[0].attempt + 1 if before else 1
    content = json_bytes(asdict(Intent(key, attempt, now.astimezone(UTC).isoformat())))
    if before is None:
        return store.replace(intent_key(schedule, slot), content, None)
    return store.replace(intent_key(schedule, slot), content, before[1])


def refused(store: Store, schedule: str, slot: str) -> None:
    """Note that the backend refused the run for certain, so that the next reconcile need not wait."""
    found = read_intent(store, schedule, slot)
    if found:
        store.replace(intent_key(schedule, slot), json_bytes(asdict(replace(found[0], at=""))), found[1])


def holder(store: Store, key: str) -> str | None:
    """Return the id of the run that does, or did, the work of `key`; None if none has begun."""
    found = stored_json(store, claim_key(key))
    return None if found is None else str(found[0]["run"])


def hold(store: Store, key: str, run: str, *, schedule: str = "", slot: str = "") -> str | None:
    """Claim the work of `key` for the run with id `run`, as its first step; the same run may ask again.

    Args:
        store: where claims live.
        key: the run key.
        run: the run's id in the backend.
        schedule: the schedule that started the run, if one did.
        slot: and its slot, so that no slot runs twice, under two keys, while a schedule is being replaced.

    Returns:
        None if this run does the work; otherwise a sentence that says who does.
    """
    if schedule and slot and (other := _hold_slot(store, key, run, schedule, slot)):
        return other
    if store.put_if_absent(claim_key(key), json_bytes({"run": run})):
        return None
    other = holder(store, key)
    return None if other == run else f"the run {other} does the work of key {key}"


def slot_elsewhere(store: Store, key: str, schedule: str, slot: str) -> str | None:
    """Return a sentence that names the key that the slot is run under, if that is another than `key`."""
    found = read_intent(store, schedule, slot)
    if found is None or found[0].key == key:
        return None
    return f"slot {slot} of schedule {schedule} is run under the key {found[0].key}"


def _hold_slot(store: Store, key: str, run: str, schedule: str, slot: str) -> str | None:
    """Mark the slot's intent as held, so that no reconcile replaces it any more; return who has it otherwise."""
    while True:
        found = read_intent(store, schedule, slot)
        if found and found[0].key != key:
            return slot_elsewhere(store, key, schedule, slot)
        if found and found[0].held:
            return None  # by this run, or by another of its key: the claim decides between them
        intent, tag = found or (Intent(key, 0, ""), None)
        if store.replace(intent_key(schedule, slot), json_bytes(asdict(replace(intent, held=run))), tag):
            return None
