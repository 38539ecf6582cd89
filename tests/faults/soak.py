"""F37: hours of ordinary work, or ten minutes of it: nothing grows."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from arena import Arena
from processes import Worker
from sqlalchemy import func, select
from week_program import AGENTS, MIXED, expected_output

from polos.journal.runs import RUNS, R
from polos.journal.statements import Statement
from polos.journal.steps import STEPS

KEPT_SECONDS = 60.0
SETTINGS = {"POLOS_RETENTION_DAYS": f"{KEPT_SECONDS / 86400:.6f}"}
EVERY_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 0.2
ENDED = {"completed", "failed", "cancelled", "blocked"}
RETENTION_SECONDS = 90.0  # sweepers look once a minute
MEGABYTE = 1 << 20
GROWTH_MEGABYTES = 8.0  # of one process, from the second to the last third: caches are full by then
DESCRIPTORS = 8
COUNTS = Statement(
    select(
        select(func.count()).select_from(RUNS).scalar_subquery(),
        select(func.count()).select_from(STEPS).scalar_subquery(),
        select(func.min(R.finished_at)).scalar_subquery(),
    )
)


@dataclass(frozen=True)
class Sample:
    """What a process and the journal hold at one moment."""

    at: float
    resident: dict[str, float]  # megabytes, by worker
    threads: dict[str, int]
    descriptors: dict[str, int]
    rows: tuple[int, int]
    oldest: float  # seconds since the end of the run that ended first


async def soak(arena: Arena) -> None:
    """Keep `at_once` runs going, one after the other, and watch what grows."""
    workers = await arena.hire(arena.plan.workers)
    ends, latencies, samples = time.monotonic() + arena.plan.seconds, [], []
    numbers = itertools.count(1)
    feeders = [asyncio.create_task(_feed(arena, numbers, ends, latencies)) for _ in range(arena.plan.at_once)]
    while time.monotonic() < ends:
        await asyncio.sleep(EVERY_SECONDS)
        samples.append(_sample(arena, workers))
    await asyncio.gather(*feeders)
    await arena.start_many(MIXED, len(MIXED))
    await arena.all_ended()
    arena.faults += 1  # time
    _report(arena, samples, latencies)


async def _feed(
    arena: Arena, numbers: itertools.count[int], ends: float, latencies: list[tuple[float, float]]
) -> None:
    while time.monotonic() < ends:
        number = next(numbers)
        program, began = MIXED[number % len(MIXED)], time.monotonic()
        is_agent = program in AGENTS
        payload = {"input": f"Order {number}", "streaming": False} if is_agent else {"number": number}
        handle = await arena.client.invoke(program, payload)
        while (record := await arena.client.get_execution(handle.id))["status"] not in ENDED:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        given = record["result"]
        if (given["result"] if is_agent and given else given) != expected_output(program, number):
            arena.miss(
                "O2", f"{program} {number} is {record['status']}: {given!r} {record['error']}", handle.id
            )
        latencies.append((time.monotonic(), time.monotonic() - began))


def _sample(arena: Arena, workers: list[Worker]) -> Sample:
    [(runs, steps, oldest)] = arena.read(COUNTS)
    status = {worker.name: Path(f"/proc/{worker.pid}/status").read_text() for worker in workers}
    return Sample(
        time.monotonic(),
        {name: _field(text, "VmRSS:") / 1024 for name, text in status.items()},
        {name: _field(text, "Threads:") for name, text in status.items()},
        {worker.name: len(list(Path(f"/proc/{worker.pid}/fd").iterdir())) for worker in workers},
        (runs, steps),
        time.time() - oldest if oldest else 0.0,
    )


def _field(status: str, name: str) -> int:
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name)))


def _report(arena: Arena, samples: list[Sample], latencies: list[tuple[float, float]]) -> None:
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    hours = (last[-1].at - middle[0].at) / 2 / 3600
    for name in last[-1].resident:
        before, after = (min(sample.resident[name] for sample in part) for part in (middle, last))
        arena.notes[f"{name.partition('-')[0]} MB"] = f"{after:.0f} ({(after - before) / hours:+.1f}/h)"
        if after - before > GROWTH_MEGABYTES:
            arena.miss("F37", f"{name} grew from {before:.1f} to {after:.1f} MB")
        for what in ("threads", "descriptors"):
            least = [min(getattr(sample, what)[name] for sample in part) for part in (middle, last)]
            if least[1] > least[0] + DESCRIPTORS:
                arena.miss("F37", f"{name} had {least[0]} {what}, then {least[1]}")
    arena.notes["rows"] = (
        f"{max(sample.rows[0] for sample in last)} runs, {max(s.rows[1] for s in last)} steps"
    )
    arena.notes["oldest"] = f"{max(sample.oldest for sample in last):.0f} s"
    if max(sample.oldest for sample in last) > KEPT_SECONDS + RETENTION_SECONDS + 60.0:
        arena.miss("F37", "ended runs are kept for longer than retention says")
    halves = latencies[: len(latencies) // 2], latencies[len(latencies) // 2 :]
    p99 = [sorted(took for _, took in half)[int(len(half) * 0.99)] for half in halves]
    arena.notes["p99"] = f"{p99[0]:.2f} then {p99[1]:.2f} s"
    arena.notes["ended"] = str(len(latencies))
