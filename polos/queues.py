"""Queues: a name, and how many runs may use it at once. And routes: words that name fleets of workers."""

from __future__ import annotations

import re
from typing import Any

from polos.errors import ConfigurationError

NEXT = ".next"  # ends the name of the Celery queue for what is under way on a route
_ROUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")


class Queue:
    """A queue that definitions may share; at most `concurrency_limit` of its runs go at once."""

    def __init__(self, name: str, concurrency_limit: int | None = None) -> None:
        _check_name(name)
        _check_limit(concurrency_limit)
        self.name = name
        self.concurrency_limit = concurrency_limit

    def __repr__(self) -> str:
        return f"Queue(name={self.name!r}, concurrency_limit={self.concurrency_limit!r})"


def queue(name: str, concurrency_limit: int | None = None) -> Queue:
    """Return the queue `name`; `concurrency_limit` None leaves the limit to the default."""
    return Queue(name, concurrency_limit)


def queue_settings(value: object, default_name: str) -> tuple[str, int | None]:
    """Return name and limit of what a definition gave as its ``queue=``.

    Args:
        value: A queue name, a `Queue`, ``{"name"?, "concurrency_limit"?}``, or None.
        default_name: Id of the definition, which names the queue when `value` does not.

    Raises:
        ValueError: It is something else, or has an empty name or a limit below 1.
    """
    match value:
        case None:
            return default_name, None
        case str():
            _check_name(value)
            return value, None
        case Queue():
            return value.name, value.concurrency_limit
        case dict():
            return _from_dict(value, default_name)
    raise ValueError(f"queue={value!r} cannot be used: give a name, a Queue, or a dict of name and limit")


def _from_dict(value: dict[str, Any], default_name: str) -> tuple[str, int | None]:
    if unknown := set(value) - {"name", "concurrency_limit"}:
        raise ValueError(f"queue={value!r} has unknown keys {unknown!r}: use name and concurrency_limit")
    name, limit = value.get("name") or default_name, value.get("concurrency_limit")
    _check_name(name)
    _check_limit(limit)
    return name, limit


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"queue name {name!r} cannot be used: give a non-empty string")


def _check_limit(limit: object) -> None:
    if limit is None:
        return
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"concurrency_limit={limit!r} cannot be used: give an int of 1 or more, or None")


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
