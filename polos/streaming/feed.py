"""The feed of run trees: what happens in them, told live and kept for a while, one stream per tree."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from polos.clock import SYSTEM_CLOCK, Clock
from polos.streaming.bus import Append, Bus

WATCHERS = "watching"  # channel on which readers say which tree they read
WATCHED_SECONDS = 60.0  # after somebody said so, or something was kept
MAX_ENTRIES = 10_000  # of a tree
KEEP_SECONDS = 3600.0
MAX_ENTRY_BYTES = (
    32_768  # of a numbered event; of a larger one only the number is told, and it is read from SQL
)


Event = tuple[str, dict[str, Any]]  # type and data
_VALUES = ("data", "payload", "result", "tool_call")


def stream_of(root_id: str) -> str:
    """Return the name of a tree's stream, which is also its channel."""
    return f"tree:{root_id}"


@dataclass(frozen=True)
class Entry:
    """An event on its way.

    Attributes:
        type: None for a numbered event that is too large to be told.
        number: Its number in the tree, 0 for an event that is only told, never numbered.
        at: Seconds since the epoch.
        offset: Of a text delta: characters of the answer before it.
        position: Id of the kept entry, empty for one that was not kept.
    """

    type: str | None
    data: dict[str, Any]
    number: int
    at: float
    offset: int = 0
    position: str = ""

    def line(self) -> str:
        """Return it as one line of text."""
        return json.dumps(
            [self.type, self.number, round(self.at, 3), self.offset, self.data], separators=(",", ":")
        )


def entry_from(line: str, position: str = "") -> Entry:
    """Return the entry that `Entry.line` wrote."""
    kind, number, at, offset, data = json.loads(line)
    return Entry(kind, data, number, at, offset, position)


class Feed:
    """Tells what happens in run trees. Telling costs no wait and cannot fail: Redis may be away.

    Args:
        keep_seconds: How long a tree's entries are kept after its last one.
        max_entries: How many entries of a tree are kept, about.
        clock: Of the worker.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        keep_seconds: float = KEEP_SECONDS,
        max_entries: int = MAX_ENTRIES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._bus = bus
        self._keep_seconds = keep_seconds
        self._max_entries = max_entries
        self._clock = clock
        self._watched: dict[str, float] = {}  # root id -> until when
        bus.listen(WATCHERS, self._watch)

    def is_watched(self, root_id: str) -> bool:
        """Whether somebody read this tree lately: what is only live is told to nobody else."""
        return self._watched.get(root_id, 0.0) > time.monotonic()

    def numbered(self, root_id: str, number: int, event: Event, *, keep: bool = False) -> None:
        """Tell an event that is in the journal under this number."""
        self._append(root_id, numbered_line(number, event, self._clock.time()), keep=keep)

    def live(self, root_id: str, event: Event, *, keep: bool = False, offset: int = 0) -> None:
        """Tell an event that has no number."""
        kind, data = event
        line = Entry(kind, data, 0, self._clock.time(), offset).line()
        if len(line) > MAX_ENTRY_BYTES:
            line = Entry(kind, _without_values(data), 0, self._clock.time(), offset).line()
        self._append(root_id, line, keep=keep)

    def close(self) -> None:
        """Stop listening for readers."""
        self._bus.forget(WATCHERS, self._watch)

    def _append(self, root_id: str, line: str, *, keep: bool) -> None:
        def told(kept: bool) -> None:
            (self._watch if kept else self._forget)(root_id)

        entry = Append(stream_of(root_id), line, keep, self._max_entries, self._keep_seconds, told)
        self._bus.append(entry)

    def _watch(self, root_id: str) -> None:
        if len(self._watched) > self._max_entries:
            now = time.monotonic()
            self._watched = {root: until for root, until in self._watched.items() if until > now}
        self._watched[root_id] = time.monotonic() + WATCHED_SECONDS

    def _forget(self, root_id: str) -> None:
        self._watched.pop(root_id, None)


def numbered_line(number: int, event: Event, at: float) -> str:
    """Return the line that tells an event of the journal; of a large one, only that it is there."""
    kind, data = event
    line = Entry(kind, data, number, at).line()
    return line if len(line) <= MAX_ENTRY_BYTES else Entry(None, {}, number, at).line()


def _without_values(data: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if name not in _VALUES}
    return {**kept, "truncated": True}
