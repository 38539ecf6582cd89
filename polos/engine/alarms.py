"""Clocks of the waits of a resident run: each goes off when its wait is due."""

from __future__ import annotations

from collections.abc import Callable

from polos.clock import Clock, Later


class Alarms:
    """One alarm per step; those of a run that is put away are cleared."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handles: dict[str, tuple[float, Later, Callable[[], None]]] = {}  # when, by the clock

    def set(self, name: str, seconds: float, ring: Callable[[], None]) -> None:
        """Call `ring` in so many seconds."""
        self.cancel(name)
        seconds = max(seconds, 0.0)
        going_off = self._clock.call_later(seconds, self.go_off, name)
        self._handles[name] = (self._clock.monotonic() + seconds, going_off, ring)

    def go_off(self, name: str) -> None:
        """Ring the alarm of a step now, if there is one."""
        if (found := self._handles.pop(name, None)) is not None:
            _, going_off, ring = found
            going_off.cancel()
            ring()

    def seconds_until(self, name: str) -> float | None:
        """Return in how many seconds the alarm of a step goes off, None when there is none."""
        found = self._handles.get(name)
        return None if found is None else found[0] - self._clock.monotonic()

    def cancel(self, name: str) -> None:
        """Clear the alarm of a step, if there is one."""
        if (found := self._handles.pop(name, None)) is not None:
            found[1].cancel()

    def clear(self) -> None:
        """Clear all."""
        for name in list(self._handles):
            self.cancel(name)
