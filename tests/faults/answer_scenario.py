"""F17: questions are answered several times at once, while no worker lives."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from arena import PATIENCE_SECONDS, Arena
from orders import Beside, Order, Series
from promises import Wanted
from sqlalchemy import func, select

from polos.journal.events import E
from polos.journal.statements import Statement
from polos.journal.steps import S

SETTINGS = {"POLOS_IMPORTS": "week_program,answer_program"}
PROGRAM = "asks-between"
ANSWERERS = ("first", "second", "third")
_ASKED = Statement(select(func.count()).where(S.kind == "suspend", S.seq.is_(None)))
_ANSWERS = Statement(
    select(E.run_id, func.count()).where(E.type == "resume_approve").group_by(E.run_id).order_by(E.run_id)
)


@dataclass(frozen=True)
class Asking(Wanted):
    """A run that comes to the name of one who answered it."""

    @property
    def order(self) -> Order:
        return Beside([Series(["before", "after"])])

    def accepts(self, output: Any) -> bool:
        return output in ANSWERERS


async def answers_while_down(arena: Arena) -> None:
    """Kill all workers while runs wait, answer each three times at once, and go on: one answer counts."""
    chance = random.Random(arena.plan.seed)
    crew = await arena.hire(arena.plan.workers)
    runs = [
        await arena.accept(PROGRAM, {"number": number}, f"{PROGRAM}-{number}", Asking(PROGRAM, number))
        for number in range(arena.plan.runs)
    ]
    await arena.until(lambda: arena.read(_ASKED)[0][0] == len(runs), PATIENCE_SECONDS, "not all have asked")
    for worker in crew:
        arena.crew.kill(worker)
    answers = [(run, name) for run in runs for name in ANSWERERS]
    chance.shuffle(answers)
    await asyncio.gather(
        *(arena.client.resume(PROGRAM, run, "approve", {"by": name}) for run, name in answers)
    )
    told = {row[0]: row[1] for row in arena.read(_ANSWERS)}
    if wrong := {run: told.get(run, 0) for run in runs if told.get(run) != 1}:
        arena.miss("F17", f"runs have another number of answers than one: {wrong}")
    await arena.hire(arena.plan.workers)
    await arena.all_ended()
    arena.notes["answers"] = f"{len(answers)} to {len(runs)} questions"
