"""Calling the functions that users give to steps."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


class RetryPolicy:
    """How often and after which pauses a step is tried again."""

    def __init__(self, max_retries: int, base_delay: float, max_delay: float) -> None:
        self.max_retries = max(int(max_retries), 0)
        self.base_delay = base_delay
        self.max_delay = max_delay


async def call_in_step(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a user's function: on the loop when it is async, else in a thread; await what comes of it."""
    if inspect.iscoroutinefunction(inspect.unwrap(func)) or _awaits(func):
        return await func(*args, **kwargs)
    result = await asyncio.to_thread(func, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def _awaits(func: Callable[..., Any]) -> bool:
    inner = getattr(func, "func", func)  # functools.partial
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004
