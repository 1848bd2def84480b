"""A schedule's cron expression in the form of Kubeflow Pipelines.

A recurring run there has six fields (seconds first) and no time zone of its own: the controller reads all of them
in one (CRON_SCHEDULE_TIMEZONE, UTC unless set). So the expression is written for UTC with the offset that the zone
has at the next slot, and replaced by reconcile when the next slot has another. Where no expression in UTC has the
same next slots (the days of a change of clocks; days of a month that shift over midnight; `L` and `#`, which the
controller does not read) it names the one next slot by its date, and is replaced after each.

Reconcile must therefore run at least once between two slots of a schedule with a zone; otherwise the slot after a
change of clocks is off by that change.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, product

from cronsim import CronSim

from graftline.pipelines.reconcile.schedules import Schedule, slots, zone

_AHEAD = 2
"""How many next slots an expression must have right to be used."""
_DAY = 24 * 60


def utc_cron(schedule: Schedule, now: datetime) -> str | None:
    """Return the six fields in UTC for the slots after `now`.

    None for a schedule without cron, or whose next slot is more than a year ahead and has to be named by its date.
    """
    wanted = list(islice(slots(schedule, now), _AHEAD))
    if schedule.cron is None or not wanted:
        return None
    shifted = _shifted(schedule.cron, wanted[0].astimezone(zone(schedule.zone)).utcoffset() or timedelta())
    if shifted is not None and list(islice(CronSim(shifted, now.astimezone(UTC)), _AHEAD)) == wanted:
        return shifted
    dated = f"0 {wanted[0].minute} {wanted[0].hour} {wanted[0].day} {wanted[0].month} *"
    return dated if next(CronSim(dated, now.astimezone(UTC))) == wanted[0] else None


def _shifted(cron: str, offset: timedelta) -> str | None:
    """Return the expression moved from local time to UTC, or None if six plain fields cannot say it."""
    minute, hour, day, month, weekday = cron.upper().split()
    if any(letter in day + weekday for letter in "LW#"):
        return None
    parsed = CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    if not offset and weekday == "*":
        return f"0 {minute} {hour} {day} {month} *"
    moved = [
        divmod(60 * h + m - round(offset.total_seconds() / 60), _DAY)
        for h, m in product(parsed.hours, parsed.minutes)
    ]
    times = {time for _, time in moved}
    minutes, hours = {time % 60 for time in times}, {time // 60 for time in times}
    carries = {carry for carry, _ in moved}
    if len(times) != len(minutes) * len(hours):
        return None  # such as 05:45 and 18:00 from 00:00 and 12:15: no set of minutes for all hours
    any_day = (day, month, weekday) == ("*", "*", "*")
    if carries != {0} and not any_day and (len(carries) > 1 or (day, month) != ("*", "*")):
        return None
    carry = 0 if any_day else min(carries)
    days = sorted({(int(each) + carry) % 7 for each in parsed.weekdays if isinstance(each, int)})
    weekdays = "*" if weekday == "*" else weekday if weekday.startswith("*") and not carry else _list(days)
    return f"0 {_field(minutes, 60)} {_field(hours, 24)} {day} {month} {weekdays}"


def _field(values: set[int], size: int) -> str:
    return "*" if len(values) == size else _list(sorted(values))


def _list(values: list[int]) -> str:
    return ",".join(map(str, values))
