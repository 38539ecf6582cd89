"""F36 itself: programs are run once without faults, then again and again under mixed ones."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from pathlib import Path

from arena import PATIENCE_SECONDS, Arena

from fuzz.judges import judged
from fuzz.mix import Mix, kinds_for
from fuzz.people import People, some_cancelled
from fuzz.programs import Program
from fuzz.promises import ProgramRun
from fuzz.recovery import recovery_notes
from fuzz.reference import reference_of
from fuzz.strategies import draw_programs

KEPT = Path(__file__).parents[1] / "programs"
CANCELLED_SHARE, FOLLOWED_EVERY = 0.08, 5
CANCELLED_WITHIN_SECONDS = 6.0


async def random_programs(arena: Arena) -> None:
    """Run programs that the seed draws, `copies` times each, and those that have once missed something."""
    kept = programs_in(KEPT)
    distinct = max(arena.plan.runs // arena.plan.copies - len(kept), 1)
    await run_programs(arena, [*kept, *draw_programs(distinct, arena.plan.seed)])


def programs_in(place: Path) -> list[Program]:
    """Read programs from a file, or from all files of a folder.

    Raises:
        ValueError: One of them holds no program.
    """
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    return [Program.model_validate_json(file.read_text()) for file in files]


async def run_programs(arena: Arena, programs: list[Program]) -> None:
    """Run these programs, once without faults and `copies` times with."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    kinds, mix = kinds_for(arena), Mix(arena, chance)
    os.mkdir(arena.environment["FAULT_LEDGER"])  # a file for each run
    async with People(arena) as people:
        arena.check = lambda evidence: judged(evidence, people.streams)
        await arena.hire(plan.workers)
        if not await _run_clean(arena, people, programs):
            return
        began = time.monotonic()
        async with mix.under_way(kinds):
            await _run_again(arena, people, programs, chance)
        await arena.all_ended()
        seconds = time.monotonic() - began
        await people.have_read()
    await arena.nobody_else_is_listed(arena.crew.living)
    counted = Counter(kind for kind, _ in mix.struck)
    arena.faults += sum(
        counted[kind] for kind in counted if kind not in {"kill", "stop"}
    )  # those are strikes
    arena.notes["programs"] = str(len(programs))
    arena.notes["runs/s"] = f"{plan.copies * len(programs) / seconds:.1f}"
    arena.notes["faults"] = " ".join(f"{kind}:{count}" for kind, count in sorted(counted.items()))
    arena.notes |= recovery_notes(arena, mix)


async def _run_clean(arena: Arena, people: People, programs: list[Program]) -> bool:
    """Run each program without a fault: what all others of it must look like. False if that goes wrong."""
    roots: dict[str, str] = {}
    for number, program in enumerate(programs):
        await _wait_for_room(arena)
        run = ProgramRun(program, reference_of(program))
        roots[run.program] = await people.start(run, f"clean-{number}")
    if not await arena.all_ended():
        arena.miss("clean", "runs do not end even without faults")
        return False
    evidence = arena.evidence()
    arena.references = {program: evidence.shape(root) for program, root in roots.items()}
    return not judged(arena.evidence(), {})


async def _run_again(arena: Arena, people: People, programs: list[Program], chance: random.Random) -> None:
    cancels = some_cancelled(chance, CANCELLED_SHARE, CANCELLED_WITHIN_SECONDS)
    numbers = itertools.count()
    references = {program: reference_of(program) for program in programs}
    for _ in range(arena.plan.copies):
        for program in programs:
            number = next(numbers)
            await _wait_for_room(arena)
            followed = number % FOLLOWED_EVERY == 0
            run = ProgramRun(program, references[program], next(cancels), followed)
            await people.start(run, f"run-{number}")


async def _wait_for_room(arena: Arena) -> None:
    while arena.unended >= arena.plan.at_once:
        await arena.until(lambda: arena.unended < arena.plan.at_once, PATIENCE_SECONDS, "runs do not end")
        await asyncio.sleep(0)
