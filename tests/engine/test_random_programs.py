"""Random programs whose worker dies at a random commit, or ends, come out as they would have without."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from fleet import SETTINGS, Fleet
from fleet import fleet as open_any_fleet

from polos import BatchWorkflowInput, StepExecutionError, WorkflowContext, workflow
from polos.journal.database import Database
from polos.worker.drain import drain

Node = dict[str, Any]
seen: dict[tuple[str, str], set[str]] = defaultdict(set)  # what code saw at each place, in every pass
tries: Counter[tuple[str, str]] = Counter()  # of steps that fail first
calls: Counter[tuple[str, str]] = Counter()  # how often each step function was called


# -- programs


def program(dice: random.Random, depth: int = 3) -> Node:
    """Return a random program: a tree of nodes, each with a name of its own."""
    return _node(dice, depth, "r")


def _node(dice: random.Random, depth: int, name: str) -> Node:
    kind = dice.choice(INNER if depth else LEAVES)
    parts = (
        []
        if kind in LEAVES
        else [_node(dice, depth - 1, f"{name}.{place}") for place in range(dice.randint(1, 3))]
    )
    return {"kind": kind, "name": name, "parts": parts, "fails": dice.choice([0, 0, 1])}


async def _step(ctx: WorkflowContext, node: Node) -> Any:
    key = (ctx.execution_id, node["name"])

    async def work() -> str:
        calls[key] += 1
        if node["fails"]:
            await asyncio.sleep(0)
        return f"did {node['name']}"

    return await ctx.step.run(node["name"], work)


async def _failing(ctx: WorkflowContext, node: Node) -> Any:
    def fail() -> None:
        raise ValueError(node["name"])

    try:
        return await ctx.step.run(node["name"], fail, max_retries=node["fails"], base_delay=0)
    except StepExecutionError as error:
        return str(error)


async def _value(ctx: WorkflowContext, node: Node) -> Any:
    make = random.Random(node["name"]).choice([ctx.step.uuid, ctx.step.now, ctx.step.random])
    _see(ctx, node, await make(node["name"]))
    return "a value"


async def _detached(ctx: WorkflowContext, node: Node) -> Any:
    handle = await ctx.step.invoke(node["name"], flow, {**node, "kind": "step"})
    _see(ctx, node, handle.id)
    return "a handle"


async def _timer(ctx: WorkflowContext, node: Node) -> Any:
    """Some are short, some long enough to be parked."""
    await ctx.step.wait_for(node["name"], seconds=random.Random(node["name"]).choice([0.001, 0.004, 0.012]))
    return "waited"


async def _event(ctx: WorkflowContext, node: Node) -> Any:
    """Tell oneself something, while waiting for it or before."""
    topic = f"{ctx.execution_id}/{node['name']}"

    async def tell() -> None:
        await ctx.step.publish_event(f"{node['name']} told", topic, {"name": node["name"]})

    if node["fails"]:
        await tell()
        event = await ctx.step.wait_for_event(node["name"], topic, since=0)
    else:
        event, _ = await asyncio.gather(ctx.step.wait_for_event(node["name"], topic, since=0), tell())
    _see(ctx, node, event.model_dump(mode="json"))
    return event.data


async def _retried(ctx: WorkflowContext, node: Node) -> Any:
    """A step whose second try comes after a pause that is a durable wait."""
    key = (ctx.execution_id, node["name"])

    def work() -> str:
        tries[key] += 1
        if tries[key] == 1:
            raise ValueError("not yet")
        return "at last"

    return await ctx.step.run(node["name"], work, base_delay=0.015, max_delay=0.015)


async def _batch(ctx: WorkflowContext, node: Node) -> Any:
    children = [BatchWorkflowInput(id="random-program", payload=part) for part in node["parts"]]
    results = await ctx.step.batch_invoke_and_wait(node["name"], children)
    return [result.result for result in results]


async def _sequence(ctx: WorkflowContext, node: Node) -> Any:
    return [await perform(ctx, part) for part in node["parts"]]


async def _gather(ctx: WorkflowContext, node: Node) -> Any:
    return await asyncio.gather(*(perform(ctx, part) for part in node["parts"]))


async def _group(ctx: WorkflowContext, node: Node) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(perform(ctx, part)) for part in node["parts"]]
    return [task.result() for task in tasks]


async def _limited(ctx: WorkflowContext, node: Node) -> Any:
    one_at_a_time = asyncio.Semaphore(1)

    async def one(part: Node) -> Any:
        async with one_at_a_time:
            return await perform(ctx, part)

    return await asyncio.gather(*map(one, node["parts"]))


async def _race(ctx: WorkflowContext, node: Node) -> Any:
    """Take the first, cancel the others, and do a step that depends on who won."""
    tasks = {asyncio.create_task(perform(ctx, part), name=part["name"]) for part in node["parts"]}
    done, losers = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in losers:
        task.cancel()
    await asyncio.gather(*losers, return_exceptions=True)
    winner = min(task.get_name() for task in done)
    _see(ctx, node, winner)
    await ctx.step.run(f"{node['name']} after {winner}", lambda: None)
    return "a race"


async def _as_completed(ctx: WorkflowContext, node: Node) -> Any:
    async def named(part: Node) -> str:
        await perform(ctx, part)
        return str(part["name"])

    order = [await each for each in asyncio.as_completed([named(part) for part in node["parts"]])]
    _see(ctx, node, order)
    await ctx.step.run(f"{node['name']} after {order}", lambda: None)
    return sorted(order)


async def _child(ctx: WorkflowContext, node: Node) -> Any:
    return await ctx.step.invoke_and_wait(node["name"], flow, {**node, "kind": "sequence"})


PERFORM = {
    "step": _step,
    "failing": _failing,
    "value": _value,
    "detached": _detached,
    "timer": _timer,
    "event": _event,
    "retried": _retried,
    "batch": _batch,
    "sequence": _sequence,
    "gather": _gather,
    "group": _group,
    "limited": _limited,
    "race": _race,
    "as_completed": _as_completed,
    "child": _child,
}
LEAVES = ("step", "failing", "value", "detached", "timer", "event", "retried")
INNER = ("sequence", "gather", "group", "limited", "race", "as_completed", "child", "child", "batch")


def _see(ctx: WorkflowContext, node: Node, what: Any) -> None:
    seen[ctx.execution_id, node["name"]].add(json.dumps(what))


async def perform(ctx: WorkflowContext, node: Node) -> Any:
    return await PERFORM[node["kind"]](ctx, node)


@workflow(id="random-program")
async def flow(ctx: WorkflowContext, node: dict[str, Any]) -> Any:
    return await perform(ctx, node)


# -- runs of them

PARKING = replace(SETTINGS, wait_threshold_seconds=0.01)


def open_fleet(database: Database) -> AbstractAsyncContextManager[Fleet]:
    return open_any_fleet(database, PARKING)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    seen.clear()
    tries.clear()
    calls.clear()


async def _outcome(fleet: Fleet, node: Node) -> str:
    run_id = fleet.create("random-program", json.dumps(node))
    run = await fleet.until_ended(run_id)
    assert run["status"] == "completed", f"{run['status']}: {run['error']} in {json.dumps(node)}"
    assert not [error for worker in fleet.workers for error in worker.failures]
    return str(run["output"])


async def _clean(database: Database, node: Node) -> tuple[str, int]:
    """Return the output of an undisturbed run, and how many commits it took."""
    async with open_fleet(database) as fleet:
        worker = fleet.hire(slots=2)
        output = await _outcome(fleet, node)
        return output, worker.backend.commits


async def _with_deaths(database: Database, node: Node, deaths: list[tuple[int, bool]]) -> str:
    """Return the output of a run whose workers die one after another at those commits."""
    async with open_fleet(database) as fleet:
        undertaker = asyncio.create_task(_replace(fleet, deaths))
        output = await _outcome(fleet, node)
        undertaker.cancel()
        return output


async def _replace(fleet: Fleet, deaths: list[tuple[int, bool]]) -> None:
    for dies_at, commits_last in deaths:
        worker = fleet.hire(slots=2, dies_at=dies_at, commits_last=commits_last)
        await worker.backend.died.wait()
        await fleet.bury(worker)
    fleet.hire(slots=2)


async def _with_drains(database: Database, node: Node, commits: list[int]) -> str:
    """Return the output of a run whose workers are drained one after another after so many commits."""

    async def shifts() -> None:
        for number in commits:
            worker = fleet.hire(slots=2)
            while worker.backend.commits < number:
                await asyncio.sleep(0)
            fleet.workers.remove(worker)
            await drain(worker.runtime, grace_seconds=0.1)
            await worker.kill()
        fleet.hire(slots=2)

    async with open_fleet(database) as fleet:
        working = asyncio.create_task(shifts())
        output = await _outcome(fleet, node)
        working.cancel()
        return output


def _nothing_differed() -> None:
    assert {place: what for place, what in seen.items() if len(what) > 1} == {}


SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
async def test_deaths_change_nothing(sqlite: Database, seed: int) -> None:
    dice = random.Random(seed)
    node = program(dice)
    output, commits = await _clean(sqlite, node)
    for _ in range(3):
        deaths = [(dice.randint(1, commits), dice.random() < 0.5) for _ in range(2)]
        assert await _with_deaths(sqlite, node, deaths) == output, f"seed {seed}, deaths {deaths}"
    _nothing_differed()


@pytest.mark.parametrize("seed", SEEDS)
async def test_ends_of_workers_change_nothing_and_repeat_nothing(sqlite: Database, seed: int) -> None:
    dice = random.Random(seed)
    node = program(dice)
    output, commits = await _clean(sqlite, node)
    shifts = [dice.randint(1, commits) for _ in range(3)]
    assert await _with_drains(sqlite, node, shifts) == output, f"seed {seed}, after commits {shifts}"
    _nothing_differed()
    assert not [place for place, times in calls.items() if times > 1]
