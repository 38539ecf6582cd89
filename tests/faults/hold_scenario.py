"""F25: runs are cancelled while their worker stands at a fault point, or while the model speaks."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from arena import BOOT_SECONDS, LOOK_AGAIN_SECONDS, Arena
from moments import LATE, MOMENTS, Moment
from servers import Answer, Recorder, Seen, chat_answer, recorder
from sqlalchemy import bindparam, select
from storms import TERMINAL_SECONDS
from turnstile import Turnstile
from week_model import Call

from polos.journal.runs import RUNS, R, run_record
from polos.journal.statements import Statement
from polos.journal.steps import STEPS, S, step_details

SETTINGS = {"POLOS_IMPORTS": "week_program,hold_program", "POLOS_SWEEP_SECONDS": "0.5"}
SPARED = ("week-plain", "week-sync", "week-nested")
SPEAKERS = ("speaker-held", "told-held")
AGENTS = ("agent-held", "speaker-held")
SPOKEN = ["a ", "b ", "c "]  # until the model is cut off
EVERY = 7  # of the moments, one of so many is played in short form
USED = ("tokens", "calls", "cost", "agent", "model")  # of a cancelled call, counted when it is known
READ_RUNS = Statement(select(*RUNS.c).where(R.root_id == bindparam("root")).order_by(R.id))
READ_STEPS = Statement(
    select(*STEPS.c)
    .where(S.run_id.in_(select(R.id).where(R.root_id == bindparam("root"))))
    .order_by(S.run_id, S.name)
)
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Settled:
    """A run that was cancelled: all its rows and how many effects it had had."""

    name: str
    root: str
    rows: Rows
    done: int


async def cancelled_anywhere(arena: Arena) -> None:
    """Cancel one run at each moment, and runs that speak: nothing of them goes on, and their readers hear."""
    await arena.hire(arena.plan.workers)
    turnstile = Turnstile(arena.folder / "turnstile")
    chosen = MOMENTS[arena.plan.seed % EVERY :: EVERY] if arena.plan.runs else MOMENTS
    took: list[float] = []
    settled = []
    for moment in chosen:
        settled.append(await _cancelled_at(arena, turnstile, moment, took))
    for moment in LATE:
        await _too_late(arena, turnstile, moment)
    for program in SPEAKERS:
        settled.append(await _cancelled_while_speaking(arena, program, took))
    await arena.start_many(SPARED, 2 * len(SPARED))  # the worker is well
    await arena.all_ended()
    for each in settled:
        _has_stayed(arena, each)
    took.sort()
    arena.notes["moments"] = str(len(chosen))
    arena.notes["ends, and is told, p50/max"] = f"{took[len(took) // 2]:.2f}/{took[-1]:.2f} s"


async def _cancelled_at(arena: Arena, turnstile: Turnstile, moment: Moment, took: list[float]) -> Settled:
    root, reading = await _held(arena, turnstile, moment)
    open_before = {row["id"] for row in _rows(arena, root) if row.get("finished_at") is None and "id" in row}
    began = time.monotonic()
    if not await arena.client.cancel_execution(root):
        arena.miss("F25", f"{moment} was not cancelled", root)
    arena.faults += 1
    settled = Settled(str(moment), root, _rows(arena, root), _done(arena, root))
    _is_cancelled(arena, settled, open_before)
    turnstile.open()
    await _is_told(arena, settled, reading, began, took)
    return settled


async def _held(arena: Arena, turnstile: Turnstile, moment: Moment) -> tuple[str, asyncio.Task[list[str]]]:
    """Start a run and a reader of it; return once its worker stands at the moment."""
    turnstile.arm(moment)
    root, reading = await _followed(arena, f"{moment.program}-held")
    await arena.until(lambda: turnstile.is_reached, BOOT_SECONDS, f"{moment} is not reached")
    return root, reading


async def _followed(arena: Arena, program: str) -> tuple[str, asyncio.Task[list[str]]]:
    payload = {"input": "Charge it", "streaming": program == "speaker-held"} if program in AGENTS else None
    root = (await arena.client.invoke(program, payload)).id

    async def read() -> list[str]:
        return [event.event_type or "" async for event in arena.client.follow(root)]

    return root, asyncio.create_task(read())


async def _too_late(arena: Arena, turnstile: Turnstile, moment: Moment) -> None:
    """Cancel a run whose end is committed: it has ended well, whatever its worker knows of that."""
    root, reading = await _held(arena, turnstile, moment)
    if await arena.client.cancel_execution(root):
        arena.miss("F25", f"{moment} was cancelled though it had ended", root)
    turnstile.open()
    events = await asyncio.wait_for(reading, BOOT_SECONDS)
    if events[-1] != "workflow_finish" or _done(arena, root) != 3:
        arena.miss("F25", f"{moment} ended with {events[-1]}", root)


async def _cancelled_while_speaking(arena: Arena, program: str, took: list[float]) -> Settled:
    """Cancel a run whose model is in the middle of an answer: its connection is closed."""
    arena.model.begin()
    root, reading = await _followed(arena, program)
    await arena.until(lambda: arena.model.speaks, BOOT_SECONDS, f"{program} does not speak")
    began = time.monotonic()
    if not await arena.client.cancel_execution(root):
        arena.miss("F25", f"{program} was not cancelled", root)
    arena.faults += 1
    settled = Settled(f"{program} speaking", root, _rows(arena, root), _done(arena, root))
    _is_cancelled(arena, settled, {row["id"] for row in settled.rows if "root_id" in row})
    await _is_told(arena, settled, reading, began, took)
    try:
        await arena.until(lambda: arena.model.was_cut, TERMINAL_SECONDS, "still connected")
    except TimeoutError:
        arena.miss("F25", f"{program}: the model spoke on {TERMINAL_SECONDS:g} s after the cancel", root)
    arena.notes[f"{program} cut after"] = f"{time.monotonic() - began:.2f} s"
    return settled


def _is_cancelled(arena: Arena, settled: Settled, was_open: set[str]) -> None:
    for row in settled.rows:
        if row.get("id") in was_open and row["status"] != "cancelled":
            arena.miss("F25", f"{settled.name}: {row['name']} is {row['status']}", settled.root)


async def _is_told(
    arena: Arena, settled: Settled, reading: asyncio.Task[list[str]], began: float, took: list[float]
) -> None:
    """Wait until the reader's stream has ended, with the cancel."""
    try:
        events = await asyncio.wait_for(reading, TERMINAL_SECONDS)
    except TimeoutError:
        arena.miss("F25", f"{settled.name}: the stream goes on {TERMINAL_SECONDS:g} s after", settled.root)
        return
    took.append(time.monotonic() - began)
    if not events or events[-1] not in {"workflow_cancel", "agent_cancel"}:
        arena.miss("F25", f"{settled.name}: the stream ends with {events[-1:]}", settled.root)


def _has_stayed(arena: Arena, settled: Settled) -> None:
    """No row has changed since; one step at most began before its worker heard, and is not recorded."""
    if (now := _rows(arena, settled.root)) != settled.rows:
        changes = [(old, new) for old, new in zip(settled.rows, now, strict=False) if old != new]
        arena.miss("F25", f"{settled.name} went on: {changes or now}", settled.root)
    if _done(arena, settled.root) > settled.done + 1:
        arena.miss("F25", f"{settled.name} had more effects", settled.root)
    calls = [call for call in arena.model.calls if call.key.startswith(settled.root)]
    if len({call.key for call in calls}) != len(calls):
        arena.miss("F25", f"{settled.name} made a model call twice", settled.root)


def _rows(arena: Arena, root: str) -> Rows:
    runs = [run_record(row) for row in arena.read(READ_RUNS, root=root)]
    steps = [step_details(row) for row in arena.read(READ_STEPS, root=root)]
    return [
        {name: value for name, value in row.items() if not any(word in name for word in USED)}
        for row in (*runs, *steps)
    ]


def _done(arena: Arena, root: str) -> int:
    return sum(entry.phase == "start" for entry in arena.ledger.of(root))


class HeldModel:
    """Has a tool called, then answers; whom it is to stream to, it speaks to until they hang up."""

    def __init__(self, record: Recorder) -> None:
        self._record = record
        self._speaking = threading.Event()
        self.calls: list[Call] = []
        self.url = record.url
        record.answer = self._answer

    def begin(self) -> None:
        """Forget who has hung up."""
        self._record.hung_up.clear()
        self._speaking.clear()

    @property
    def speaks(self) -> bool:
        return self._speaking.is_set()

    @property
    def was_cut(self) -> bool:
        return self._record.hung_up.is_set()

    def _answer(self, seen: Seen) -> Answer:
        self.calls.append(Call(seen.headers.get("idempotency-key", ""), "anybody", time.time(), 200))
        if seen.body.get("stream"):
            return Answer(pieces=self._spoken())
        if seen.body["messages"][-1]["role"] == "tool":
            return Answer(chat_answer("It is charged"))
        function = {"name": "charge_held", "arguments": "{}"}
        return Answer(chat_answer(calls=[{"id": "call_1", "type": "function", "function": function}]))

    def _spoken(self) -> Iterator[bytes]:
        for word in SPOKEN:
            chunk = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            told = {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [chunk],
            }
            yield f"data: {json.dumps(told)}\n\n".encode()
        self._speaking.set()
        ends = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < ends:
            yield b": on\n\n"
            time.sleep(LOOK_AGAIN_SECONDS)


@contextmanager
def held_model(*, pace_seconds: float, address: str = "127.0.0.1") -> Iterator[HeldModel]:
    """Run the model while the context lasts; it has no pace."""
    with recorder(address) as record:
        yield HeldModel(record)
