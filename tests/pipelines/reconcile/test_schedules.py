"""pipelines/schedules.yaml: what it may say, and when it is due, over the changes of clocks as well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.pipelines.reconcile.cron import utc_cron
from graftline.pipelines.reconcile.schedules import (
    Schedule,
    due_slots,
    load_schedules,
    next_slot,
    parse_schedules,
    slots,
)


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
    assert first("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00", 3) == [
        "03-28T01:30",
        "03-29T01:00",
        "03-30T00:30",
    ]


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


def test_kubeflow_is_given_utc_for_the_offset_of_the_next_slot() -> None:
    weekly = schedule("30 2 * * 1", "Europe/Berlin")
    assert utc_cron(weekly, at("2026-07-01T00:00")) == "0 30 0 * * 1"
    assert utc_cron(weekly, at("2026-12-01T00:00")) == "0 30 1 * * 1"
    assert utc_cron(schedule("0 0 * * 1", "Europe/Berlin"), at("2026-07-01T00:00")) == "0 0 22 * * 0"
    assert (
        utc_cron(schedule("0 4 * * 7"), at("2026-07-01T00:00")) == "0 0 4 * * 0"
    )  # Kubeflow has no weekday 7
    assert utc_cron(schedule("0 4 1 * *"), at("2026-07-01T00:00")) == "0 0 4 1 * *"


def test_what_utc_cannot_say_names_the_next_slot_by_its_date() -> None:
    monthly = schedule("0 1 1 * *", "Europe/Berlin")  # 23:00 UTC on the last day of the month before
    assert utc_cron(monthly, at("2026-07-02T00:00")) == "0 0 23 31 7 *"
    assert utc_cron(schedule("30 2 * * *", "Europe/Berlin"), at("2026-03-28T12:00")) == "0 0 1 29 3 *"
    assert utc_cron(schedule("0 4 * * 5L"), at("2026-07-02T00:00")) == "0 0 4 31 7 *"


FIELDS = st.tuples(
    st.sampled_from(["0", "30", "*/15", "5,50", "*"]),
    st.sampled_from(["0", "2", "23", "*/6", "*", "8-18", "1,13"]),
    st.sampled_from(["*", "1", "31", "*/2", "10-12"]),
    st.sampled_from(["*", "3", "10-12"]),
    st.sampled_from(["*", "0", "7", "1-5", "SAT,SUN", "*/2", "1L"]),
).map(" ".join)
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe"]
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(cron=FIELDS, zone=ZONES, minutes=st.integers(0, 365 * 24 * 60))
def test_the_next_slot_on_kubeflow_is_the_next_slot(cron: str, zone: str, minutes: int) -> None:
    """Kubeflow's controller is read as CronSim in UTC, which its documentation describes alike."""
    one, now = schedule(cron, zone), at("2026-01-01T00:00") + timedelta(minutes=minutes)
    translated, wanted = utc_cron(one, now), next_slot(one, now)
    assert wanted is not None
    if translated is None:
        assert wanted - now > timedelta(days=365)
    else:
        assert len(translated.split()) == 6
        assert next(CronSim(translated, now)) == wanted
