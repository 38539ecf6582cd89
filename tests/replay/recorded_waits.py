"""Timers, waits for events, answers, batches, patches, queues, schedules, triggers, retries, forks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from recorded import Start, asks, attempts, is_recording, stuck_while_recording
from recorded_agents import add_up, agent_of

from polos import (
    BatchWorkflowInput,
    GuardrailContext,
    GuardrailResult,
    HookContext,
    HookResult,
    StepExecutionError,
    WorkflowContext,
    queue,
    workflow,
)

STARTS = [
    Start("recorded-timers", since="0004"),
    Start("recorded-events", since="0004"),
    Start("recorded-asked", since="0004"),
    Start("recorded-batches", since="0004"),
    Start("recorded-patched", since="0004"),
    Start("recorded-mended", becomes="failed", action="retry", since="0004"),
    Start("recorded-forked", action="fork", since="0004"),
    Start("recorded-limits", since="0004"),
    Start("recorded-reporter", {"input": asks('{"title": "Rain", "pages": 3}')}, since="0004"),
    Start("recorded-guarded", {"input": asks("done")}, since="0004"),
    Start(
        "recorded-desk-of-two", {"input": asks("over", ("transfer_to_recorded-guarded", {}))}, since="0004"
    ),
    Start("recorded-sleeper", becomes="waiting", ends="completed", output="woke", since="0004"),
    Start("recorded-listener", becomes="waiting", ends="completed", output={"word": "go"}, since="0004"),
    Start("recorded-patient", becomes="running", ends="completed", output="at last", since="0004"),
    Start("recorded-once", becomes="running", ends="completed", output="interrupted", since="0004"),
    Start("recorded-holder", becomes="running", ends="completed", output=1, since="0004"),
    Start("recorded-second", becomes="queued", ends="completed", output=2, since="0004"),
]


class News(BaseModel):
    number: int


class Title(BaseModel):
    title: str
    pages: int


@workflow(id="recorded-timers")
async def timers(ctx: WorkflowContext) -> list[str]:
    await ctx.step.wait_for("short", seconds=0.05)
    now = await ctx.step.now("now")
    await ctx.step.wait_until("moment", datetime.fromtimestamp(now / 1000, UTC) + timedelta(seconds=0.3))
    late = "not late"
    try:
        await ctx.step.wait_for_event("nothing", "recorded/silence", timeout=0.2)
    except StepExecutionError:
        late = "late"
    first = await asyncio.gather(ctx.step.wait_for("beside", seconds=0.05), ctx.step.run("work", lambda: 1))
    return [late, str(first[1])]


@workflow(id="recorded-events")
async def events(ctx: WorkflowContext) -> list[Any]:
    topic = f"recorded/{ctx.execution_id}"
    heard, _ = await asyncio.gather(
        ctx.step.wait_for_event("heard", topic, timeout=600, event_type="word", since=0),
        ctx.step.publish_event("said", topic, {"number": 4}, "word"),
    )
    own = f"workflow/{ctx.root_workflow_id}/{ctx.root_execution_id}"
    await ctx.step.publish_workflow_event("progress", {"percent": 50}, "progress")
    again = await ctx.step.wait_for_event("own", own, timeout=600, event_type="progress", since=0)
    return [heard.data, again.data]


@workflow(id="recorded-asker")
async def asker(ctx: WorkflowContext) -> Any:
    return (await ctx.step.suspend("ask", {"question": "Shall I?"}, timeout=600))["data"]


@workflow(id="recorded-asked")
async def asked(ctx: WorkflowContext) -> Any:
    """Asks, and answers itself."""
    child = ctx.step.invoke_and_wait("asker", asker)
    root = ctx.root_execution_id
    answer = ctx.step.resume("answer", "ask", root, ctx.root_workflow_id, {"answer": "yes"})
    said, _ = await asyncio.gather(child, answer)
    try:
        await ctx.step.suspend("nobody", {"question": "Anybody?"}, timeout=0.2)
    except StepExecutionError:
        return [said, "nobody"]
    return None


@workflow(id="recorded-item")
async def item(ctx: WorkflowContext, given: News) -> int:
    if given.number == 2:
        raise StepExecutionError("not 2")
    return await ctx.step.run("double", lambda: given.number * 2)


@workflow(id="recorded-batches")
async def batches(ctx: WorkflowContext) -> list[Any]:
    wanted = [BatchWorkflowInput(id="recorded-item", payload={"number": n}) for n in range(4)]
    results = await ctx.step.batch_invoke_and_wait("batch", wanted)
    handles = await ctx.step.batch_invoke("beside", wanted[:2])
    asking = [agent_of_waits.with_input(asks(f"Answer {n}.")) for n in range(2)]
    answers = await ctx.step.batch_agent_invoke_and_wait("agents", asking)
    return [
        [(one.success, one.result) for one in results],
        len(handles),
        [one.result.result for one in answers],
    ]


@workflow(id="recorded-patched")
async def patched(ctx: WorkflowContext) -> list[str]:
    done = [await ctx.step.run("first", lambda: "first")]
    for number in range(2):
        if await ctx.step.patched("greeting"):
            done.append(await ctx.step.run(f"greet {number}", lambda: "hello"))
        await ctx.step.wait_for(f"pause {number}", seconds=0.05)
    return done


def once_refused(run_id: str) -> str:
    attempts[run_id] += 1
    if is_recording() and attempts[run_id] == 1:
        raise ValueError("the service is away")
    return "mended"


@workflow(id="recorded-mended")
async def mended(ctx: WorkflowContext) -> list[str]:
    before = await ctx.step.run("before", lambda: "before")
    return [before, await ctx.step.run("service", once_refused, ctx.execution_id, max_retries=0)]


@workflow(id="recorded-forked")
async def forked(ctx: WorkflowContext) -> list[str]:
    one = await ctx.step.run("one", lambda: "one")
    two = await ctx.step.run("two", lambda: f"{one} two")
    return [one, two, await ctx.step.run("three", lambda: f"{two} three")]


@workflow(id="recorded-limited", queue=queue("recorded-limited", concurrency_limit=1))
async def limited(ctx: WorkflowContext, given: News) -> int:
    return await ctx.step.run("limited", lambda: given.number)


@workflow(id="recorded-limits")
async def limits(ctx: WorkflowContext) -> list[int]:
    return list(
        await asyncio.gather(
            *(ctx.step.invoke_and_wait(f"child {n}", limited, News(number=n)) for n in range(3))
        )
    )


@workflow(id="recorded-scheduled", schedule="0 0 1 1 *")
async def scheduled(ctx: WorkflowContext, given: Any = None) -> str:
    return "a new year"


@workflow(id="recorded-triggered", trigger_on_event="recorded/news")
async def triggered(ctx: WorkflowContext, given: Any) -> Any:
    return await ctx.step.run("read", lambda: given["events"][0]["data"]["number"])


# -- agents that are watched


def checked(ctx: WorkflowContext, seen: GuardrailContext) -> GuardrailResult:
    """Have answers made again that nobody has checked; shout the others."""
    text = seen.content or ""
    if text and not text.startswith("Checked: "):
        return GuardrailResult.fail("it was not accepted: it is not checked")
    return GuardrailResult.continue_with(modified_content=text.removeprefix("Checked: ").upper())


def watched(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    return HookResult.continue_with()


reporter = agent_of("recorded-reporter", output_schema=Title)
agent_of_waits = agent_of("recorded-plain-agent")
guarded = agent_of(
    "recorded-guarded",
    tools=[add_up],
    guardrails=[checked],
    on_start=watched,
    on_end=watched,
    on_agent_step_start=watched,
    on_agent_step_end=watched,
    on_tool_start=watched,
)
desk_of_two = agent_of("recorded-desk-of-two", tools=[add_up], handoffs=[guarded])


# -- half-way runs


@workflow(id="recorded-sleeper")
async def sleeper(ctx: WorkflowContext) -> str:
    await ctx.step.run("before", lambda: "before")
    await ctx.step.wait_for("sleep", hours=1)
    return str(await ctx.step.run("woke", lambda: "woke"))


@workflow(id="recorded-listener")
async def listener(ctx: WorkflowContext) -> Any:
    return (await ctx.step.wait_for_event("go", "recorded/go")).data


def away(run_id: str) -> str:
    if is_recording():
        raise ConnectionError("away")
    return "at last"


@workflow(id="recorded-patient")
async def patient(ctx: WorkflowContext) -> str:
    return str(await ctx.step.run("try", away, ctx.execution_id, max_retries=5, base_delay=1800))


@workflow(id="recorded-once")
async def once(ctx: WorkflowContext) -> str:
    try:
        return str(await ctx.step.run("once", stuck_while_recording, "done", at_most_once=True))
    except StepExecutionError:
        return str(await ctx.step.run("instead", lambda: "interrupted"))


ALONE = queue("recorded-alone", concurrency_limit=1)


@workflow(id="recorded-holder", queue=ALONE)
async def holder(ctx: WorkflowContext) -> int:
    return await ctx.step.run("hold", stuck_while_recording, 1)


@workflow(id="recorded-second", queue=ALONE)
async def second(ctx: WorkflowContext) -> int:
    return await ctx.step.run("then", lambda: 2)
