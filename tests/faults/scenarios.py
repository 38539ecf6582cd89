"""The faults of a normal week, one function each: what happens to whom while runs are under way."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from arena import BOOT_SECONDS, LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, Arena
from crew import name_of
from echo import echoing
from processes import Worker
from sqlalchemy import select
from week_program import MIXED

from polos.journal.runs import RUNS, R
from polos.journal.statements import Statement
from polos.journal.steps import STEPS, S

MOSTLY_PLAIN = ("week-plain",) * 10 + MIXED
DRAIN_SECONDS = 60.0
LOCKED_SECONDS = 30.0  # to start a run; then somebody who was stopped has SQLite's only lock
EXIT_SECONDS = DRAIN_SECONDS + 15.0  # what Celery itself needs on a loaded machine
FIRES_SECONDS = 60.0  # the promise is 5, of workers that are up; this is with the start, on a loaded machine
_CLAIMS = Statement(select(R.id, R.attempt, R.wakes))
_TURN_CLAIMS = Statement(select(S.run_id, S.name, S.attempt).where(S.kind == "turn"))
_STARTS = Statement(select(R.started_at).where(R.started_at.is_not(None)))
_PAUSED_RUNS = Statement(select(R.id, R.not_before, R.retries).where(R.not_before.is_not(None)))
_SLEEPING = Statement(
    select(S.run_id, S.ring_at)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(S.kind == "timer", S.seq.is_(None), R.owner.is_(None))
)
_PAUSED_TURNS = Statement(select(S.run_id, S.not_before).where(S.not_before.is_not(None)))


# -- F2: one worker after the other is killed


async def kill_loop(arena: Arena) -> None:
    """Kill a random worker and replace it, again and again, while mixed runs are under way."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    await arena.hire(plan.workers)
    ends = time.monotonic() + plan.seconds
    async with arena.load(MIXED):
        while time.monotonic() < ends:
            await asyncio.sleep(chance.uniform(0.3, 1.0) * min(plan.seconds / 3, 6.0))
            arena.crew.kill(chance.choice(arena.crew.living))
            await arena.hire()
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    note_longest_standstill(arena)


def note_longest_standstill(arena: Arena) -> None:
    """Take note of the longest time in which no side effect was begun."""
    times = sorted(entry.at for entry in arena.evidence().ledger)
    gaps = [after - before for before, after in pairwise(times)]
    arena.notes["longest standstill"] = f"{max(gaps, default=0.0):.1f} s"


# -- F4: a deployment


async def rolling_restart(arena: Arena) -> None:
    """Replace every worker under load, each asked to end once its successor is there."""
    plan = arena.plan
    crew = await arena.hire(plan.workers)
    began = time.monotonic()
    async with arena.load(MIXED):
        while time.monotonic() - began < plan.seconds or any(worker.lives for worker in crew):
            [successor] = await arena.hire()
            await _dismissed(arena, crew.pop(0))
            crew.append(successor)
            if arena.faults >= plan.workers and time.monotonic() - began >= plan.seconds:
                break
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    _nothing_waited_for_a_verdict(arena)


async def _dismissed(arena: Arena, worker: Worker) -> None:
    began = time.monotonic()
    arena.crew.dismiss(worker)
    arena.faults += 1
    code = await arena.exited(worker, EXIT_SECONDS)
    took = time.monotonic() - began
    longest = max(took, float(arena.notes.get("slowest exit", "0 s").split()[0]))
    arena.notes["slowest exit"] = f"{longest:.1f} s"
    if code != 0:
        arena.miss("exit", f"{worker.name} ended with {code} after {took:.1f} s")


def _nothing_waited_for_a_verdict(arena: Arena) -> None:
    """Whoever is asked to end hands its runs back: no sweeper finds any of them."""
    for worker, log in arena.crew.logs():
        for line in log.splitlines():
            if " is dead: silent" in line or "Put back" in line:
                arena.miss("handed over", f"{worker.name} says: {line}")
    if repeated := arena.evidence().calls_repeated:
        arena.miss("O7", f"{repeated} model calls were repeated though every worker was given time")


# -- F6: the broker forgets everything


async def flush(arena: Arena) -> None:
    """Empty the broker while most runs are still to be begun."""
    plan = arena.plan
    await arena.hire(plan.workers)
    roots = await arena.start_many(MOSTLY_PLAIN, plan.runs)
    in_flight, flushed_at = arena.unended, time.time()
    lost = await asyncio.to_thread(arena.broker.forget)
    arena.faults += 1
    await arena.all_ended()
    ends = [run["finished_at"] for run in arena.evidence().runs if run["finished_at"]]
    arena.notes["in flight"] = f"{in_flight} of {len(roots)}"
    arena.notes["messages lost"] = str(lost)
    arena.notes["standstill"] = f"{_standstill_after(arena, flushed_at):.1f} s"
    arena.notes["all done after"] = f"{max(ends) - flushed_at:.1f} s"
    settings = arena.client.settings
    limit = settings.ring_again_seconds + 2 * settings.sweep_seconds + 10.0
    if not lost:
        arena.miss("O8", "no message was lost: the scenario is too small")
    if _standstill_after(arena, flushed_at) > limit:
        arena.miss("delay", f"no run was begun for more than {limit:.1f} s")


def _standstill_after(arena: Arena, moment: float) -> float:
    """Return the longest time after `moment` in which no run was begun, while some were to be."""
    times = [moment, *sorted(row[0] for row in arena.read(_STARTS) if row[0] > moment)]
    return max((after - before for before, after in pairwise(times)), default=0.0)


# -- F9: the database restarts


async def database_restarts(arena: Arena) -> None:
    """Restart PostgreSQL again and again, gently and not, while workers are killed too."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    await arena.hire(plan.workers)
    ends = time.monotonic() + plan.seconds
    modes = ["immediate", "fast"]
    server = arena.site.server
    assert server is not None
    async with arena.load(MIXED):
        while time.monotonic() < ends:
            arena.disconnect()
            await asyncio.to_thread(server.restart, modes[0])
            modes.reverse()
            arena.faults += 1
            await asyncio.sleep(chance.uniform(0.1, 0.4) * min(plan.seconds / 2, 20.0))
            if arena.faults % 2 == 1:
                arena.crew.kill(chance.choice(arena.crew.living))
                await arena.hire()
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    only_the_struck_are_dead(arena)


def only_the_struck_are_dead(arena: Arena) -> None:
    for worker, log in arena.crew.logs():
        for hostname in re.findall(r"Worker (\S+) \(\w+\) is dead", log):
            if hostname.partition("@")[0] not in arena.crew.struck:
                arena.miss("alive", f"{worker.name} took the living {hostname} for dead")


# -- F11: every message three times


async def every_message_thrice(arena: Arena) -> None:
    """Deliver each message again, twice, late and in any order: each run and turn is claimed once."""
    plan = arena.plan
    await arena.hire(plan.workers)
    with echoing(arena.broker.redis.port, late_seconds=plan.seconds, seed=plan.seed) as echo:
        await arena.start_many(MIXED, plan.runs)
        await arena.all_ended()
        await arena.until(lambda: not echo.waiting, plan.seconds + BOOT_SECONDS, "copies are left")
        arena.faults += echo.copied
    attempts = claimed_once(arena)
    await _all_copies_are_refused(arena, claimed_again=sum(each - 1 for each in attempts))


def claimed_once(arena: Arena) -> list[int]:
    """See that each run and turn was claimed once, and once more at most for each wake; return how often."""
    claims = [(row[0], row[1], row[2]) for row in arena.read(_CLAIMS)]
    claims += [(f"{row[0]} {row[1]}", row[2], 0) for row in arena.read(_TURN_CLAIMS)]
    for what, attempts, wakes in claims:
        if not 1 <= attempts <= 1 + wakes:  # what was parked is claimed again once it is woken
            arena.miss("claims", f"{what} was claimed {attempts} times and woken {wakes} times")
    return [attempts for _, attempts, _ in claims]


async def _all_copies_are_refused(arena: Arena, *, claimed_again: int) -> None:
    """Await it; a copy of a run's first doorbell may be what claims it again once it was woken."""
    wanted = arena.faults - claimed_again

    def refusals() -> list[float]:
        text = "".join(log for _, log in arena.crew.logs())
        return [float(seconds) for seconds in re.findall(r"succeeded in ([\d.e-]+)s: 'held elsewhere'", text)]

    try:
        await arena.until(lambda: len(refusals()) >= wanted, PATIENCE_SECONDS, "copies were not refused")
    except TimeoutError:
        arena.miss("refused", f"{len(refusals())} of {wanted} copies")
    times = sorted(refusals())
    if times:
        middle, last = times[len(times) // 2], times[-1]
        arena.notes["refused after"] = f"{middle * 1000:.0f} ms, at most {last * 1000:.0f} ms"


# -- F12: the dead come back


ZOMBIES = {"step second": "week-plain", "tool charge": "week-clerk", "turn week-clerk": "week-clerk"}


async def zombies(arena: Arena) -> None:
    """Freeze workers between work and record until others have done it, then let them go on."""
    programs = sorted(set(ZOMBIES.values()))
    frozen = await _frozen(arena, programs)
    while not frozen:
        frozen = await _frozen(arena, programs)
    await arena.hire()
    await arena.all_ended()
    await arena.nobody_else_is_listed(set(arena.crew.living) - set(frozen))
    before = arena.evidence()
    for worker in frozen:
        arena.crew.thaw(worker)
    for worker in frozen:
        await _says_so(arena, worker)
        await arena.registered(worker)  # under a new id: its row had been removed
    after = arena.evidence()
    if changes := [*_changes(before.runs, after.runs), *_changes(before.steps, after.steps)]:
        arena.miss("O2", f"what a worker wrote that had been declared dead changed the journal: {changes}")
    await asyncio.gather(*(_leaves(arena, worker) for worker in set(arena.crew.living) - set(frozen)))
    await arena.start_many(programs, 2 * len(programs))  # for those that came back
    await arena.all_ended()
    await _let_zombies_show_that_they_work(arena, frozen)


def _changes(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    """Say which columns of which rows differ."""
    if len(before) != len(after):
        yield f"{len(before)} rows became {len(after)}"
    for old, new in zip(before, after, strict=False):
        columns = {name: (old[name], new[name]) for name in old if old[name] != new[name]}
        if columns:
            yield f"{old['name']}: {columns}"


async def _frozen(arena: Arena, programs: list[str]) -> list[Worker]:
    """Start one worker for each fault point, and runs until all of them stand still.

    None of them, if one was stopped in the middle of a commit: no SQLite survives that, so they are killed.
    """
    markers = {match: arena.folder / f"{match.replace(' ', '-')}.struck" for match in ZOMBIES}
    for marker in markers.values():
        marker.unlink(missing_ok=True)
    doomed = {
        match: arena.crew.hire(POLOS_FAULT=f"after_execute:stop:1:{match}", POLOS_FAULT_FILE=str(marker))
        for match, marker in markers.items()
    }
    for worker in doomed.values():
        await arena.serving(worker)
    while waiting := [match for match, marker in markers.items() if not marker.exists()]:
        try:
            async with asyncio.timeout(LOCKED_SECONDS):
                await arena.start_many(programs, len(programs))
        except TimeoutError:
            break
        with contextlib.suppress(TimeoutError):  # they may have got other work: more runs, then
            await arena.until(lambda: all(markers[match].exists() for match in waiting), 1.0, "not yet")
    if waiting or not await arena.is_writable():
        for worker in doomed.values():
            arena.crew.kill(worker)
        return []
    for match, worker in doomed.items():
        await arena.until(lambda: _is_stopped(worker), BOOT_SECONDS, f"{worker.name} is not stopped")  # noqa: B023
        arena.crew.froze_itself(worker, markers[match].stat().st_mtime)
    return list(doomed.values())


def _is_stopped(worker: Worker) -> bool:
    return "State:\tT" in Path(f"/proc/{worker.pid}/status").read_text()


async def _leaves(arena: Arena, worker: Worker) -> None:
    arena.crew.dismiss(worker)
    await arena.exited(worker, EXIT_SECONDS)


async def _says_so(arena: Arena, worker: Worker) -> None:
    await arena.until(
        lambda: "was declared dead; it goes on under a new id" in worker.log.read_text(),
        BOOT_SECONDS,
        f"{worker.name} does not say that it was declared dead",
    )


async def _let_zombies_show_that_they_work(arena: Arena, frozen: list[Worker]) -> None:
    worked = {entry.worker for entry in arena.evidence().ledger[-6:]}
    if not worked <= {name_of(worker) for worker in frozen}:
        arena.miss("alive", f"{worked} worked at last")


# -- F14: code that blocks the event loop


async def blocked_loop(arena: Arena) -> None:
    """Block the loop of one worker for longer than the silence limit: nobody takes it for dead."""
    await arena.hire(arena.plan.workers)
    await arena.start("week-blocked")
    async with arena.load(MIXED):
        await arena.until(lambda: "nap" in _begun(arena), BOOT_SECONDS, "the loop is not blocked")
        arena.faults += 1
        await arena.until(lambda: arena.unended == 0, arena.plan.seconds + PATIENCE_SECONDS, "runs go on")
    await arena.all_ended()
    only_the_struck_are_dead(arena)
    times = {entry.phase: entry.at for entry in arena.evidence().ledger if entry.name == "nap"}
    arena.notes["blocked for"] = f"{times['end'] - times['start']:.1f} s"
    warned = [worker.name for worker, log in arena.crew.logs() if "The event loop has been blocked" in log]
    arena.notes["warned"] = ", ".join(warned)
    if len(warned) != 1:
        arena.miss("warned", f"{warned} say that their loop was blocked")


def _begun(arena: Arena) -> set[str]:
    return {entry.name for entry in arena.evidence().ledger}


# -- F16: pauses while nobody is there


async def pauses_across_downtime(arena: Arena) -> None:
    """Kill every worker while runs sleep and pause, and turns: each goes on once, soon after a start."""
    arena.model.pause_seconds = arena.plan.seconds
    [worker] = await arena.hire()
    paused = await _all_paused(arena)
    arena.crew.kill(worker)
    pauses = [*arena.read(_PAUSED_RUNS), *arena.read(_PAUSED_TURNS), *arena.read(_SLEEPING)]
    until = {row[0]: row[1] for row in pauses}
    await arena.until(lambda: time.time() > max(until.values()), BOOT_SECONDS, "the pauses do not end")
    hired_at = time.time()
    await arena.hire(arena.plan.workers)
    await arena.all_ended()
    _fired_once(arena, {run: until[run] for run in paused}, hired_at)


async def _all_paused(arena: Arena) -> list[str]:
    """Start runs until a set of them is in a pause at the same time; a loaded machine may miss one."""
    while True:
        runs = [
            await arena.start(program)
            for program in ["week-flaky"] + arena.plan.runs * ["week-patient", "week-sleeper"]
        ]
        ends = time.monotonic() + arena.plan.seconds
        while time.monotonic() < ends:
            if _are_paused(arena, runs):
                return runs
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _are_paused(arena: Arena, runs: list[str]) -> bool:
    """Whether the first has failed twice, and all others wait for their second call or sleep, parked."""
    failed = {row[0]: row[2] for row in arena.read(_PAUSED_RUNS)}
    others = {row[0] for row in [*arena.read(_PAUSED_TURNS), *arena.read(_SLEEPING)]}
    return failed.get(runs[0]) == 2 and set(runs[1:]) <= others


def _fired_once(arena: Arena, until: dict[str, float], hired_at: float) -> None:
    evidence = arena.evidence()
    fired = {call.key.partition(":")[0]: call.began_at for call in evidence.calls if call.status == 200}
    fired |= {run: entries[-1].at for run, entries in evidence.entries.items() if entries[-1].name == "try"}
    fired |= {
        run: entry.at
        for run, entries in evidence.entries.items()
        for entry in entries
        if (entry.name, entry.phase) == ("woke", "start")
    }
    late = {run: fired.get(run, 0.0) - hired_at for run in until}
    arena.notes["fired after start"] = f"{max(late.values()):.1f} s"
    for run, moment in until.items():
        if fired.get(run, 0.0) < moment:
            arena.miss("timer", f"fired {moment - fired.get(run, 0.0):.2f} s early", run)
        elif late[run] > FIRES_SECONDS:
            arena.miss("timer", f"fired {late[run]:.1f} s after the start of workers", run)
