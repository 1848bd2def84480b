"""pipelines/schedules.yaml: what it may say, and when it is due, over the changes of clocks as well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest

from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.pipelines.reconcile.schedules import Schedule, due_slots, load_schedules, parse_schedules, slots


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def schedule(cron: str, zone: str = "UTC", **more: Any) -> Schedule:
    return Schedule(task="digits", cron=cron, zone=zone, **more)


def first(cron: str, zone: str, after: str, count: int) -> list[str]:
    return [f"{slot:%m-%dT%H:%M}" for slot in islice(slots(schedule(cron, zone), at(after)), count)]


def test_shipped_schedules_are_of_tasks_that_exist_and_start_nothing_in_a_fork() -> None:
    shipped = load_schedules()
    assert shipped
    for one in shipped.values():
        assert (ROOT / "data" / one.task / "params.yaml").is_file()
        assert one.paused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cron": "61 * * * *"}, "'61 * * * *' is no cron expression: bad minute"),
        ({"cron": "0 4 * *"}, "'0 4 * *' has 4 fields; a cron expression has 5"),
        ({"cron": "0 0 31 2 *"}, "'0 0 31 2 *' is no cron expression: bad day-of-month"),
        ({"zone": "Europe/Berln"}, "'Europe/Berln' is no time zone; did you mean 'Europe/Berlin'?"),
        ({"zone": "../../etc/passwd"}, "is no time zone"),
        ({"concurency": 2}, "unknown key; did you mean 'concurrency'?"),
        ({"concurrency": 11}, "less than or equal to 10"),
        ({"on_change": ["dat"]}, "'dat'"),
        ({"on_change": ["data", "shift"]}, "every new revision runs, so shift decides nothing"),
        ({"cron": None}, "neither cron nor on_change: it would never run"),
        ({"set": {"finetun.epochs": 3}}, "did you mean 'finetune'?"),
    ],
)
def test_a_mistake_is_one_clear_line(change: dict[str, Any], message: str) -> None:
    document = {"schedules": {"nightly": {"task": "digits", "cron": "0 3 * * *"} | change}}
    with pytest.raises(InputError) as raised:
        parse_schedules(document, where="schedules.yaml")
    assert message in str(raised.value)
    assert str(raised.value).startswith("schedules.yaml.schedules.nightly")
    assert "\n" not in str(raised.value)


def test_a_name_that_no_kubernetes_object_could_have_is_refused() -> None:
    with pytest.raises(InputError, match="'Every Night'"):
        parse_schedules({"schedules": {"Every Night": {"task": "digits", "cron": "0 3 * * *"}}}, where="f")


def test_a_time_that_spring_skips_runs_right_after_the_gap() -> None:
    # In Berlin 02:00 to 03:00 does not exist on 29 March 2026: at 01:00 UTC clocks go on from 03:00.
    assert first("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00", 3) == ["03-28T01:30", "03-29T01:00", "03-30T00:30"]


def test_a_time_that_autumn_repeats_runs_once() -> None:
    # On 25 October 2026 02:30 comes at 00:30 UTC and again at 01:30 UTC.
    wanted = ["10-25T00:30", "10-26T01:30"]
    assert first("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == wanted
    for moment in ("2026-10-25T00:30", "2026-10-25T00:35", "2026-10-25T01:29", "2026-10-25T01:30"):
        assert first("30 2 * * *", "Europe/Berlin", moment, 1) == wanted[1:]


def test_an_hourly_schedule_runs_every_hour_through_both_changes() -> None:
    for day in ("2026-03-29T00:00", "2026-10-25T00:00"):
        found = list(islice(slots(schedule("15 * * * *", "Europe/Berlin"), at(day)), 6))
        assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


def test_only_the_latest_missed_slot_is_due_unless_it_catches_up() -> None:
    since, now = at("2026-05-01T12:00"), at("2026-05-04T12:00")
    nightly = schedule("0 3 * * *")
    assert due_slots(nightly, since, now) == [at("2026-05-04T03:00")]
    every = due_slots(nightly.model_copy(update={"catch_up": True}), since, now)
    assert every == [at(f"2026-05-0{day}T03:00") for day in (2, 3, 4)]
    assert due_slots(nightly, now, now + timedelta(hours=1)) == []
