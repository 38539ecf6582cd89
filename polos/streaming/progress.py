"""What a reader of a run tree has got: decides what of the next entry it is given. No input or output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from polos import event_data as events
from polos.streaming.cursor import RUN_CHARACTERS, Cursor, Place, Position
from polos.streaming.feed import Entry


@dataclass(frozen=True)
class Told:
    """An event a reader is given."""

    type: str
    data: dict[str, Any]
    cursor: Cursor
    at: float


class Hole(Exception):  # noqa: N818 - not an error: a reason to look into the journal
    """A numbered event before this one has not been told; it is in the journal."""


@dataclass
class _Text:
    """How much of a turn's answer the reader has.

    Attributes:
        offset: Characters it has, of this attempt.
        chunks: Pieces it has, None when only the characters are known.
        calls: Tool calls it has, None when that is not known.
        is_holed: Pieces are missing: the rest comes when the turn's outcome is on record.
        has_ended: The outcome is known; whatever else is told of the turn is late.
    """

    attempt: int
    offset: int = 0
    chunks: int | None = 0
    calls: int | None = 0
    is_holed: bool = False
    has_ended: bool = False


class Progress:
    """One reader's progress through one tree.

    Args:
        cursor: What the reader has.

    Attributes:
        trusts_start: What is told of a turn from its middle on goes on where the reader is: it begins now, or
            after an entry that is still kept. Otherwise what was before is missing.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.trusts_start = False
        self._reads_all = cursor == Cursor()
        self._texts: dict[tuple[str, int], _Text] = {}
        self._seen: set[tuple[Any, ...]] = set()
        if (place := cursor.place) is not None:
            self._texts[place.run, place.step] = _Text(place.attempt, place.offset, chunks=None, calls=None)

    @property
    def number(self) -> int:
        """Number of the last numbered event the reader has."""
        return self.cursor.number

    def take(self, entry: Entry, *, from_journal: bool = False) -> Iterator[Told]:
        """Give the reader what `entry` has for it: nothing, one event, or what was missing before it too.

        What the journal gives is complete, so that nothing can be missing before an entry from there.

        Raises:
            Hole: Read the journal first, then take this entry again.
        """
        if entry.number:
            if entry.number <= self.number:
                return
            if not from_journal and (entry.number > self.number + 1 or entry.type is None):
                raise Hole
        if entry.type is None:
            return
        match entry.type:
            case "text_delta" | "tool_call":
                yield from self._chunk(entry)
            case "stream_start":
                yield from self._attempt(entry)
            case "step_finish" if "attempt" in entry.data:
                yield from self._turn_ended(entry)
            case _:
                if entry.number or not self._is_repeated(entry):
                    yield from self._begun(entry)
                    yield self._tell(entry, entry.type, entry.data)

    def _begun(self, entry: Entry) -> Iterator[Told]:
        """Tell that a step began which has ended: nobody read along then."""
        if entry.type == "step_finish" and self._reads_all:
            begin = events.step_started(entry.data["step_key"], entry.data["_metadata"])
            start = replace(entry, type=begin[0], data=begin[1], number=0)
            if not self._is_repeated(start):
                yield self._tell_before(start, *begin)

    # -- a model's answer

    def _chunk(self, entry: Entry) -> Iterator[Told]:
        text = self._text(entry)
        if text.has_ended or entry.data["attempt"] < text.attempt:
            return
        if entry.data["attempt"] > text.attempt:
            yield from self._void(entry, text)
        if text.is_holed or not self._is_next(entry, text):
            return
        text.chunks = entry.data["chunk_index"] + 1
        text.offset = entry.offset + len(entry.data["content"] or "")
        if entry.type == "tool_call" and text.calls is not None:
            text.calls += 1
        yield self._tell(entry, str(entry.type), entry.data, place=_place(entry, text))

    @staticmethod
    def _is_next(entry: Entry, text: _Text) -> bool:
        index = entry.data["chunk_index"]
        here, expected = (entry.offset, text.offset) if text.chunks is None else (index, text.chunks)
        text.is_holed = here > expected
        return bool(here == expected)

    def _attempt(self, entry: Entry) -> Iterator[Told]:
        text = self._text(entry)
        if text.has_ended or entry.data["attempt"] < text.attempt:
            return
        if entry.data["attempt"] > text.attempt:
            yield from self._void(entry, text)
        if not self._is_repeated(entry):
            yield self._tell(entry, str(entry.type), entry.data)

    def _void(self, entry: Entry, text: _Text) -> Iterator[Told]:
        """Another attempt answers: what the reader has of the turn counts no more."""
        attempt, had_some = entry.data["attempt"], text.chunks != 0
        text.attempt, text.offset, text.chunks, text.calls, text.is_holed = attempt, 0, 0, 0, False
        if had_some:
            reset = events.stream_reset(entry.data["step"], attempt, entry.data["_metadata"])
            yield self._tell_before(entry, *reset)

    def _turn_ended(self, entry: Entry) -> Iterator[Told]:
        """Complete the answer by what is on record, then tell the end."""
        is_known = _turn_of(entry) in self._texts
        text = self._text(entry)
        answer = (entry.data.get("data") or {}).get("result")
        if answer is not None and events.was_streamed(entry.data) and (is_known or not self.trusts_start):
            if entry.data["attempt"] != text.attempt:
                yield from self._void(entry, text)
            yield from self._rest(entry, text, answer)
        text.has_ended = True
        yield self._tell(entry, str(entry.type), entry.data)

    def _rest(self, entry: Entry, text: _Text, answer: dict[str, Any]) -> Iterator[Told]:
        """Tell what is missing of an answer."""
        step, where = entry.data["step"], entry.data["_metadata"]
        content, calls = answer.get("content") or "", answer.get("tool_calls") or []
        is_short = text.offset < len(content)
        if text.chunks == 0:
            began = events.stream_started(step, text.attempt, where)
            known = self.cursor.position  # who goes on after it still gets the end
            start = Entry(*began, number=0, at=entry.at, position=str(known) if known.milliseconds else "")
            yield from self._attempt(start)
            text.chunks = int(bool(entry.data.get("guarded")))
        if text.calls is None:
            text.calls = 0 if is_short else len(calls)
        pieces = (
            [events.text_delta, content[text.offset :]],
            *([events.tool_call, call] for call in calls[text.calls :]),
        )
        for build, piece in pieces[0 if is_short else 1 :]:
            text.chunks = (text.chunks or 0) + 1
            text.offset = len(content)
            event = build(step, text.chunks - 1, piece, text.attempt, where)
            yield self._tell_before(entry, *event, place=_place(entry, text))

    def _text(self, entry: Entry) -> _Text:
        turn = _turn_of(entry)
        if turn not in self._texts:
            text = self._texts[turn] = _Text(entry.data["attempt"])
            if entry.type in {"text_delta", "tool_call"} and self.trusts_start and entry.data["chunk_index"]:
                text.chunks, text.offset, text.calls = entry.data["chunk_index"], entry.offset, None
        return self._texts[turn]

    # -- telling

    def _tell_before(
        self, entry: Entry, kind: str, data: dict[str, Any], *, place: Place | None = None
    ) -> Told:
        """Give an event that comes before what `entry` says: who goes on after it still gets that."""
        known = self.cursor.position
        if not known.milliseconds:
            known = Position(int(entry.at * 1000) - 1)
        self.cursor = self.cursor.then(number=self.number, position=known, place=place)
        return Told(kind, data, self.cursor, entry.at)

    def _tell(self, entry: Entry, kind: str, data: dict[str, Any], *, place: Place | None = None) -> Told:
        position = self._position(entry)
        number = entry.number if entry.number and kind == entry.type else self.number
        self.cursor = self.cursor.then(number=number, position=position, place=place)
        return Told(kind, data, self.cursor, entry.at)

    def _position(self, entry: Entry) -> Position:
        known = self.cursor.position
        if entry.position:
            return max(Position.parse(entry.position), known)
        if entry.number and known.milliseconds:
            return known  # read from the journal in between: what is kept goes on from the same entry
        return max(Position.at(entry.at), known)

    def _is_repeated(self, entry: Entry) -> bool:
        """Whether the reader has this event that has no number; take note of it otherwise."""
        data = entry.data
        where = (data.get("_metadata") or {}).get("execution_id")
        detail = (data.get("step_key"), data.get("step"), data.get("attempt"), data.get("tool_call_id"))
        known = (entry.type, where, *detail)
        if known in self._seen:
            return True
        self._seen.add(known)
        return False

    def tell_again(self, entry: Entry) -> Iterator[Told]:
        """Give the reader an event from before it began."""
        yield self._tell(replace(entry, number=0, position=""), str(entry.type), entry.data)

    def skip_to(self, number: int, position: Position) -> None:
        """Begin here instead: what was before is not wanted."""
        self.cursor = Cursor(number, position)


def _turn_of(entry: Entry) -> tuple[str, int]:
    return (str(entry.data["_metadata"]["execution_id"])[:RUN_CHARACTERS], int(entry.data["step"]))


def _place(entry: Entry, text: _Text) -> Place:
    run, step = _turn_of(entry)
    return Place(run, step, text.attempt, text.offset)
