"""When a scheduled definition runs, as it was declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class CronSchedule:
    """A five-field cron expression in an IANA time zone; `key` tells schedules of one workflow apart."""

    cron: str
    timezone: str = "UTC"
    key: str = "global"

    def __post_init__(self) -> None:
        if not isinstance(self.cron, str) or len(self.cron.split()) != 5:
            raise ValueError(
                f"cron expression {self.cron!r} cannot be used: give five fields, as '0 8 * * *'"
            )
        if not isinstance(self.key, str) or not self.key:
            raise ValueError(f"schedule key {self.key!r} cannot be used: give a non-empty string")
        _check_timezone(self.timezone)


def cron_schedule(value: object) -> CronSchedule | None:
    """Return the schedule in what a definition gave as its ``schedule=``, None for True, False and None.

    Raises:
        ValueError: It is neither of those, nor a cron expression, nor ``{"cron", "timezone"?, "key"?}``.
    """
    match value:
        case None | True | False:
            return None
        case str():
            return CronSchedule(value)
        case dict():
            return _from_dict(value)
    raise ValueError(f"schedule={value!r} cannot be used: give True, False, a cron expression or a dict")


def _from_dict(value: dict[str, Any]) -> CronSchedule:
    if "cron" not in value:
        raise ValueError(f"schedule={value!r} has no 'cron'")
    if unknown := set(value) - {"cron", "timezone", "key"}:
        raise ValueError(f"schedule={value!r} has unknown keys {unknown!r}: use cron, timezone and key")
    return CronSchedule(**value)


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
