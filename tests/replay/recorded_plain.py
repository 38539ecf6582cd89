"""Steps, joins, races, children, state, retries, failures: what there has been since the first revision."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel
from recorded import Start, attempts, effects, is_recording, stuck_while_recording

from polos import StepExecutionError, WorkflowContext, WorkflowState, workflow

STARTS = [
    Start("recorded-steps", {"number": 7}),
    Start("recorded-joins", {"number": 3}),
    Start("recorded-race"),
    Start("recorded-children", {"number": 2}),
    Start("recorded-state", {"number": 5}),
    Start("recorded-flaky"),
    Start("recorded-handled"),
    Start("recorded-fails", becomes="failed"),
    Start("recorded-tried-again"),
    Start("recorded-long", becomes="cancelled", action="cancel"),
    Start("recorded-in-step", becomes="running", ends="completed", output=["first", "second", "third"]),
    Start("recorded-in-child", becomes="running", ends="completed", output=["before", "inside", "after"]),
    Start("recorded-before-retry", becomes="queued", ends="completed", output="first"),
    Start("recorded-changed", becomes="blocked", ends="completed", output=["first", "second"]),
    Start("recorded-never-begun", {"number": 1}, becomes="queued", ends="completed", output=2, late=True),
]


class Number(BaseModel):
    number: int


class Kept(WorkflowState):
    seen: list[int] = []  # noqa: RUF012 - a field of a model


def add(one: int, other: int) -> int:
    effects.append("sum")
    return one + other


async def later(value: Any, seconds: float = 0.0) -> Any:
    effects.append(value)
    await asyncio.sleep(seconds)
    return value


@workflow(id="recorded-steps")
async def steps(ctx: WorkflowContext, given: Number) -> dict[str, Any]:
    return {
        "sum": await ctx.step.run("sum", add, given.number, 1),
        "model": (await ctx.step.run("model", lambda: Number(number=9))).number,
        "uuid": await ctx.step.uuid("uuid"),
        "now": await ctx.step.now("now"),
        "random": await ctx.step.random("random"),
        "key": await ctx.step.run("$odd key\x00", later, "odd"),
    }


@workflow(id="recorded-joins")
async def joins(ctx: WorkflowContext, given: Number) -> list[Any]:
    return list(
        await asyncio.gather(
            *(ctx.step.run(f"part.{n}", later, n, 0.02 * (given.number - n)) for n in range(given.number))
        )
    )


@workflow(id="recorded-race")
async def race(ctx: WorkflowContext) -> list[Any]:
    tasks = [
        asyncio.create_task(ctx.step.run("slow", later, "slow", 0.2)),
        asyncio.create_task(ctx.step.run("fast", later, "fast", 0.01)),
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    first = [await task for task in done]
    return [*first, await ctx.step.run(f"after {first[0]}", later, "after"), *[await task for task in tasks]]


@workflow(id="recorded-leaf")
async def leaf(ctx: WorkflowContext, given: Number) -> int:
    return await ctx.step.run("leaf", add, given.number, 1)


@workflow(id="recorded-branch")
async def branch(ctx: WorkflowContext, given: Number) -> int:
    return await ctx.step.invoke_and_wait("leaf", "recorded-leaf", given) + 1


@workflow(id="recorded-children")
async def children(ctx: WorkflowContext, given: Number) -> list[Any]:
    left, right = await asyncio.gather(
        ctx.step.invoke_and_wait("left", branch, given), ctx.step.invoke_and_wait("right", leaf, given)
    )
    handle = await ctx.step.invoke("beside", leaf, given)
    failed = "nothing"
    try:
        await ctx.step.invoke_and_wait("failing", "recorded-fails")
    except StepExecutionError as error:
        failed = str(error)
    return [left, right, handle.id == ctx.execution_id, failed]


@workflow(id="recorded-state", state_schema=Kept)
async def state(ctx: WorkflowContext, given: Number) -> list[int]:
    ctx.state.seen.append(await ctx.step.run("twice", add, given.number, given.number))
    ctx.state.seen.append(await ctx.step.run("more", add, ctx.state.seen[0], 1))
    return list(ctx.state.seen)


def fails_twice(run_id: str) -> str:
    attempts[run_id] += 1
    if attempts[run_id] <= 2:
        raise ConnectionError(f"try {attempts[run_id]}")
    return "at last"


@workflow(id="recorded-flaky")
async def flaky(ctx: WorkflowContext) -> str:
    return str(await ctx.step.run("try", fails_twice, ctx.execution_id, max_retries=3, base_delay=0.01))


def refuse() -> None:
    raise ValueError("never")


@workflow(id="recorded-handled")
async def handled(ctx: WorkflowContext) -> list[str]:
    try:
        await ctx.step.run("refused", refuse, max_retries=0)
    except StepExecutionError as error:
        return [str(error), await ctx.step.run("instead", later, "instead")]
    return []


@workflow(id="recorded-fails")
async def fails(ctx: WorkflowContext) -> None:
    await ctx.step.run("before", later, 1)
    await ctx.step.run("refused", refuse, max_retries=0)


@workflow(id="recorded-tried-again")
async def tried_again(ctx: WorkflowContext) -> str:
    """The first attempt of the run fails outside of its steps."""
    first = await ctx.step.run("first", later, "first")
    attempts[ctx.execution_id] += 1
    if is_recording() and attempts[ctx.execution_id] == 1:
        raise ConnectionError("not yet")
    return str(await ctx.step.run("then", later, f"then {first}"))


@workflow(id="recorded-long")
async def long(ctx: WorkflowContext) -> None:
    await ctx.step.run("before", later, 1)
    await ctx.step.run("hangs", stuck_while_recording, 2)


# -- half-way runs


@workflow(id="recorded-in-step")
async def in_step(ctx: WorkflowContext) -> list[str]:
    return [
        await ctx.step.run("first", later, "first"),
        await ctx.step.run("second", stuck_while_recording, "second"),
        await ctx.step.run("third", later, "third"),
    ]


@workflow(id="recorded-stuck-child")
async def stuck_child(ctx: WorkflowContext) -> str:
    return str(await ctx.step.run("inside", stuck_while_recording, "inside"))


@workflow(id="recorded-in-child")
async def in_child(ctx: WorkflowContext) -> list[str]:
    before = await ctx.step.run("before", later, "before")
    inside = await ctx.step.invoke_and_wait("child", stuck_child)
    return [before, inside, await ctx.step.run("after", later, "after")]


@workflow(id="recorded-before-retry")
async def before_retry(ctx: WorkflowContext) -> str:
    first = await ctx.step.run("first", later, "first")
    if is_recording():
        raise ConnectionError("not yet")
    return str(first)


@workflow(id="recorded-changed")
async def changed(ctx: WorkflowContext) -> list[str]:
    """While it is recorded, its second attempt asks for a step of another name: it is blocked."""
    attempts[ctx.execution_id] += 1
    if is_recording() and attempts[ctx.execution_id] == 2:
        await ctx.step.run("renamed", later, "renamed")
    first = await ctx.step.run("first", later, "first")
    if is_recording():
        raise ConnectionError("not yet")
    return [first, await ctx.step.run("second", later, "second")]


@workflow(id="recorded-never-begun")
async def never_begun(ctx: WorkflowContext, given: Number) -> int:
    return await ctx.step.run("add", add, given.number, 1)
