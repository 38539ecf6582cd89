"""F32: schedules with missed ticks and events that start runs, served by workers that are killed."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from arena import PATIENCE_SECONDS, Arena
from orders import Beside, Order, Series
from promises import Wanted
from sqlalchemy import and_, bindparam, func, or_, select, update

from polos.events import EventData, batch_publish
from polos.journal.runs import RUNS, R, run_record
from polos.journal.schedules import SCHEDULES, S
from polos.journal.statements import Part, Statement, Unit
from polos.journal.workers import READ_CLOCK

SETTINGS = {"POLOS_IMPORTS": "week_program,tick_program", "POLOS_MAX_CRASHES": "1000"}
TOPIC = "faults/started"
SCHEDULE_COUNT = 8
MINUTE_SECONDS = 60.0
BETWEEN_KILLS_SECONDS = (2.0, 5.0)
_MISS = Statement(update(SCHEDULES).where(S.id == bindparam("id")).values(next_at=bindparam("at")))
_are_started = and_(R.parent_id.is_(None), or_(R.name == "tick", R.name == "started-by-event"))
_STARTED = Statement(select(*RUNS.c).where(_are_started).order_by(R.id))
_COUNT = Statement(select(func.count()).where(_are_started, R.finished_at.is_not(None)))


@dataclass(frozen=True)
class Started(Wanted):
    """A run that a tick or an event has started: one side effect."""

    @property
    def effect(self) -> str:
        return "tick" if self.program == "tick" else "started"

    @property
    def order(self) -> Order:
        return Beside([Series([self.effect])])

    def accepts(self, output: Any) -> bool:
        return bool(output == self.effect)


async def missed_ticks(arena: Arena) -> None:
    """Have each schedule lag behind by many ticks, publish events, kill workers: each starts one run."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    await arena.hire(plan.workers)
    ticks = plan.runs // 2 // SCHEDULE_COUNT
    schedules = [
        await arena.client.schedules.create("tick", "* * * * *", key=f"{number}", catch_up="all")
        for number in range(SCHEDULE_COUNT)
    ]
    due = _miss(arena, schedules, ticks)
    publishing = asyncio.create_task(_publish(arena, plan.runs // 2, chance))
    while (ended := int(arena.read(_COUNT)[0][0])) < SCHEDULE_COUNT * ticks + plan.runs // 2:
        before = ended
        await asyncio.sleep(chance.uniform(*BETWEEN_KILLS_SECONDS))
        arena.crew.kill(chance.choice(arena.crew.living))
        await arena.hire()
        await arena.until(
            lambda before=before: int(arena.read(_COUNT)[0][0]) > before,
            PATIENCE_SECONDS,
            "nothing more ends",
        )
    await publishing
    await arena.all_ended()
    runs = [run_record(row) for row in arena.read(_STARTED)]
    arena.accepted |= {run["id"]: Started(run["name"], place) for place, run in enumerate(runs)}
    for miss in judged(runs, due, plan.runs // 2):
        arena.miss("F32", miss)
    arena.notes["started"] = (
        f"{len(runs)} by {ticks} ticks of {SCHEDULE_COUNT} schedules and {plan.runs // 2} events"
    )


def _miss(arena: Arena, schedules: list[str], ticks: int) -> dict[str, list[float]]:
    """Move each schedule back by so many minutes; return the ticks that are due by the id of each."""
    now = float(arena.read(READ_CLOCK)[0][0])
    first = now - now % MINUTE_SECONDS - (ticks - 1) * MINUTE_SECONDS
    journal = arena.database.connect()
    try:
        for schedule in schedules:
            journal.commit([Unit((Part(_MISS, {"id": schedule, "at": first}),), ())])
    finally:
        journal.close()
    return {schedule: [first + place * MINUTE_SECONDS for place in range(ticks)] for schedule in schedules}


async def _publish(arena: Arena, number: int, chance: random.Random) -> None:
    for place in range(number):
        await batch_publish(arena.client, TOPIC, [EventData(data={"number": place})])
        await asyncio.sleep(chance.choice((0.0, 0.05, 0.2)))


def judged(runs: list[dict[str, Any]], due: dict[str, list[float]], events: int) -> Iterator[str]:
    """Say which tick or event did not start exactly one run that came to its end.

    Ticks that came due meanwhile may have started runs too, each one.
    """
    if unwell := [run["id"] for run in runs if run["status"] != "completed"]:
        yield f"{unwell} did not complete"
    ticks = Counter((run["schedule_id"], _tick(run)) for run in runs if run["schedule_id"])
    for schedule, moments in due.items():
        if lacking := [moment for moment in moments if ticks[schedule, moment] == 0]:
            yield f"schedule {schedule} lacks {len(lacking)} ticks, the first of {lacking[0]}"
    started = Counter(_number(run) for run in runs if not run["schedule_id"])
    if lacking_events := sorted(set(range(events)) - set(started)):
        yield f"events {lacking_events[:10]} started nothing"
    for what, count in (ticks + started).items():
        if count > 1:
            yield f"{what} started {count} runs"


def _tick(run: dict[str, Any]) -> float:
    return datetime.fromisoformat(json.loads(run["input"])["timestamp"]).timestamp()


def _number(run: dict[str, Any]) -> int:
    return int(json.loads(run["input"])["data"]["number"])
