"""W16: a run of 10,000 recorded steps is replayed: they are read and answered, none is executed."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.counts import Meter
from benchmarks.floors.journal import create, open_journal
from benchmarks.ledger import ENGINE
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import NOTHING, SlowSteps, refused_steps
from benchmarks.waiting import connection
from polos import PolosClient

NAME = "w16"
TITLE = "a run of 10,000 recorded steps is replayed"
GOALS = {
    "seconds": Goal(1.0, 1.0, less=True),
    "in_code_seconds": Goal(None, None, less=True),
}
FLOOR = "read and parse the rows"
RECORDED = "SELECT name, seq, output FROM step WHERE run_id = '{}' ORDER BY seq"


async def run(bench: Bench) -> list[Result]:
    """Measure a retry of a run whose last step fails always, at the client and in the run's own code."""
    steps = bench.size(10_000, 500)
    async with bench.polos(workers=1) as (client, meter):
        results = [await _measured(bench, client, meter, count) for count in (steps // 10, steps)]
    curve = [(float(result.units), _median(result.polos)) for result in results]
    floor = [(float(result.units), _median(result.floors[FLOOR])) for result in results]
    results[-1].axis = "recorded steps"
    results[-1].curves = {"seconds, polos": curve, f"seconds, {FLOOR}": floor}
    return results


async def _measured(bench: Bench, client: PolosClient, meter: Meter, steps: int) -> Result:
    variant = f"{steps} steps"
    result = Result(NAME, variant, bench.site.database, bench.quick, "step", steps, GOALS)
    log = bench.site.folder / f"{uuid.uuid4().hex}.log"
    handle = await client.invoke(
        refused_steps.id, SlowSteps(count=steps, seconds=0, log=str(log)), run_timeout_seconds=3600
    )
    await _failed(client, handle.id)
    recorded = await asyncio.to_thread(_record, bench.site.floor_url, steps)

    async def ours() -> Figures:
        began = time.perf_counter()
        await client.retry(handle.id)
        await _failed(client, handle.id)
        return {"seconds": time.perf_counter() - began, "in_code_seconds": _in_code(log)}

    async def floor() -> Figures:
        seconds = await asyncio.to_thread(_read, bench.site.floor_url, recorded, steps)
        return {"seconds": seconds}

    await measure(bench, result, meter, ours, {FLOOR: floor})
    result.notes = {"journal_reads": result.counts[f"{ENGINE}:steps.read_steps"] / len(result.polos)}
    return result


async def _failed(client: PolosClient, run: str) -> None:
    record: dict[str, Any] = await client.wait(run)
    if record["status"] != "failed":
        raise RuntimeError(f"The run should have failed at its last step, and is {record['status']}")


def _in_code(log: Path) -> float:
    """Return the seconds between the first line of the run's code and the last recorded step."""
    before, after = (float(line.split()[2]) for line in log.read_text().splitlines()[-2:])
    return after - before


def _record(url: str, steps: int) -> str:
    recorded = uuid.uuid4().hex
    output = json.dumps(NOTHING)
    with closing(open_journal(url)) as journal:
        journal.commit(create(recorded))
        journal.commit([("UPDATE run SET attempt = 1, status = 'running' WHERE id = ?", (recorded,))])
        for start in range(0, steps, 500):
            names = (f"step{number}" for number in range(start, min(start + 500, steps)))
            journal.commit(*(journal.step(recorded, name, output) for name in names))
    return recorded


def _read(url: str, recorded: str, steps: int) -> float:
    began = time.perf_counter()
    with connection(url) as driver:
        rows = driver.execute(RECORDED.format(recorded)).fetchall()
    outcomes = {name: json.loads(output) for name, _, output in rows}
    assert len(outcomes) == steps
    return time.perf_counter() - began


def _median(found: list[Figures]) -> float:
    return statistics.median(figures["seconds"] for figures in found)
