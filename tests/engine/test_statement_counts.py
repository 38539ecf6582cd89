"""How many commits, statements and reads a unit of work takes: whatever the machine. A commit is one trip."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fleet import PATIENCE_SECONDS, SETTINGS, TERMINAL, Fleet, Worker
from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow
from polos.agents.turn import execute_turn
from polos.dispatch import Doorbell
from polos.engine.runtime import NoSlot
from polos.engine.tasks import start_apart
from polos.journal.database import Database
from polos.journal.memory import READ_WATERMARK
from polos.journal.runs import READ_RUN_AND_CLOCK
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.steps import READ_NEWS
from polos.journal.turns import READ_TURNS
from polos.testing import ScriptedModel, tool_call

STEPS = 10
CHILDREN = 5
ASK = '{"input":"go"}'
ONCE = replace(SETTINGS, ring_again_seconds=60.0)  # nothing is rung twice


@dataclass
class Counts:
    """What a worker asked of its database."""

    commits: int = 0
    statements: int = 0
    reads: Counter[Statement] = field(default_factory=Counter)


class CountedFleet(Fleet):
    """One worker, which makes model calls too; what it asks of its database is counted."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, ONCE)
        self.counts = Counts()
        self._count(self.hire(slots=CHILDREN + 1))

    def answer(self, *script: Any) -> None:
        """Let the model answer so."""
        self.workers[0].runtime.models = ScriptedModel(script)

    def _count(self, worker: Worker) -> None:
        counts, backend = self.counts, worker.backend
        commit, read = backend.commit, backend.read

        async def counted_commit(units: Sequence[Unit]) -> list[Rows]:
            counts.commits += 1
            counts.statements += sum(len(unit.for_dialect(self.database.dialect)[0]) for unit in units)
            return await commit(units)

        async def counted_read(statement: Statement, params: Params) -> Rows:
            counts.reads[statement] += 1
            return await read(statement, params)

        backend.commit, backend.read = counted_commit, counted_read

    def ring(self, *doorbells: Doorbell) -> None:
        super().ring(*doorbells)
        for bell in doorbells:
            if bell.step is not None:
                runtime = self.workers[0].runtime
                self.workers[0].tasks.add(
                    start_apart(execute_turn(runtime, bell.run_id, bell.step, NoSlot()))
                )

    async def completed(self, name: str, payload: str | None = None, **values: Any) -> Counts:
        """Run it; return what all of it took, from its claim to its end."""
        run_id = self.create(name, payload, **values)
        self.ring(Doorbell(run_id, name, "polos", "default"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (run := self.record(run_id))["status"] not in TERMINAL:
                await asyncio.sleep(0.002)
        assert run["status"] == "completed", run["error"]
        return self.counts


@pytest.fixture
async def counted(database: Database) -> AsyncIterator[CountedFleet]:
    running = CountedFleet(database)
    yield running
    await running.close()


def each(database: Database, *, sqlite: int, postgresql: int) -> int:
    return sqlite if database.is_sqlite else postgresql


def turns(database: Database, count: int) -> int:
    return count * each(database, sqlite=2 + 1 + 2, postgresql=3)


def agent_alone(database: Database) -> int:
    """Statements of its claim, of the step that loads its session, and of its end, which remembers."""
    return 1 + each(database, sqlite=2, postgresql=1) + 3


async def nothing() -> None:
    return None


@workflow(id="counts-steps")
async def steps(ctx: WorkflowContext) -> None:
    for number in range(STEPS):
        await ctx.step.run(f"step {number}", nothing)


@workflow(id="counts-child")
async def child(ctx: WorkflowContext) -> None:
    return None


@workflow(id="counts-parent")
async def parent(ctx: WorkflowContext) -> None:
    await ctx.step.invoke_and_wait("child", child)


class Query(BaseModel):
    number: int


@tool(id="counts-look-up")
async def look_up(ctx: WorkflowContext, input: Query) -> str:
    return "found"


agent = Agent(id="counts-agent", provider="openai", model="gpt-4o", tools=[look_up])


async def test_a_lone_step_is_one_commit_and_reads_nothing(counted: CountedFleet) -> None:
    """Beside them the run is claimed and ended. A first attempt reads no journal."""
    counts = await counted.completed("counts-steps")
    assert counts.commits == STEPS + 2
    assert counts.statements == each(counted.database, sqlite=2, postgresql=1) * STEPS + 2
    assert not counts.reads


async def test_a_child_is_three_commits_and_one_read(counted: CountedFleet) -> None:
    """Created, claimed, ended; its parent reads that once. A tool call is the same."""
    counts = await counted.completed("counts-parent")
    assert counts.commits == 3 + 2
    assert counts.statements == each(counted.database, sqlite=3, postgresql=1) + 1 + 4 + 2
    assert counts.reads == {READ_NEWS: 1}


async def test_a_turn_is_three_commits(counted: CountedFleet) -> None:
    """Scheduled, claimed, ended; whoever executes it reads its run and the turns before.

    Beside it the agent's run is claimed, learns in a step how far its session was read, and remembers.
    """
    counted.answer("done")
    counts = await counted.completed("counts-agent", ASK, kind="agent")
    assert counts.commits == 3 + 3
    assert counts.statements == turns(counted.database, 1) + agent_alone(counted.database)
    assert counts.reads == {READ_RUN_AND_CLOCK: 1, READ_TURNS: 1, READ_WATERMARK: 1}


async def test_tool_calls_of_a_turn_are_created_at_once(counted: CountedFleet) -> None:
    counted.answer([tool_call("counts-look-up", number=number) for number in range(CHILDREN)], "done")
    counts = await counted.completed("counts-agent", ASK, kind="agent")
    created = each(counted.database, sqlite=1 + 2 * CHILDREN, postgresql=1)
    ended = CHILDREN * (1 + 4)  # claimed first
    assert counts.statements == turns(counted.database, 2) + created + ended + agent_alone(counted.database)
