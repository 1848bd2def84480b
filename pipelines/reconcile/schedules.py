"""pipelines/schedules.yaml: when each task is trained again, and on which changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from graftline.environment import ROOT
from graftline.errors import InputError, nearest
from graftline.tasks.parameters import COMPONENTS, Params, parse
from graftline.yamlfile import load_yaml

SCHEDULES = ROOT / "pipelines/schedules.yaml"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
Change = Literal["data", "parameters", "code", "shift"]


class Schedule(Params):
    """One schedule of one task."""

    task: str = Field(min_length=1, max_length=63)
    """The task: a folder under data/."""
    cron: str | None = None
    """Minute, hour, day of month, month, day of week, as in crontab(5); null for changes only."""
    zone: str = "UTC"
    """IANA name of the time zone in which `cron` is read, such as Europe/Berlin."""
    profile: str | dict[str, str] | None = None
    """Pool of pipelines/profiles.yaml for the stages that train, or one for each stage; null for the defaults."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values in place of those in the task's params.yaml: `finetune.epochs: 3`. Not for the local backend."""
    on_change: frozenset[Change] = frozenset()
    """Run at once when these change: the data's pointer or contract, the parameters, the compiled pipeline or its
    images (code), or only when new data has shifted beyond the contract's limit (shift)."""
    catch_up: bool = False
    """Run every slot that was missed, oldest first; otherwise only the latest."""
    concurrency: int = Field(default=1, ge=1, le=10)
    """How many of its runs may be at work at once on a cluster. On one machine runs go one after another."""
    paused: bool = False
    """Start nothing."""

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        zone(name)
        return name

    @field_validator("cron")
    @classmethod
    def _good_cron(cls, text: str | None) -> str | None:
        if text is not None:
            _check_cron(text)
        return text

    @field_validator("set")
    @classmethod
    def _known_sections(cls, values: dict[str, Any]) -> dict[str, Any]:
        for key in values:
            section, dot, rest = key.partition(".")
            if section not in COMPONENTS or not dot or not rest:
                close = nearest(section, list(COMPONENTS))
                raise ValueError(f"'{key}' is not a parameter such as finetune.epochs{close}")
        return values

    @model_validator(mode="after")
    def _starts_something(self) -> Schedule:
        if self.cron is None and not self.on_change:
            raise ValueError("neither cron nor on_change: it would never run")
        if {"data", "shift"} <= self.on_change:
            raise ValueError("on_change holds data and shift: every new revision runs, so shift decides nothing")
        return self


class _Document(Params):
    schedules: dict[str, Schedule] = Field(default_factory=dict)


def load_schedules(path: Path = SCHEDULES) -> dict[str, Schedule]:
    """Return the schedules by name, in the file's order.

    Raises:
        InputError: a key, cron expression, zone or name is wrong.
    """
    return parse_schedules(load_yaml(path), where=str(path))


def parse_schedules(document: object, *, where: str) -> dict[str, Schedule]:
    """Return the schedules in a document that was read already. Raises InputError."""
    schedules = parse({} if document is None else document, _Document, where=where).schedules
    for name in schedules:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{where}: schedules", f"'{name}'", expected="a name of up to 30 lower-case letters, digits and '-'"
            )
    return schedules


def slots(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the moments after `after` at which the schedule is due, in UTC, ascending; none without a cron.

    As Debian's cron does: a time that the spring's change of clocks skips runs right after the gap, and one that
    the autumn's repeats runs once, the first time.
    """
    if schedule.cron is None:
        return
    for moment in CronSim(schedule.cron, after.astimezone(zone(schedule.zone))):
        due = moment.astimezone(UTC)
        if due > after:  # within the repeated hour cronsim begins with the first of the two again
            yield due


def next_slot(schedule: Schedule, after: datetime) -> datetime | None:
    """Return the first moment after `after` at which the schedule is due, in UTC."""
    return next(slots(schedule, after), None)


def due_slots(schedule: Schedule, since: datetime, now: datetime) -> list[datetime]:
    """Return the slots in (since, now] that should run: with catch-up all of them, else the latest."""
    due: list[datetime] = []
    for slot in slots(schedule, since):
        if slot > now:
            break
        due = [*due, slot] if schedule.catch_up else [slot]
    return due


def slot_name(slot: datetime) -> str:
    """Return the slot as it stands in keys and names: 20261122T013000Z."""
    return slot.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo:
    """Return the time zone. Raises ValueError with the nearest name for an unknown one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(available_timezones())
        if not known:
            raise ValueError(f"'{name}': this machine has no time zones; install the package tzdata") from None
        raise ValueError(f"'{name}' is no time zone{nearest(name, known)}") from None


def _check_cron(text: str) -> None:
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(
            f"'{text}' has {len(fields)} fields; a cron expression has 5: minute, hour, day, month, weekday"
        )
    try:
        first = next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        raise ValueError(f"'{text}' is no cron expression: {str(error)[0].lower()}{str(error)[1:]}") from None
    if first is None:
        raise ValueError(f"'{text}' names a day that never comes")
