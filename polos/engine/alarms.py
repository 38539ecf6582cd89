"""Clocks of the waits of a resident run: each goes off when its wait is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarms:
    """One alarm per step; those of a run that is put away are cleared."""

    def __init__(self) -> None:
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def set(self, name: str, seconds: float, ring: Callable[[], None]) -> None:
        """Call `ring` in so many seconds."""
        self.cancel(name)
        loop = asyncio.get_running_loop()
        self._handles[name] = loop.call_later(max(seconds, 0.0), self._go_off, name, ring)

    def _go_off(self, name: str, ring: Callable[[], None]) -> None:
        self._handles.pop(name, None)
        ring()

    def seconds_until(self, name: str) -> float | None:
        """Return in how many seconds the alarm of a step goes off, None when there is none."""
        handle = self._handles.get(name)
        return None if handle is None else handle.when() - asyncio.get_running_loop().time()

    def cancel(self, name: str) -> None:
        """Clear the alarm of a step, if there is one."""
        if (handle := self._handles.pop(name, None)) is not None:
            handle.cancel()

    def clear(self) -> None:
        """Clear all."""
        for name in list(self._handles):
            self.cancel(name)
