"""Events below a direct client: publishing them, and following run trees and topics."""

from __future__ import annotations

import asyncio
import heapq
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol

from polos import event_data, serialization
from polos.clock import SYSTEM_CLOCK, Clock
from polos.errors import InputError, ServiceUnavailableError
from polos.events import EventData, StreamEvent, check_topic
from polos.journal.events import (
    HISTORY_RUN,
    HISTORY_STEP,
    READ_HEADS,
    READ_TOPIC,
    READ_TOPIC_AT,
    READ_TOPIC_BACKWARDS,
    READ_TOPIC_HEAD,
    READ_TREE_EVENTS,
    READ_TREE_RUNS,
    READ_TREE_STEPS,
    NewEvent,
    publish,
    publish_in_tree,
)
from polos.journal.runs import READ_RUN, run_record
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.suspends import READ_WAITS
from polos.records import api_time
from polos.streaming.bus import Append, Bus
from polos.streaming.cursor import Cursor, Position
from polos.streaming.feed import KEEP_SECONDS, MAX_ENTRIES, Entry, numbered_line, stream_of
from polos.streaming.progress import Progress, Told
from polos.streaming.reader import Head, TreeReader

SILENCE_SECONDS = 2.0  # without a word on a topic: then the journal is asked
TOGETHER_SECONDS = 0.02  # in which questions of several readers become one
PAGE = 500
LARGEST_NUMBER = 2**31 - 1  # of an event, as the database keeps it
MICROSECOND = 2e-6  # as exact as positions are, and what is lost in sums
Row = dict[str, Any]


class Journal(Protocol):
    """Reads and commits of a client, off the event loop."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


class Feeds:
    """Events of any project, for the readers and publishers of one process.

    Args:
        bus: Returns the running loop's connection to Redis.
        on_met: Hands over what was published to a topic to the runs that wait for it.
        max_value_bytes: Longest JSON text of an event's data.
        clock: Of this process.
    """

    def __init__(
        self,
        journal: Journal,
        bus: Callable[[], Bus],
        on_met: Callable[[str, str], Awaitable[None]],
        *,
        max_value_bytes: int,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._on_met = on_met
        self._bus = bus
        self._max_value_bytes = max_value_bytes
        self._heads = _Heads(journal)

    # -- run trees

    async def follow(
        self, project: str, run_id: str, *, after: str | int | None = None, live: bool = False
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a run tree until the run's own end.

        Raises:
            ValueError: There is no such run in the project, or `after` is no cursor.
        """
        cursor = None if live else _cursor(after)
        run = await self._run(project, run_id)
        history = TreeHistory(self._journal, self._heads, run)
        reader = TreeReader(self._bus(), history, root_id=run["root_id"], run_id=run_id, cursor=cursor)
        if isinstance(after, int) and after > 0:
            await reader.find_number()
        if cursor is not None and run["ended_event"] is not None and reader.number >= run["ended_event"]:
            return  # the reader has the end already
        topic = event_data.topic_of(run["root_name"], run["root_id"])
        async for told in reader.events():
            yield _stream_event(told, topic)

    async def _run(self, project: str, run_id: str) -> Row:
        rows = await asyncio.to_thread(self._journal.read, READ_RUN, {"run": run_id})
        run = run_record(rows[0]) if rows else None
        if run is None or run["project"] != project:
            raise InputError(f"There is no run {run_id!r} in project {project!r}")
        return run

    # -- topics

    async def follow_topic(
        self, project: str, topic: str, *, after: int | None = None, after_time: datetime | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a topic, for ever; from now if neither `after` nor `after_time` is given."""
        check_topic(topic)
        news = asyncio.Event()
        listening = self._bus().listening(
            event_data.topic_channel(project, topic), lambda _: news.set(), on_subscribed=news.set
        )
        number = await self._topic_start(project, topic, after, after_time)
        async with listening:
            while True:
                news.clear()
                with suppress(ServiceUnavailableError):  # read again after the pause; nothing was passed over
                    async for event in self._topic_since(project, topic, number):
                        number = event.sequence_id
                        yield event
                try:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        await news.wait()
                except TimeoutError:
                    continue  # a notice may have been lost

    async def _topic_start(
        self, project: str, topic: str, after: int | None, after_time: datetime | None
    ) -> int:
        if after is not None:
            return after
        place: dict[str, Any] = {"project": project, "topic": topic}
        if after_time is None:
            return await self._number(READ_TOPIC_HEAD, place)
        return await self._number(READ_TOPIC_AT, {**place, "time": after_time.timestamp()})

    async def _number(self, statement: Statement, params: dict[str, Any]) -> int:
        rows = await asyncio.to_thread(self._journal.read, statement, params)
        return int(rows[0][0] or 0) if rows else 0

    async def _topic_since(self, project: str, topic: str, number: int) -> AsyncIterator[StreamEvent]:
        while True:
            page = await self._topic_page(project, topic, after=number, limit=PAGE)
            for event in page:
                yield event
            if len(page) < PAGE:
                return
            number = page[-1].sequence_id

    async def _topic_page(
        self, project: str, topic: str, *, after: int, limit: int, descending: bool = False
    ) -> list[StreamEvent]:
        statement = READ_TOPIC_BACKWARDS if descending else READ_TOPIC
        place = {"project": project, "topic": topic, "after": min(after, LARGEST_NUMBER)}
        rows = await asyncio.to_thread(self._journal.read, statement, {**place, "limit": limit})
        return [_topic_event(topic, row) for row in rows]

    # -- what is recorded, and publishing

    async def list_events(
        self, project: str, topic: str, *, after: int = 0, limit: int = 100, descending: bool = False
    ) -> list[StreamEvent]:
        """Return recorded events of a topic with a sequence id above `after`; [] for an unknown topic."""
        run = await self._root_of(project, check_topic(topic))
        if run is None:
            return await self._topic_page(project, topic, after=after, limit=limit, descending=descending)
        progress = Progress(Cursor())
        entries = await TreeHistory(self._journal, self._heads, run).since(0, after=Position())
        found = [
            _stream_event(told, topic)
            for entry in entries
            for told in progress.take(entry, from_journal=True)
        ]
        chosen = [event for event in found if event.sequence_id > after]
        return (chosen[::-1] if descending else chosen)[:limit]

    async def publish_events(
        self,
        project: str,
        topic: str,
        events: list[EventData],
        *,
        execution_id: str | None = None,
        root_execution_id: str | None = None,
    ) -> list[int]:
        """Publish events in one transaction, in order; return their sequence ids."""
        if not events:
            return []
        root = await self._root_of(project, check_topic(topic))
        new = [self._new(topic, event, execution_id or root_execution_id) for event in events]
        unit = (
            publish(project, topic, new)
            if root is None
            else publish_in_tree(project, topic, root["root_id"], new)
        )
        [rows] = await asyncio.to_thread(self._journal.commit, [unit])
        last, seconds, met = rows[0]
        if met:
            with suppress(ServiceUnavailableError):  # the events are there; sweepers hand them over
                await self._on_met(project, topic)
        numbers = list(range(last - len(events) + 1, last + 1))
        if root is None:
            self._bus().publish(event_data.topic_channel(project, topic), str(last))
            return numbers
        for number, event in zip(numbers, events, strict=True):
            self.tell(root["root_id"], number, (event.event_type or "", event.data))
        return [Position.at(seconds).sequence_id + index for index in range(len(events))]

    def tell(self, root_id: str, number: int, event: tuple[str, dict[str, Any]]) -> None:
        """Tell readers of a tree an event that this process has put into the journal."""
        line = numbered_line(number, event, self._clock.time())
        self._bus().append(Append(stream_of(root_id), line, False, MAX_ENTRIES, KEEP_SECONDS, lambda _: None))

    def _new(self, topic: str, event: EventData, run_id: str | None) -> NewEvent:
        data = serialization.dumps(
            serialization.to_data(event.data),
            limit_bytes=self._max_value_bytes,
            what=f"data of an event for {topic!r}",
        )
        return NewEvent(event.event_type, data, run_id)

    async def _root_of(self, project: str, topic: str) -> Row | None:
        """Return the root run a topic of a run tree belongs to, None for a topic of the program's own."""
        root_id = topic.rpartition("/")[2]
        if not topic.startswith("workflow/") or not _is_run_id(root_id):
            return None
        rows = await asyncio.to_thread(self._journal.read, READ_RUN, {"run": root_id})
        run = run_record(rows[0]) if rows else None
        return None if run is None or (run["project"], run["root_id"]) != (project, root_id) else run


class _Heads:
    """How far runs' trees are, asked for by many readers in one query."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: dict[asyncio.AbstractEventLoop, dict[str, asyncio.Future[Head]]] = {}

    def of(self, run_id: str) -> Awaitable[Head]:
        """Return the head of a run's tree."""
        loop = asyncio.get_running_loop()
        asked = self._waiting.get(loop)
        if asked is None:
            asked = self._waiting[loop] = {}
            loop.call_later(TOGETHER_SECONDS, lambda: loop.create_task(self._answer(loop)))
        if run_id not in asked:
            asked[run_id] = loop.create_future()
        return asyncio.shield(asked[run_id])

    async def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        asked = self._waiting.pop(loop)
        try:
            rows = await asyncio.to_thread(self._journal.read, READ_HEADS, {"runs": json.dumps(list(asked))})
        except Exception as error:  # noqa: BLE001 - each who asked gets it
            for future in asked.values():
                future.set_exception(error)
            return
        found = {row[0]: Head(*row[1:]) for row in rows}
        for run_id, future in asked.items():
            future.set_result(found.get(run_id) or Head(0, 0.0, None))


class TreeHistory:
    """What the journal knows of one tree, as entries."""

    def __init__(self, journal: Journal, heads: _Heads, run: Row) -> None:
        self._journal = journal
        self._heads = heads
        self._run_id = run["id"]
        self._place = {
            "root": run["root_id"],
            "project": run["project"],
            "topic": event_data.topic_of(run["root_name"], run["root_id"]),
        }

    async def head(self) -> Head:
        """Return how far the tree is now."""
        return await self._heads.of(self._run_id)

    async def pending(self) -> Sequence[Entry]:
        """Return the events that ask for an answer nobody has given yet."""
        rows = await asyncio.to_thread(self._journal.read, READ_WAITS, {"root": self._place["root"]})
        return [
            Entry(event_data.suspend_type(name.removeprefix("$")), json.loads(asked), number, seconds)
            for _, name, asked, number, seconds, _, _ in rows
        ]

    async def since(self, number: int, *, after: Position | None = None) -> Sequence[Entry]:
        """Return the numbered events after `number`, and those without number after a position if given."""
        entries = await asyncio.to_thread(self._since, number, after)
        if _has_hole(entries, number):  # committed between two of the reads, and there in another one
            entries = await asyncio.to_thread(self._since, number, after)
        return entries

    def _since(self, number: int, after: Position | None) -> list[Entry]:
        since = float("inf") if after is None else after.seconds - MICROSECOND  # and exactly, below
        params = {**self._place, "after": number, "since": since}
        runs = self._rows(READ_TREE_RUNS, params, HISTORY_RUN)
        steps = self._rows(READ_TREE_STEPS, params, HISTORY_STEP)
        events = self._journal.read(READ_TREE_EVENTS, params)
        entries = [
            *(entry for run in runs for entry in _of_run(run)),
            *(entry for step in steps for entry in _of_step(step)),
            *(_of_event(row) for row in events),
        ]
        numbered = [entry for entry in entries if entry.number > number]
        plain = [
            entry
            for entry in entries
            if not entry.number and after is not None and Position.at(entry.at) > after
        ]
        return _in_order(numbered, plain)

    def _rows(self, statement: Statement, params: dict[str, Any], names: Sequence[str]) -> list[Row]:
        return [dict(zip(names, row, strict=True)) for row in self._journal.read(statement, params)]


def _has_hole(entries: list[Entry], number: int) -> bool:
    numbers = [entry.number for entry in entries if entry.number]
    return bool(numbers) and numbers != list(range(number + 1, number + 1 + len(numbers)))


def _in_order(numbered: list[Entry], plain: list[Entry]) -> list[Entry]:
    """Merge by time, numbered events in the order of their numbers whatever their clocks say."""
    latest = 0.0
    keyed: list[tuple[float, Entry]] = []
    for entry in sorted(numbered, key=lambda entry: entry.number):
        latest = max(latest, entry.at)
        keyed.append((latest, entry))
    others = [(entry.at, entry) for entry in sorted(plain, key=lambda entry: entry.at)]
    return [entry for _, entry in heapq.merge(others, keyed, key=lambda pair: pair[0])]


def _of_run(run: Row) -> Iterator[Entry]:
    where = event_data.metadata(run["id"], run["name"])
    if run["started_at"] is not None:
        begin = event_data.run_started(run["kind"], _value(run["input"]), where)
        yield Entry(*begin, number=run["started_event"] or 0, at=run["started_at"])
    if run["ended_event"] is not None:
        end = event_data.run_ended(
            run["kind"],
            run["status"],
            where,
            result=_value(run["output"]),
            error=run["error"],
            cancelled_by=run["cancelled_by"],
        )
        yield Entry(*end, number=run["ended_event"], at=run["finished_at"])


def _of_step(step: Row) -> Iterator[Entry]:
    where = event_data.metadata(step["run_id"], step["run_name"])
    if step["kind"] == "turn":
        yield from _of_turn(step, where)
        return
    key = step["name"].removeprefix("$")
    if step["started_at"] is not None:
        began = max(
            step["started_at"], (step["run_started_at"] or 0.0) + MICROSECOND
        )  # by clocks that differ
        yield Entry(*event_data.step_started(key, where), number=0, at=began)
    if step["finished_at"] is not None:
        end = event_data.step_finished(key, _value(step["output"]), where, step["error"])
        yield Entry(
            *end,
            number=step["event"] or 0,
            at=max(step["finished_at"], (step["started_at"] or 0.0) + MICROSECOND),
        )


def _of_turn(step: Row, where: Row) -> Iterator[Entry]:
    name = step["name"]
    given = _value(step["input"]) or {}
    streamed = bool(given.get("streamed"))
    if step["started_at"] is not None:
        begin = event_data.step_started(event_data.turn_key(name, streamed=streamed), where)
        yield Entry(*begin, number=0, at=step["started_at"])
    if step["event"] is not None:
        end = event_data.turn_finished(
            name,
            _value(step["output"]),
            where,
            streamed=streamed,
            attempt=step["attempt"],
            error=step["error"],
            guarded=bool(given.get("guarded")),
        )
        yield Entry(*end, number=step["event"], at=step["finished_at"])


def _of_event(row: tuple[Any, ...]) -> Entry:
    number, kind, data, _, seconds = row
    return Entry(kind or "", json.loads(data), number, seconds)


def _stream_event(told: Told, topic: str) -> StreamEvent:
    return StreamEvent(
        id=str(told.cursor),
        sequence_id=told.cursor.sequence_id,
        topic=topic,
        event_type=told.type or None,
        data=told.data,
        created_at=api_time(told.at),
    )


def _topic_event(topic: str, row: tuple[Any, ...]) -> StreamEvent:
    number, kind, data, _, seconds = row
    return StreamEvent(
        id=str(number),
        sequence_id=number,
        topic=topic,
        event_type=kind,
        data=json.loads(data),
        created_at=api_time(seconds),
    )


def _cursor(after: str | int | None) -> Cursor:
    if after is None or after == 0:
        return Cursor()
    if isinstance(after, str):
        return Cursor.parse(after)
    if after < 0:
        raise InputError(f"after={after!r} is not a sequence id; 0 gives everything")
    return Cursor(position=Position.of_sequence(after))


def _is_run_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _value(text: str | None) -> Any:
    return None if text is None else serialization.loads(text)
