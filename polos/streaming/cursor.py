"""Where a reader of a run tree is: the number of the last numbered event, and the last kept entry.

A cursor is written ``{number}.{milliseconds}-{n}``. ``+{ahead}`` follows where the sequence id of the event
is that much ahead of the position's; and after a piece of text ``.{run}.{step}.{attempt}.{offset}``: whose it
was, in which turn and attempt, and how many characters of that the reader has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_POSITION = r"(\d{1,9})\.(\d{1,15})-(\d{1,15})(?:\+(\d{1,9}))?"
_PLACE = r"\.([^.\s]{1,8})\.(\d{1,9})\.(\d{1,9})\.(\d{1,12})"
_CURSOR = re.compile(f"{_POSITION}(?:{_PLACE})?", re.ASCII)
PER_MILLISECOND = 4096  # sequence ids of one millisecond; they stay exact in 53 bits
RUN_CHARACTERS = 8  # of a run's id: enough within a tree


@dataclass(frozen=True)
class Place:
    """How far a reader is in the text of one turn."""

    run: str
    step: int
    attempt: int
    offset: int


@dataclass(frozen=True, order=True)
class Position:
    """The id of a kept entry; or a moment, where nothing was kept."""

    milliseconds: int = 0
    n: int = 0

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that an entry's id says."""
        milliseconds, _, n = text.partition("-")
        return cls(int(milliseconds), int(n or 0))

    @classmethod
    def of_sequence(cls, sequence_id: int) -> Position:
        """Return the position of a sequence id."""
        return cls(*divmod(sequence_id, PER_MILLISECOND))

    @classmethod
    def at(cls, seconds: float) -> Position:
        """Return the position of a moment, for what was not kept."""
        return cls(*divmod(round(seconds * 1_000_000), 1000))

    @property
    def sequence_id(self) -> int:
        """One number that grows with the position."""
        return self.milliseconds * PER_MILLISECOND + min(self.n, PER_MILLISECOND - 1)

    @property
    def seconds(self) -> float:
        """Seconds since the epoch, exact to the microsecond for a position that `at` has made."""
        return self.milliseconds / 1000 + self.n / 1_000_000

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.n}"


@dataclass(frozen=True)
class Cursor:
    """What a reader has got so far."""

    number: int = 0
    position: Position = Position()
    place: Place | None = None
    ahead: int = 0

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor that `str` wrote.

        Raises:
            ValueError: It is none.
        """
        if (found := _CURSOR.fullmatch(text)) is None:
            raise ValueError(
                f"{text[:80]!r} is not the id of an event; give the id of the last event you have, or none"
            )
        number, milliseconds, n, ahead, run, step, attempt, offset = found.groups()
        place = Place(run, int(step), int(attempt), int(offset)) if run else None
        return cls(int(number), Position(int(milliseconds), int(n)), place, int(ahead or 0))

    @property
    def sequence_id(self) -> int:
        """The sequence id of the event."""
        return self.position.sequence_id + self.ahead

    def then(self, *, number: int, position: Position, place: Place | None) -> Cursor:
        """Return the cursor of the next event."""
        ahead = max(self.sequence_id + 1 - position.sequence_id, 0)
        return Cursor(number, position, place, ahead)

    def __str__(self) -> str:
        ahead = f"+{self.ahead}" if self.ahead else ""
        text = f"{self.number}.{self.position}{ahead}"
        if (place := self.place) is None:
            return text
        return f"{text}.{place.run}.{place.step}.{place.attempt}.{place.offset}"
