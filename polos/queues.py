"""Queues, which limit how many runs go at once or begin in a time; and routes, which name fleets."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from polos.errors import ConfigurationError

NEXT = ".next"  # ends the name of the Celery queue for what is under way on a route
HIGHEST_PRIORITY = 9
DEFAULT_PRIORITY = 5
MAX_LIMIT = 2**31 - 1
MAX_SECONDS = 10 * 366 * 86400.0
_KEYS = {"name", "concurrency_limit", "rate_limit", "rate_seconds", "hold_while_waiting"}
_ROUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")


class Queue:
    """A queue that definitions may share.

    Args:
        name: Of the queue; definitions that name it share it.
        concurrency_limit: At most so many of its runs go at once, counted by `concurrency_key`; None leaves
            it to POLOS_DEFAULT_CONCURRENCY_LIMIT.
        rate_limit: At most so many of its runs begin in `rate_seconds`, evenly spaced.
        rate_seconds: What `rate_limit` is counted over.
        hold_while_waiting: Runs keep their place while they wait for timers, events, children or people, so
            that a limit of 1 is mutual exclusion; children must not use the same queue then.

    Raises:
        ValueError: The name is empty, or a limit is not positive.
    """

    def __init__(
        self,
        name: str,
        concurrency_limit: int | None = None,
        *,
        rate_limit: int | None = None,
        rate_seconds: float = 1.0,
        hold_while_waiting: bool = False,
    ) -> None:
        _check_name(name)
        _check_limit(concurrency_limit, "concurrency_limit")
        _check_limit(rate_limit, "rate_limit")
        _check_seconds(rate_seconds, "rate_seconds")
        self.name = name
        self.concurrency_limit = concurrency_limit
        self.rate_limit = rate_limit
        self.rate_seconds = float(rate_seconds)
        self.hold_while_waiting = bool(hold_while_waiting)

    def __repr__(self) -> str:
        more = {
            "rate_limit": self.rate_limit,
            "rate_seconds": self.rate_seconds if self.rate_limit is not None else None,
            "hold_while_waiting": self.hold_while_waiting or None,
        }
        shown = "".join(f", {name}={value!r}" for name, value in more.items() if value is not None)
        return f"Queue(name={self.name!r}, concurrency_limit={self.concurrency_limit!r}{shown})"


class LaneInfo(BaseModel):
    """Runs of a queue with one concurrency key, or none: how many have a slot, how many wait."""

    concurrency_key: str | None
    held: int
    pending: int


class QueueInfo(BaseModel):
    """A queue as it stands.

    `held` counts runs that have a slot, `pending` those that wait for one, or for room among the doorbells of
    their route; `keys` lists both for the busiest concurrency keys.
    """

    name: str
    deployment_id: str
    concurrency_limit: int | None = None
    rate_limit: int | None = None
    rate_seconds: float | None = None
    hold_while_waiting: bool = False
    is_paused: bool = False
    held: int = 0
    pending: int = 0
    oldest_pending_seconds: float | None = None
    keys: list[LaneInfo] = []


def queue(
    name: str,
    concurrency_limit: int | None = None,
    *,
    rate_limit: int | None = None,
    rate_seconds: float = 1.0,
    hold_while_waiting: bool = False,
) -> Queue:
    """Return the queue `name`; see `Queue`."""
    return Queue(
        name,
        concurrency_limit,
        rate_limit=rate_limit,
        rate_seconds=rate_seconds,
        hold_while_waiting=hold_while_waiting,
    )


def queue_of(value: object, default_name: str) -> Queue:
    """Return the queue that a definition gave as its ``queue=``.

    Args:
        value: A queue name, a `Queue`, a dict of what `Queue` takes (``name`` may be left out), or None.
        default_name: Id of the definition, which names the queue when `value` does not.

    Raises:
        ValueError: It is something else, or has an empty name or a limit below 1.
    """
    match value:
        case None:
            return Queue(default_name)
        case str():
            return Queue(value)
        case Queue():
            return value
        case dict():
            return _from_dict(value, default_name)
    raise ValueError(f"queue={value!r} cannot be used: give a name, a Queue, or a dict of name and limit")


def queue_settings(value: object, default_name: str) -> tuple[str, int | None]:
    """Return name and limit of what a definition gave as its ``queue=``.

    See `queue_of` for the forms it may have.

    Raises:
        ValueError: It is something else, or has an empty name or a limit below 1.
    """
    found = queue_of(value, default_name)
    return found.name, found.concurrency_limit


def _from_dict(value: dict[str, Any], default_name: str) -> Queue:
    if unknown := set(value) - _KEYS:
        raise ValueError(f"queue={value!r} has unknown keys {unknown!r}: use {', '.join(sorted(_KEYS))}")
    given = {name: setting for name, setting in value.items() if name != "name" and setting is not None}
    return Queue(value.get("name") or default_name, **given)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"queue name {name!r} cannot be used: give a non-empty string")


def _check_limit(limit: object, what: str) -> None:
    if limit is None:
        return
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"{what}={limit!r} cannot be used: give an int of 1 to {MAX_LIMIT}, or None")


def _check_seconds(seconds: object, what: str, *, most: float = MAX_SECONDS) -> None:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= most:  # type: ignore[operator]  # NaN is not either
        raise ValueError(f"{what}={seconds!r} cannot be used: give more than 0 and at most {most:g} seconds")


def check_limit(limit: object, what: str = "queue_concurrency_limit") -> None:
    """Return if `limit` is None or can be a limit.

    Raises:
        ValueError: It cannot.
    """
    _check_limit(limit, what)


def check_start(
    *,
    priority: object = None,
    delay_seconds: object = None,
    debounce_key: object = None,
    debounce_seconds: object = None,
    idempotency_key: object = None,
) -> None:
    """Return if these say when a run starts; None is nothing.

    Raises:
        ValueError: One is of no use, or they contradict each other.
    """
    if priority is not None and (
        not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority <= HIGHEST_PRIORITY
    ):
        raise ValueError(f"priority={priority!r} cannot be used: give 0 (last) to {HIGHEST_PRIORITY} (first)")
    if delay_seconds not in {None, 0}:
        _check_seconds(delay_seconds, "delay_seconds")
    if (debounce_key is None) != (debounce_seconds is None):
        raise ValueError("debounce_key and debounce_seconds belong together: give both, or none")
    if debounce_key is None:
        return
    _check_seconds(debounce_seconds, "debounce_seconds")
    if idempotency_key is not None or delay_seconds:
        raise ValueError("a debounced run has no idempotency_key and no delay_seconds: leave them out")


def check_route(route: object, where: str) -> str:
    """Return a route that can name Celery queues.

    Raises:
        ConfigurationError: It cannot; names `where` it stands.
    """
    if not isinstance(route, str) or not _ROUTE.fullmatch(route) or route.endswith(NEXT):
        raise ConfigurationError(
            f"{where} names the route {route!r}; a route is a word of letters, digits and any of "
            f"'_-.:' that does not end in {NEXT!r}, such as 'gpu'"
        )
    return route
