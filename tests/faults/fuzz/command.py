"""What the command does for f36 beyond playing a scenario: many programs, and small ones that miss."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from arena import Arena, Plan, Report
from repertoire import SCENARIOS, Setting

from fuzz.programs import Program
from fuzz.promises import ProgramRun
from fuzz.scenario import run_programs
from fuzz.shrinking import shrunk, weight

WAVE_RUNS = 500  # on one database, broker and set of workers; the next ones get new ones
REPLAYED_COPIES = 40
SHRINKING_ROUNDS = 12


async def waves(setting: Setting, database: str, plan: Plan) -> AsyncIterator[Report]:
    """Play the wanted number of runs, some at a time; a program that misses is made smaller at the end."""
    left, seed = plan.runs, plan.seed
    while left > 0:
        wave = replace(plan, runs=min(left, WAVE_RUNS), seed=seed)
        report = await setting.play(SCENARIOS["f36"], database, wave)
        report.notes = {"seed": str(seed), **report.notes}
        yield report
        if programs := missed_programs(report):
            _write_down(programs, report)
            await shrink(setting, database, wave, programs[0], report)
        left, seed = left - wave.runs, seed + 1


async def replay(setting: Setting, database: str, plan: Plan, programs: Sequence[Program]) -> Report:
    """Run these programs and no others, each `copies` times."""

    async def play(arena: Arena) -> None:
        await run_programs(arena, list(programs))

    return await setting.play(replace(SCENARIOS["f36"], play=play), database, plan)


def missed_programs(report: Report) -> list[Program]:
    """Return the programs of a report whose runs missed something, the smallest first."""
    runs = {miss.run for miss in report.misses} & report.accepted.keys()
    found = {run.source for root in runs if isinstance(run := report.accepted[root], ProgramRun)}
    return sorted(found, key=weight)


def _write_down(programs: Sequence[Program], report: Report) -> None:
    assert report.dump is not None
    for number, program in enumerate(programs, 1):
        (report.dump / f"program-{number}.json").write_text(program.model_dump_json(indent=2) + "\n")


async def shrink(setting: Setting, database: str, plan: Plan, program: Program, report: Report) -> None:
    """Look for a small program that misses as this one did; write it beside the dump."""
    again = replace(plan, copies=REPLAYED_COPIES)

    async def missing(programs: Sequence[Program]) -> list[Program]:
        return missed_programs(await replay(setting, database, again, programs))

    small = program
    if await missing([program]):
        small = await shrunk(program, missing, rounds=SHRINKING_ROUNDS)
    assert report.dump is not None
    file = report.dump / "smallest.json"
    file.write_text(small.model_dump_json(indent=2) + "\n")
    print(f"the smallest program that was seen to miss is {file}; play it with --program", flush=True)
