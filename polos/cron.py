"""When scheduled definitions run: cron lines in time zones, as they are declared and as the clock meets them.

A line that names hours goes by the clock on the wall: a time that is skipped runs at the next one there is,
and one that comes twice runs once. A line for every hour (``*``) goes by the time that passes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = 5
_HOUR = 1  # its place among the fields
_MINUTE = timedelta(minutes=1)
_WINDOWS_SECONDS = (3600.0, 86_400.0, 32 * 86_400.0)  # in which the last tick is looked for, one by one
_A_SHIFT = timedelta(hours=3)  # no zone ever set its clock back by more, but for whole days long ago
KEY = "global"
CatchUp = Literal["skip", "one", "all"]
_CATCH_UPS = ("skip", "one", "all")


@dataclass(frozen=True)
class CronSchedule:
    """A five-field cron expression in an IANA time zone; `key` tells schedules of one workflow apart.

    `catch_up` says what becomes of ticks that are missed: ``one`` run for all, ``all``, or ``skip``.

    Raises:
        ValueError: The expression cannot be read or never fires, the zone is unknown, or the key empty.
    """

    cron: str
    timezone: str = "UTC"
    key: str = KEY
    catch_up: CatchUp = "one"

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise ValueError(f"schedule key {self.key!r} cannot be used: give a non-empty string")
        if self.catch_up not in _CATCH_UPS:
            raise ValueError(
                f"catch_up={self.catch_up!r} cannot be used: give one of {', '.join(_CATCH_UPS)}"
            )
        _check_timezone(self.timezone)
        _check_cron(self.cron)
        if next_tick(self.cron, self.timezone, datetime.now(UTC).timestamp()) is None:
            raise ValueError(f"cron expression {self.cron!r} never fires: no date fits it")


def cron_schedule(value: object) -> CronSchedule | None:
    """Return the schedule in what a definition gave as its ``schedule=``, None for True, False and None.

    Raises:
        ValueError: It is neither of those, nor a cron expression, nor
            ``{"cron", "timezone"?, "key"?, "catch_up"?}``.
    """
    match value:
        case None | True | False:
            return None
        case str():
            return CronSchedule(value)
        case dict():
            return _from_dict(value)
    raise ValueError(f"schedule={value!r} cannot be used: give True, False, a cron expression or a dict")


def next_tick(cron: str, timezone: str, after: float) -> float | None:
    """Return when a checked expression fires next after a time, both in epoch seconds; None for never."""
    zone = ZoneInfo(timezone)
    moment = datetime.fromtimestamp(after, UTC)
    first: list[datetime] = []
    for local in _local_times(cron, _start(cron, zone, moment)):
        instants = _instants(cron, zone, local)
        first += [instant for instant in instants if instant > moment]
        if instants and instants[0] > moment:
            return min(first).timestamp()
    return None


def last_tick(cron: str, timezone: str, since: float, until: float) -> float | None:
    """Return the last time an expression fires from `since` on and up to `until`, both included."""
    for window in (*_WINDOWS_SECONDS, until - since):
        last = None
        tick = next_tick(cron, timezone, max(since, until - window) - 0.001)
        while tick is not None and tick <= until:
            last, tick = tick, next_tick(cron, timezone, tick)
        if last is not None:
            return last
    return None


def _from_dict(value: dict[str, Any]) -> CronSchedule:
    if "cron" not in value:
        raise ValueError(f"schedule={value!r} has no 'cron'")
    if unknown := set(value) - {"cron", "timezone", "key", "catch_up"}:
        raise ValueError(
            f"schedule={value!r} has unknown keys {unknown!r}: use cron, timezone, key and catch_up"
        )
    return CronSchedule(**value)


def _check_cron(cron: object) -> None:
    if not isinstance(cron, str) or len(cron.split()) != _FIELDS:
        raise ValueError(f"cron expression {cron!r} cannot be used: give five fields, as '0 8 * * *'")
    try:
        CronSim(cron, datetime(2000, 1, 1))  # noqa: DTZ001 - only its fields are looked at
    except CronSimError as error:
        raise ValueError(
            f"cron expression {cron!r} cannot be used ({error}): give minute, hour, day of month, month and "
            "day of week, as '0 8 * * MON-FRI', on dates that exist"
        ) from error


def _check_timezone(name: object) -> None:
    try:
        ZoneInfo(name)  # type: ignore[arg-type]  # what is not a string is refused below
    except (
        KeyError,
        ValueError,
        TypeError,
        OSError,
    ) as error:  # OSError: a folder of zones, such as 'Europe'
        raise ValueError(f"time zone {name!r} is unknown: give an IANA name, as 'Europe/Berlin'") from error


def _start(cron: str, zone: ZoneInfo, moment: datetime) -> datetime:
    """Return the local time to look from: earlier where the clock is set back about now."""
    local = moment.astimezone(zone).replace(tzinfo=None, microsecond=0)
    before, behind = ((moment + shift).astimezone(zone).utcoffset() for shift in (-_A_SHIFT, _A_SHIFT))
    repeated = cast(timedelta, before) - cast(timedelta, behind)
    return local - repeated if _is_hourly(cron) and repeated > timedelta(0) else local


def _local_times(cron: str, start: datetime) -> Iterator[datetime]:
    """Yield the times after `start` that fit an expression, without regard to any zone."""
    return iter(CronSim(cron, start))


def _instants(cron: str, zone: ZoneInfo, local: datetime) -> list[datetime]:
    """Return when it is that time: mostly once; twice or never for a line that goes by what passes."""
    folds = [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    real = [instant for instant in folds if instant.astimezone(zone).replace(tzinfo=None) == local]
    if not _is_hourly(cron):
        return real[:1] or [_end_of_gap(zone, local)]
    return sorted(set(real))


@functools.lru_cache(maxsize=1024)
def _is_hourly(cron: str) -> bool:
    return cron.split()[_HOUR] == "*"


def _end_of_gap(zone: ZoneInfo, local: datetime) -> datetime:
    """Return the first instant after a local time that does not exist."""
    while True:
        local += _MINUTE
        instant = local.replace(tzinfo=zone).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == local:
            return instant
