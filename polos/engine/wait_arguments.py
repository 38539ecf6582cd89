"""What users give to waits, checked: durations, moments, timeouts, types of events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86_400.0, "weeks": 604_800.0}
LONGEST_WAIT_SECONDS = 100 * 366 * 86_400.0  # of a hundred years, and what a timestamp can say
_LARGEST_NUMBER = 2**53  # of a sequence id


def seconds_of(given: Mapping[str, float | None]) -> float:
    """Return the sum of durations by unit, in seconds; it may be of no use.

    Raises:
        TypeError: One of them is no number.
    """
    return sum(_number(value, unit) * SECONDS[unit] for unit, value in given.items() if value is not None)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r} cannot be used: give a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def problem_of_wait(seconds: float) -> str | None:
    """Return why nobody can wait for so long, None when one can."""
    if not seconds > 0:  # nor NaN
        return "Wait duration must be positive"
    if seconds > LONGEST_WAIT_SECONDS:
        return f"Wait duration must be at most 100 years, not {seconds:g} seconds"
    return None


def seconds_since_epoch(moment: object) -> float:
    """Return a moment in seconds since the epoch; one without time zone is UTC.

    Raises:
        TypeError: It is no datetime.
    """
    if not isinstance(moment, datetime):
        raise TypeError(f"timestamp={moment!r} cannot be used: give a datetime")
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def checked_timeout(timeout: object) -> float | None:
    """Return a timeout in seconds, None for no limit.

    Raises:
        TypeError: It is no number.
        ValueError: It is not positive, or too long.
    """
    if timeout is None:
        return None
    seconds = _number(timeout, "timeout")
    if not 0 < seconds <= LONGEST_WAIT_SECONDS:
        raise ValueError(f"timeout={timeout!r} cannot be used: give seconds above 0, or None for no limit")
    return seconds


def checked_event_type(event_type: object) -> str | None:
    """Return the type of an event, None for any.

    Raises:
        TypeError: It is no string.
    """
    if event_type is not None and not isinstance(event_type, str):
        raise TypeError(f"event_type={event_type!r} cannot be used: give a string, or None for any")
    return event_type


def checked_since(since: object) -> int | datetime | None:
    """Return after what an event counts: a sequence id or a moment.

    Raises:
        TypeError: It is neither.
        ValueError: It is a negative or impossible sequence id.
    """
    if since is None or isinstance(since, datetime):
        return since
    if isinstance(since, bool) or not isinstance(since, int):
        raise TypeError(f"since={since!r} cannot be used: give a sequence id or a datetime")
    if not 0 <= since < _LARGEST_NUMBER:
        raise ValueError(f"since={since!r} cannot be used: sequence ids are 0 or more")
    return since
